"""A run of many images, from drawing them to the result: seconds a stage, memory of every process, disk, and a resume.

    python benchmarks/large.py --images 20000 --output benchmarks/results/large_20000.json
    python benchmarks/large.py --images 200000 --output benchmarks/results/large_200000.json

The run has two workers and two labellers that label block by block, three epochs of the small network at 96x48, and
twelve pictures a person. After its second epoch it is interrupted, as by Ctrl-C, and goes on with --resume. Memory is
looked at twice a second: the most that a process had of its own, and the most with what it shares (libraries, Ray's
object store). Seconds of stages are those that the run says, of all epochs. A checkpoint takes as long as its folder
is being written, which is looked at ten times a second.

Everything is written below --place (default a temporary folder).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

from measure import machine

ROOT = Path(__file__).resolve().parents[1]
IMAGES_A_PERSON = 12.25  # 2 to 5 cameras, 2 to 5 pictures in each
LOOK_SECONDS = 0.1
MEMORY_SECONDS = 0.5
EPOCHS = 3
_STAGE = re.compile(r"(draw|pack|calibrate|extract|label|judge|train|evaluate)\s.* in ([\d:]+(?:\.\d+)?)( s)?\b")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="to train on, about")
    parser.add_argument("--place", type=Path, help="folder for data and runs; kept, and its data used again")
    parser.add_argument("--output", type=Path, help="where the JSON is kept")
    parser.add_argument("words", nargs="*", metavar="section.name=value")
    options = parser.parse_args()
    if options.output is not None and not options.output.parent.is_dir():
        parser.error(f"there is no folder {options.output.parent}")
    here = machine(threads=1)
    with tempfile.TemporaryDirectory() as temporary:
        place = (options.place or Path(temporary)).resolve()
        found = measured(place, options.images, options.words)
    document = {
        "benchmark": "large",
        "command": " ".join(["python benchmarks/large.py", *sys.argv[1:]]),
        "machine": here,
        **found,
    }
    text = json.dumps(document, indent=1)
    if options.output:
        options.output.write_text(text + "\n")
    print(table(found))


def measured(place: Path, images: int, words: list[str]) -> dict[str, Any]:
    """The run, interrupted before its last epoch and taken up again."""
    place.mkdir(parents=True, exist_ok=True)
    run = next(run for number in count() if not (run := place / f"run-{number}").exists())
    told: list[tuple[float, str]] = []
    memory, checkpoints = Memory(), Checkpoints(run / "checkpoints")
    settings = [
        *(
            "data.dataset=drawn",
            f"data.root={place}/drawn",
            f"data.drawn.train_persons={round(images / IMAGES_A_PERSON)}",
        ),
        *("run.workers=2", "run.labellers=2", "run.labelling=blocks", "run.labeller_threads=1", "run.threads=1"),
        *(f"train.epochs={EPOCHS}", f"run.dir={run}", *words),
    ]
    began = time.perf_counter()
    train(settings, told, memory, checkpoints, until=run / "checkpoints" / f"epoch_{EPOCHS - 2:04}")
    interrupted = time.perf_counter()
    first = len(told)
    train(["--resume", str(run)], told, memory, checkpoints)
    ended = time.perf_counter()
    goes_on = next(when for when, line in told[first:] if f"epoch {EPOCHS}/{EPOCHS}" in line)
    checkpoint = max((run / "checkpoints").iterdir())
    result = json.loads((run / "result.json").read_text())
    return {
        "images": trained_images(told),
        "stages": stages(line for _, line in told),
        "memory_mb": memory.by_role(),
        "disk_mb": {
            "drawn": size_mb(place / "drawn"),
            "packed": size_mb(place / "drawn-packed"),
            "run folder": size_mb(run),
            "a checkpoint": size_mb(checkpoint),
            "pictures and lists of the page": size_mb(run / "report"),
        },
        "seconds": {
            "a checkpoint": checkpoints.longest(),
            "to the interruption": round(interrupted - began, 1),
            "from --resume to the next epoch": round(goes_on - interrupted, 1),
            "from --resume to the end": round(ended - interrupted, 1),
        },
        "lines_on_the_console": len(told),
        "clusters": result["clusters"],
        "mAP": result["after"]["mAP"],
    }


def train(
    words: list[str],
    told: list[tuple[float, str]],
    memory: Memory,
    checkpoints: Checkpoints,
    *,
    until: Path | None = None,
) -> None:
    """A run, until it ends or, where `until` is given, until that is there: then it is interrupted."""
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout is not None

        def watch() -> None:
            looked = 0.0
            while child.poll() is None:
                checkpoints.look()
                if time.perf_counter() - looked > MEMORY_SECONDS:
                    looked = time.perf_counter()
                    memory.look(child.pid)
                if until is not None and until.exists():
                    checkpoints.look()
                    child.send_signal(signal.SIGINT)
                    return
                time.sleep(LOOK_SECONDS)

        watcher = threading.Thread(target=watch)
        watcher.start()
        for line in child.stdout:
            told.append((time.perf_counter(), line.rstrip()))
            print(line, end="", file=sys.stderr, flush=True)
        watcher.join()
    if child.returncode and (until is None or not until.exists()):
        raise SystemExit("the run failed: its last lines are above")


class Checkpoints:
    """How long checkpoints take to be written: under another name, and renamed when they are whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun: dict[str, float] = {}
        self._took: dict[str, float] = {}

    def look(self) -> None:
        """Note what is being written now, and what has been."""
        now = time.perf_counter()
        for path in self._folder.glob("*epoch_*"):
            if path.name.startswith("."):
                self._begun.setdefault(path.name.split(".")[1], now)
            elif path.name in self._begun:
                self._took.setdefault(path.name, round(now - self._begun[path.name], 1))

    def longest(self) -> float | None:
        """Seconds; None where none was seen."""
        return max(self._took.values(), default=None)


