"""TensorBoard events, read back with TensorBoard's own reader."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from reidray.report.loggers import Curves
from reidray.report.tensorboard import TensorBoard


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder))
        events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def curves(folder: Path) -> Curves:
    return Curves({"tensorboard": TensorBoard(folder)}, steps_per_epoch=2)


def test_every_curve_has_the_number_of_updates_as_its_axis(tmp_path: Path):
    board = curves(tmp_path)
    board.epoch("evaluation", -1, {"when": "before", "epoch": None, "mAP": 50.0})
    board.steps(0, {"total": [4.0, 3.0]})
    board.epoch("epoch", 0, {"epoch": 0, "loss": 3.5, "ARI": None, "done": True})
    board.steps(1, {"total": [2.0, 1.0]})
    board.close()
    assert scalars(tmp_path) == {
        "evaluation/mAP": [(0, 50.0)],
        "loss/total": [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)],
        "epoch/loss": [(2, 3.5)],
    }


def test_a_resumed_run_hides_what_it_does_again(tmp_path: Path):
    board = curves(tmp_path)
    for epoch in range(3):
        board.steps(epoch, {"total": [1.0, 1.0]})
        board.epoch("epoch", epoch, {"loss": 1.0})
    board.resume(1)
    board.steps(1, {"total": [5.0, 6.0]})
    board.close()
    seen = scalars(tmp_path)
    assert seen["loss/total"] == [(1, 1.0), (2, 1.0), (3, 5.0), (4, 6.0)]
    assert seen["epoch/loss"] == [(2, 1.0)]


def test_nothing_is_written_before_the_first_scalar(tmp_path: Path):
    board = curves(tmp_path / "events")
    board.epoch("labels", 0, {"ARI": None})
    board.close()
    assert not (tmp_path / "events").exists()
    with pytest.raises(FileNotFoundError):
        next((tmp_path / "events").iterdir())
