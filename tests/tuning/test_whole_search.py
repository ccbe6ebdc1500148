"""A whole search on Ray: the job is interrupted, and goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import TINY

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.filterwarnings("default")


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
