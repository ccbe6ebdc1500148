"""A run that stops in the middle of an epoch goes on from its last update, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reidray.launch.launch import launch
from reidray.storage.checkpoints import CheckpointStore
from tests.whole.runs import assert_same_run


class _StoppedError(RuntimeError):
    """Stands for a machine that goes away."""


def test_a_run_goes_on_within_an_epoch(
    tiny_settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With layers that live for one epoch: their rows and moments are kept, too."""
    scwm = {"global_identity_weight": 0.5, "part_identity_weight": 0.5}
    launch(tiny_settings("whole", train={"steps": 5}, scwm=scwm))
    save, saved = CheckpointStore.save, []

    def stops(store: CheckpointStore, checkpoint: Any, bank: Any = None) -> None:
        save(store, checkpoint, bank)
        saved.append(checkpoint.name)
        if checkpoint.name == "epoch_0001_step_000004":
            store.wait()
            raise _StoppedError

    settings = tiny_settings("stopped", train={"steps": 5}, run={"checkpoint_steps": 2}, scwm=scwm)
    with monkeypatch.context() as patched:
        patched.setattr(CheckpointStore, "save", stops)
        with pytest.raises(_StoppedError):
            launch(settings)
    steps = ("_step_000000", "_step_000002", "_step_000004")
    assert saved == [f"epoch_0000{step}" for step in (*steps, "")] + [f"epoch_0001{step}" for step in steps]
    launch(settings, resume=tmp_path / "stopped")
    assert "4 updates of epoch 2" in (tmp_path / "stopped" / "log.txt").read_text()
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
