"""Kernels are compiled beside the beginning of a run, so that its stages need not wait for them.

Where the kernels of a method are not kept yet, a child process goes through a tiny training with it while data are
drawn and Ray starts. What it compiles lies in the folder of kernels (`reidray.compiled`) when the run asks for it; what
it has not come to, the run compiles itself. The child leaves a file in that folder for each method that is done.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reidray import compiled
from reidray.config import Settings
from reidray.events import message
from reidray.launch.data_sets import Report

_NICE = 5  # data are drawn and Ray is started first
_DATA = {"dataset": "drawn", "drawn": {"train_persons": 12, "validation_persons": 4, "test_persons": 4}}
_STAGES = {"first_epochs": 1, "first_full_rate": 1, "stage_epochs": 1, "merge_share": 0.4, "embedding": 32}


@contextmanager
def compiled_beside(settings: Settings, report: Report) -> Iterator[None]:
    """While this is open, a child compiles the kernels of the run's method, unless they are kept already or cannot be.

    A child that fails harms nothing: the run compiles what is missing. Its last line goes to the log.
    """
    done = _done(settings)
    if done is None or done.exists():
        yield
        return
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        child = subprocess.Popen(
            [sys.executable, "-m", "reidray.launch.kernels"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            text=True,
            start_new_session=True,  # Ctrl-C is for the run
        )
        assert child.stdin is not None
        with child.stdin as stream:
            stream.write(tiny(settings, Path(place)).model_dump_json())
        try:
            yield
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # with those that draw for it
            elif child.returncode != 0:
                said.seek(0)
                lines = said.read().strip().splitlines() or [f"status {child.returncode}"]
                report(message(f"kernels were not compiled beforehand: {lines[-1]}", detail=True))
            child.wait()


def tiny(settings: Settings, place: Path) -> Settings:
    """A training of seconds that calls the kernels which a run with these settings calls."""
    tree: dict[str, Any] = settings.model_dump(mode="json")
    changes: Mapping[str, Mapping[str, Any]] = {
        "data": {**_DATA, "root": str(place / "drawn"), "packed": str(place / "packed")},
        "model": {"bn_group_size": 16},
        "method": {
            **tree["method"],
            **{"labels": "dbscan", "clusters_per_batch": 4, "images_per_cluster": 4, "k1": 8, "k2": 3, "eps": 0.5},
        },
        "train": {"epochs": 1, "steps": 1},
        "run": {
            **{"workers": 0, "report": False, "device": "cpu", "threads": 1, "dir": str(place / "run")},
            "labelling": "blocks" if settings.labels_by_blocks else "whole",
        },
        "evaluate": {"ranked_lists": 0},
    }
    name, own = settings.method.name, settings.own
    sections = {} if own is None else {name: {**tree[name], **(_STAGES if own.has_stages else {})}}
    return Settings.model_validate({**changes, **sections})


def _done(settings: Settings) -> Path | None:
    folder = compiled.folder()
    by_blocks = "-by-blocks" if settings.labels_by_blocks else ""
    return None if folder is None else folder / f"{settings.method.name}{by_blocks}.done"


def main() -> None:
    """What the child does: settings come by standard input."""
    from reidray.launch.launch import launch

    os.nice(_NICE)
    settings = Settings.model_validate_json(sys.stdin.read())
    done = _done(settings)
    launch(settings)
    if done is not None:
        done.touch()


if __name__ == "__main__":
    main()
