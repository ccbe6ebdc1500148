"""Trials on Tune: room for them, and early stopping that remembers."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from reidray.config import Settings
from reidray.tuning.checks import with_values

pytestmark = pytest.mark.filterwarnings("default")


# --- room ---


@pytest.mark.parametrize(
    ("values", "cluster", "most", "expected"),
    [
        ({"run.workers": 0}, {"CPU": 2}, None, (1, 0, 2)),
        ({"run.workers": 0, "run.threads": 2}, {"CPU": 7}, None, (2, 0, 3)),
        ({"run.workers": 0}, {"CPU": 8}, 3, (1, 0, 3)),
        ({"run.workers": 0}, {"CPU": 16, "GPU": 4}, None, (1, 1, 4)),
        ({"run.workers": 0, "run.device": "cpu"}, {"CPU": 16, "GPU": 4}, None, (1, 0, 16)),
        ({"run.workers": 2, "run.device": "cpu"}, {"CPU": 5}, None, (2, 0, 2)),
        ({"run.workers": 2, "run.device": "cpu", "run.bank_cpus": 1.0}, {"CPU": 8}, None, (2, 0, 2)),
        ({"run.workers": 2, "run.labeller_gpus": 0.5}, {"CPU": 16, "GPU": 5}, None, (2, 2.5, 2)),
    ],
)
def test_as_many_trials_run_at_a_time_as_there_is_room_for(
    values: dict[str, Any], cluster: dict[str, float], most: int | None, expected: tuple[int, float, int]
) -> None:
    from reidray.actors.tune import trial_share

    share = trial_share(with_values(Settings(), values), most, cluster)
    assert (share.cpus, share.gpus, share.concurrent) == expected


def test_a_trial_that_finds_no_room_is_refused() -> None:
    from reidray.actors.tune import trial_share

    with pytest.raises(ValueError, match="needs 4 CPUs and 0 GPUs and the cluster has 2 and 0"):
        trial_share(with_values(Settings(), {"run.threads": 4}), None, {"CPU": 2})
    with pytest.raises(ValueError, match="needs 1 CPUs and 1 GPUs"):
        trial_share(with_values(Settings(), {"run.device": "cuda"}), None, {"CPU": 2})


# --- early stopping ---


def decisions(past: list[dict[int, float]], scores: dict[int, float], epochs: int = 6) -> list[str]:
    """What the scheduler says to a trial after each epoch."""
    from reidray.actors.tune import Asha, _scheduler

    scheduler = _scheduler(Asha(epochs, grace_epochs=2, reduction=2), past)
    trial = SimpleNamespace(trial_id="new")
    scheduler.on_trial_add(None, trial)
    return [
        scheduler.on_trial_result(None, trial, {"epochs": done, **({"score": score} if score is not None else {})})
        for done, score in scores.items()
    ]


def test_a_trial_that_lags_behind_earlier_sittings_is_stopped_at_the_first_rung() -> None:
    past = [{2: score} for score in (0.5, 0.6, 0.7, 0.8)]
    assert decisions(past, {1: 0.0, 2: 0.1}) == ["CONTINUE", "STOP"]
    assert decisions(past, {1: 0.0, 2: 0.9}) == ["CONTINUE", "CONTINUE"]
    assert decisions([], {1: 0.0, 2: 0.1}) == ["CONTINUE", "CONTINUE"]


def test_nobody_is_stopped_at_the_last_epoch() -> None:
    past = [dict.fromkeys(range(2, 7), score) for score in (0.5, 0.6, 0.7)]
    told = decisions(past, {2: 0.9, 3: 0.9, 4: 0.9, 5: 0.9, 6: 0.0})
    assert told == ["CONTINUE"] * 5


def test_an_epoch_without_a_score_stops_nobody() -> None:
    assert decisions([{2: 0.5}], {1: None, 2: None}) == ["CONTINUE", "CONTINUE"]


def test_what_the_caller_cannot_do_ends_the_search_with_its_own_error() -> None:
    from reidray.actors.tune import _Interruption, _Watch

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    interruption, heard = _Interruption(), []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(interruption.status))  # as Tune does
    try:
        watch = _Watch(full, full, interruption)
        watch.on_trial_result(1, [], SimpleNamespace(trial_id="a", config={"trial": 0}), {"epochs": 1})
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [1]
    assert isinstance(interruption.error, OSError)
