"""A run that loses a machine goes on with the workers that are left, and takes the machine that comes in its place."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from reidray.bank import read_snapshot
from reidray.storage.checkpoints import load_checkpoint
from tests.chaos import Run, cluster, processes
from tests.whole.runs import assert_close_losses

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("default")]

LENGTH: dict[str, Any] = {"epochs": 2, "steps": 50, "keep_checkpoints": 20}


def test_two_workers_then_one_then_two_have_the_losses_and_labels_of_two(tmp_path: Path) -> None:
    """Within 1e-4 over 50 updates, and the same labels after them."""
    with cluster(nodes=2) as nodes:
        steady = Run(tmp_path / "steady", tmp_path / "drawn", nodes.address, **LENGTH)
        steady.finish()
        run = Run(tmp_path / "elastic", tmp_path / "drawn", nodes.address, **LENGTH, min_workers=1, resize_seconds=1.0)
        _until(run, lambda: "epoch_0000_step_000010" in run.seen)
        nodes.lose(random.Random(0))
        _until(run, lambda: "started the workers again, 1 this time" in run.log())
        _until(run, lambda: "epoch_0000_step_000030" in run.seen)
        [alone] = processes("RayTrainWorker")
        os.kill(alone, signal.SIGSTOP)  # or it would be through before the machine is there
        nodes.join()
        os.kill(alone, signal.SIGCONT)
        run.finish()
    assert "started the workers again, 2 this time" in run.log()
    assert_close_losses(steady.folder, run.folder)
    for epoch in range(LENGTH["epochs"]):
        one, other = (_labels(each.folder / "checkpoints" / f"epoch_{epoch:04d}") for each in (steady, run))
        assert one == other


def _until(run: Run, true: Any) -> None:
    while not true():
        assert run.step(), f"the run is over: {run.log()}"


def _labels(checkpoint: Path) -> bytes:
    tables = read_snapshot(load_checkpoint(checkpoint).bank)
    found = [rows.tobytes() for key, rows in sorted(tables.items()) if key.startswith("train/labels/")]
    assert found
    return b"".join(found)
