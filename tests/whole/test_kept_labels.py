"""Epochs that keep the labels, the memories and the heads of the one before, and runs that stop at them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from reidray.launch.launch import launch
from reidray.methods.scwm import SCWM
from reidray.methods.step import EpochPlan
from reidray.storage.checkpoints import CheckpointStore
from tests.whole.runs import assert_same_run, epochs, losses

RELABELS = (True, False, False, True)
STEPS = (4, 2, 3, 2)  # an epoch may have fewer than the one before
HEADS = {"global_identity_weight": 0.5, "part_identity_weight": 0.5}


class _StoppedError(RuntimeError):
    """Stands for a machine that goes away."""


@pytest.fixture(autouse=True)
def _kept_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """SCWM with another schedule and other numbers of steps."""
    batches = SCWM.batches

    def schedule(method: SCWM, num_images: int) -> Sequence[EpochPlan]:
        return [EpochPlan(relabel=relabel, rate=0.5**epoch) for epoch, relabel in enumerate(RELABELS)]

    def fewer(method: SCWM, labels_N: Any, cameras_N: Any, epoch: int) -> Any:
        return batches(method, labels_N, cameras_N, epoch)[: STEPS[epoch]]

    monkeypatch.setattr(SCWM, "schedule", schedule)
    monkeypatch.setattr(SCWM, "batches", fewer)


def tree(tiny_settings: Callable[..., Any], name: str) -> Any:
    return tiny_settings(name, train={"epochs": len(RELABELS)}, run={"checkpoint_steps": 1}, scwm=HEADS)


def test_epochs_without_labelling_train_on_and_say_nothing_of_labels(
    tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    launch(tree(tiny_settings, "run"))
    found = epochs(tmp_path / "run")
    assert [line["epoch"] for line in found] == [0, 1, 2, 3]
    assert tuple("clusters" in line or "num_clusters" in line for line in found) == RELABELS
    by_epoch = [line["epoch"] for line in losses(tmp_path / "run")]
    assert [by_epoch.count(epoch) for epoch in range(4)] == list(STEPS)


def test_runs_that_stop_at_such_epochs_end_like_one_that_does_not(
    tiny_settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an epoch whose labels go on, within one that went on with them, and as another one begins."""
    launch(tree(tiny_settings, "whole"))
    save = CheckpointStore.save
    for last in ("epoch_0000", "epoch_0001_step_000001", "epoch_0002_step_000000"):

        def stops(store: CheckpointStore, checkpoint: Any, bank: Any = None, last: str = last) -> None:
            save(store, checkpoint, bank)
            if checkpoint.name == last:
                store.wait()
                raise _StoppedError

        with monkeypatch.context() as patched:
            patched.setattr(CheckpointStore, "save", stops)
            with pytest.raises(_StoppedError):
                launch(tree(tiny_settings, last))
        launch(tree(tiny_settings, last), resume=tmp_path / last)
        assert_same_run(tmp_path / "whole", tmp_path / last)