class Memory:
    """The most that processes had, by what they are."""

    def __init__(self) -> None:
        self._own: dict[tuple[str, int], float] = {}
        self._all: dict[tuple[str, int], float] = {}

    def look(self, driver: int) -> None:
        """Note what the driver and everything that descends from it has now."""
        tables = {int(entry.name): entry for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        parents, status = {}, {}
        for pid, entry in tables.items():
            try:
                text = (entry / "status").read_text()
                fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
                parents[pid], status[pid] = int(fields["PPid"]), fields
            except (OSError, KeyError, ValueError):
                continue  # it has ended
        for pid in status:
            above, root = pid, False
            while above > 1 and not root:
                root, above = above == driver, parents.get(above, 0)
            if root and "VmRSS" in status[pid]:
                key = role(tables[pid], pid, driver), pid
                self._own[key] = max(self._own.get(key, 0.0), megabytes(status[pid], "RssAnon"))
                self._all[key] = max(self._all.get(key, 0.0), megabytes(status[pid], "VmRSS"))

    def by_role(self) -> dict[str, dict[str, float]]:
        """Processes of a role, and the most that one of them had of its own and with what is shared."""
        found: dict[str, dict[str, float]] = {}
        for (name, pid), own in self._own.items():
            row = found.setdefault(name, {"processes": 0, "own": 0.0, "with shared": 0.0})
            row["processes"] += 1  # of both parts of the run; one that takes another title counts under both
            row["own"] = round(max(row["own"], own), 1)
            row["with shared"] = round(max(row["with shared"], self._all[name, pid]), 1)
        return dict(sorted(found.items(), key=lambda item: -item[1]["own"]))


def role(entry: Path, pid: int, driver: int) -> str:
    """What a process is, by its command line."""
    if pid == driver:
        return "driver"
    try:
        words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "ended"
    line = " ".join(words).strip()
    if line.startswith("ray::"):
        return line[len("ray::") :].split("(")[0].split(".")[0].strip() or "ray"
    for name in ("gcs_server", "raylet", "dashboard", "agent", "monitor", "log_monitor"):
        if name in line:
            return f"Ray's {name}"
    if "reidray.launch.kernels" in line:
        return "compiles kernels"
    return "draws and packs" if "spawn_main" in line or "multiprocessing" in line else Path(words[0]).name or "ended"


def megabytes(fields: dict[str, str], name: str) -> float:
    """A size of /proc's status, which has it in 1,024 bytes, in 10^6 bytes."""
    return float(fields.get(name, "0 kB").split()[0]) * 1024 / 1e6


def stages(lines: Any) -> dict[str, float]:
    """Seconds of each stage, all of its appearances together."""
    found: dict[str, float] = {}
    for line in lines:
        if (match := _STAGE.search(line)) is not None:
            name, text = match[1], match[2]
            seconds = 0.0
            for part in text.split(":"):
                seconds = 60 * seconds + float(part)
            found[name] = round(found.get(name, 0.0) + seconds, 1)
    return found


def trained_images(told: list[tuple[float, str]]) -> int:
    """From what the run says of its data."""
    (line,) = {line for _, line in told if "packed images: train" in line and "query" in line}
    return int(line.split("packed images: train ")[1].split(", query")[0].replace(",", ""))


def size_mb(place: Path) -> float:
    """Of what all files below a folder hold, 10^6 bytes; a small file takes more of a disk."""
    return round(sum(os.lstat(path).st_size for path in place.rglob("*") if path.is_file()) / 1e6, 1)


def table(found: dict[str, Any]) -> str:
    """What came out, for a person."""
    lines = [f"{found['images']:,} images, {found['clusters']:,} clusters, mAP {found['mAP']:.1f}", ""]
    lines += ["| stage | seconds | ms an image |", "|---|---|---|"]
    lines += [
        f"| {name} | {seconds:,.1f} | {1e3 * seconds / found['images']:.2f} |"
        for name, seconds in found["stages"].items()
    ]
    lines += ["", "| process | how many | own MB | with shared MB |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {row['processes']} | {row['own']:,.0f} | {row['with shared']:,.0f} |"
        for name, row in found["memory_mb"].items()
    ]
    lines += ["", f"disk, MB: {found['disk_mb']}", f"seconds: {found['seconds']}"]
    return "\n".join([*lines, f"lines on the console: {found['lines_on_the_console']}"])


if __name__ == "__main__":
    main()
