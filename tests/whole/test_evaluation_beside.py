"""Epochs that are evaluated beside training have the figures that they have in between, whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import reidray.launch.launch
from reidray.actors.cluster import room_beside
from reidray.bank import Done, InProcess
from reidray.config import Settings
from reidray.launch.evaluator import Evaluator
from reidray.launch.launch import launch
from reidray.storage.checkpoints import CheckpointStore
from reidray.training.background_evaluation import BackgroundEvaluation
from tests.whole.runs import assert_same_run, evaluations

EVERY = {"evaluate": {"every": 1}, "train": {"epochs": 3, "steps": 3}, "method": {"name": "cluster_contrast"}}


class _Late:
    """An answer that is there when somebody waits for it, and not before the figures of `silent` epochs are asked."""

    def __init__(self, evaluator: Evaluator, silent: tuple[int, ...]) -> None:
        self._evaluator = evaluator
        self._silent = silent
        self.asked: list[int] = []

    def submit(self, method: str, state: Any, epoch: int) -> Any:
        self.asked.append(epoch)
        return _Never() if epoch in self._silent else InProcess(self._evaluator).submit(method, state, epoch)

    def waiting(self) -> bool:
        return True

    def ended(self) -> bool:
        return False


class _Never:
    def done(self) -> bool:
        return False

    def result(self) -> Any:
        raise AssertionError("nobody may wait for this")


class _There:
    """An evaluator with a machine, whose answers are all this one; or one that is gone."""

    def __init__(self, answer: Any, *, gone: bool = False) -> None:
        self._answer, self._gone = answer, gone

    def submit(self, method: str, *arguments: Any) -> Any:
        return self._answer

    def waiting(self) -> bool:
        return False

    def ended(self) -> bool:
        return self._gone


def _beside(monkeypatch: pytest.MonkeyPatch, silent: tuple[int, ...] = ()) -> list[_Late]:
    """Runs of this process evaluate beside training; the members that they ask."""
    plain, members = reidray.launch.launch.worker_context, []

    def context(settings: Settings, packed: str, place: Path, *others: Any) -> Any:
        made = plain(settings, packed, place, *others)
        evaluator = Evaluator(settings, packed, str(place))
        members.append(_Late(evaluator, silent))
        made.background = BackgroundEvaluation(members[-1], evaluator.evaluate, patience=0.1)
        return made

    monkeypatch.setattr(reidray.launch.launch, "worker_context", context)
    return members


@pytest.mark.parametrize("silent", [(), (1,)], ids=["answered", "an evaluator that does not answer"])
def test_figures_are_those_of_an_evaluation_in_between(
    tiny_settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: tuple[int, ...]
) -> None:
    launch(tiny_settings("between", **EVERY))
    members = _beside(monkeypatch, silent)
    launch(tiny_settings("beside", **EVERY))
    assert [member.asked for member in members] == [[0, 1]]
    assert [line["epoch"] for line in evaluations(tmp_path / "between")] == [None, 0, 1, 2]
    assert_same_run(tmp_path / "between", tmp_path / "beside")


@pytest.mark.parametrize("last", ["epoch_0001", "epoch_0001_step_000000"])
def test_a_run_that_stops_before_or_after_the_answer_has_it_once(
    tiny_settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    many = {**EVERY, "run": {"checkpoint_steps": 2}}
    launch(tiny_settings("whole", **many))
    save = CheckpointStore.save

    def stops(store: CheckpointStore, checkpoint: Any, bank: Any = None) -> None:
        save(store, checkpoint, bank)
        if checkpoint.name == last:
            store.wait()
            raise RuntimeError("a machine goes away")

    members = _beside(monkeypatch)
    settings = tiny_settings("stopped", **many)
    with monkeypatch.context() as patched:
        patched.setattr(CheckpointStore, "save", stops)
        with pytest.raises(RuntimeError, match="goes away"):
            launch(settings)
    launch(settings, resume=tmp_path / "stopped")
    assert [member.asked for member in members] == ([[0, 1], [1]] if last == "epoch_0001" else [[0], [1]])
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_taken_up_where_nothing_is_left_free_evaluates_in_between(
    tiny_settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(tiny_settings("whole", **EVERY))
    settings, save = tiny_settings("stopped", **EVERY), CheckpointStore.save

    def stops(store: CheckpointStore, checkpoint: Any, bank: Any = None) -> None:
        save(store, checkpoint, bank)
        store.wait()
        raise RuntimeError("a machine goes away")

    with monkeypatch.context() as patched:
        _beside(patched)
        patched.setattr(CheckpointStore, "save", stops)
        with pytest.raises(RuntimeError, match="goes away"):
            launch(settings)
    launch(settings, resume=tmp_path / "stopped")
    assert evaluations(tmp_path / "stopped") == evaluations(tmp_path / "whole")


def test_room_is_what_workers_labellers_and_the_bank_leave() -> None:
    def room(there: dict[str, float], workers: int = 2, *, use_gpu: bool = False, every: int = 1, **run: Any) -> bool:
        settings = Settings(evaluate={"every": every}, run={"bank_shards": 1, **run})
        return room_beside(settings, there, workers, use_gpu=use_gpu)

    assert room({"CPU": 3})
    assert not room({"CPU": 2})
    assert not room({"CPU": 3}, bank_cpus=1)
    assert not room({"CPU": 5}, threads=2)
    assert not room({"CPU": 9}, every=0)
    assert not room({"CPU": 9}, evaluate_beside=False)
    assert not room({"CPU": 9}, workers=2, min_workers=1)
    assert room({"CPU": 9, "GPU": 3}, use_gpu=True)
    assert not room({"CPU": 9, "GPU": 2}, use_gpu=True)
    assert not room({"CPU": 9, "GPU": 3}, use_gpu=True, labellers=1, labeller_gpus=0.5)


def test_one_evaluation_at_a_time() -> None:
    beside = BackgroundEvaluation(_There(Done({"mAP": 1.0})), lambda state, epoch: {}, 1.0)
    with pytest.raises(AssertionError):
        beside.figures()
    beside.begin(nn.Linear(1, 1), 0)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        beside.begin(nn.Linear(1, 1), 1)  # type: ignore[arg-type]
    assert beside.figures() == {"mAP": 1.0}


def test_an_evaluator_that_is_slow_and_there_is_waited_for() -> None:
    class Slow:
        looks = 0

        def done(self) -> bool:
            self.looks += 1
            return self.looks > 3

        def result(self) -> Any:
            return {"mAP": 1.0}

    beside = BackgroundEvaluation(_There(Slow()), lambda state, epoch: {"mAP": 0.0}, patience=0.0)
    beside.begin(nn.Linear(1, 1), 0)  # type: ignore[arg-type]
    assert beside.figures() == {"mAP": 1.0}


def test_without_its_evaluator_training_evaluates_itself() -> None:
    class Lost(_Never):
        def done(self) -> bool:
            return True

    beside = BackgroundEvaluation(_There(Lost(), gone=True), lambda state, epoch: {"mAP": float(epoch)}, patience=1.0)
    for epoch in (3, 4):
        beside.begin(nn.Linear(1, 1), epoch)  # type: ignore[arg-type]
        assert beside.figures() == {"mAP": epoch}
