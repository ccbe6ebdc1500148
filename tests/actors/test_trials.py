"""Trials on Tune: room for them, early stopping that remembers, and a whole search that is interrupted."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from reidray.config import Settings
from reidray.launch.space import with_values
from tests.conftest import TINY

ROOT = Path(__file__).resolve().parents[2]

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
    from reidray.actors.search import trial_share

    share = trial_share(with_values(Settings(), values), most, cluster)
    assert (share.cpus, share.gpus, share.concurrent) == expected


def test_a_trial_that_finds_no_room_is_refused() -> None:
    from reidray.actors.search import trial_share

    with pytest.raises(ValueError, match="needs 4 CPUs and 0 GPUs and the cluster has 2 and 0"):
        trial_share(with_values(Settings(), {"run.threads": 4}), None, {"CPU": 2})
    with pytest.raises(ValueError, match="needs 1 CPUs and 1 GPUs"):
        trial_share(with_values(Settings(), {"run.device": "cuda"}), None, {"CPU": 2})


# --- early stopping ---


def decisions(past: list[dict[int, float]], scores: dict[int, float], epochs: int = 6) -> list[str]:
    """What the scheduler says to a trial after each epoch."""
    from reidray.actors.search import Asha, _scheduler

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
    from reidray.actors.search import _Interruption, _Watch

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


# --- a whole search ---


def _job(*words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "jobs" / "tune.py"), *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def _said(job: subprocess.Popen[str], words: str) -> str:
    """The job's output until a line with these words."""
    assert job.stdout is not None
    lines = []
    for line in job.stdout:
        lines.append(line)
        if words in line:
            return "".join(lines)
    raise AssertionError(f"{words!r} was never said:\n{''.join(lines)}")


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_that_is_interrupted_goes_on_and_leaves_nothing_behind(tiny_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    tree = json.loads(json.dumps(TINY))
    tree["train"] = {"epochs": 3, "steps": 3}
    tree["data"]["root"] = str(tiny_root)
    tree.pop("run")
    space = {"method.eps": {"uniform": [0.4, 0.7]}, "train.learning_rate": {"loguniform": [1e-4, 1e-3]}}
    file = tmp_path / "search.yaml"
    file.write_text(yaml.safe_dump({"settings": tree, "search": space, "trials": 3, "scheduler": "none"}))

    job = _job("--search", str(file), "--concurrent", "1", f"run.dir={folder}")
    _said(job, "trial 000  finished")
    _said(job, "trial 001  epoch 1/3")
    job.send_signal(signal.SIGTERM)
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 143, output
    assert "--resume" in output
    assert (folder / "trials" / "000" / "result.json").exists()
    first = (folder / "trials" / "000" / "result.json").stat().st_mtime_ns
    _assert_nobody_works_in(folder)

    job = _job("--resume", str(folder))
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert (folder / "trials" / "000" / "result.json").stat().st_mtime_ns == first
    with (folder / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["trial"]: row["state"] for row in rows} == dict.fromkeys("012", "finished")
    assert [float(row["objective"]) for row in rows] == sorted((float(row["objective"]) for row in rows), reverse=True)
    assert all(row["mAP"] and row["silhouette"] and row["agreement"] for row in rows)
    assert (folder / "pictures" / "search.png").stat().st_size > 5000
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["method"]["eps"] == float(rows[0]["method.eps"])
    assert not (folder / "ray").exists()


def _assert_nobody_works_in(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        there = [
            entry.name
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and str(folder).encode() in _environment_and_words(entry)
        ]
        if not there:
            return
        assert time.monotonic() < deadline, f"processes {there} still work in {folder}"
        time.sleep(0.5)


def _environment_and_words(entry: Path) -> bytes:
    try:
        opened = b" ".join(str(link.readlink()).encode() for link in (entry / "fd").iterdir())
        return (entry / "cmdline").read_bytes() + opened
    except OSError:
        return b""
