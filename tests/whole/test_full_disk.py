"""A disk that is full when the last checkpoint is written takes that checkpoint, and nothing of what was found."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reidray.launch.launch import launch
from tests.shell_lines import ROOT


@contextmanager
def limit_restored() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("before", [True, False])
def test_the_figures_are_filed_and_the_sentence_says_so(
    before: bool, tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    """A real limit on the size of files, from the last evaluation (or the last epoch) on: tensors no longer fit."""
    settings = tiny_settings("one", method={"name": "cluster_contrast"}, train={"epochs": 1, "steps": 1})
    evaluations = []

    def watch(event: Mapping[str, Any]) -> None:
        if event["kind"] == "evaluation":
            evaluations.append(event)
        if event["kind"] == ("evaluation" if before else "epoch") and event.get("when", "after") == "after":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, resource.RLIM_INFINITY))

    with limit_restored(), pytest.raises(OSError, match="could not write checkpoint") as caught:
        launch(settings, watch=watch)
    said = str(caught.value)
    assert ("the one before it is untouched" if before else "there is none before it") in said
    assert f"all figures of the run are in {tmp_path / 'one'}/result.json" in said
    result = json.loads((tmp_path / "one" / "result.json").read_text())
    assert result["after"]["mAP"] == pytest.approx(evaluations[-1]["mAP"])
    assert result["clusters"] > 1
    assert bool(list((tmp_path / "one" / "checkpoints").glob("epoch_*"))) == before


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only a superuser can mount a small disk")
def test_on_a_small_disk_that_is_really_full_the_run_ends_in_a_sentence(
    tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    settings = tiny_settings("one", method={"name": "cluster_contrast"}, train={"epochs": 1, "steps": 1})
    launch(settings)  # draws and packs
    place = tmp_path / "disk"
    place.mkdir()
    words = ["--workers", "0", f"data.root={settings.data.root}", "data.dataset=drawn", f"run.dir={place / 'run'}"]
    (tmp_path / "settings.yaml").write_text((tmp_path / "one" / "settings.yaml").read_text())
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=7m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        done = subprocess.run(
            [sys.executable, str(ROOT / "jobs" / "train.py"), "--config", str(tmp_path / "settings.yaml"), *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=300,
        )
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert "no space left" in last.lower()
        if not (place / "run" / "result.json").is_file():  # then the figures were said
            assert '"mAP"' in done.stderr
    finally:
        subprocess.run(["umount", str(place)], check=True)
