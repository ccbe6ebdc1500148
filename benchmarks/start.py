"""How long a run takes from its command to its first update, stage by stage: the first time on a machine, and again.

    python benchmarks/start.py [--workers 2] [--alone] [--output FILE] [section.name=value ...]

The first run has an empty folder for compiled kernels and draws its data; the second has both. Each is a process of its
own that ends after its first update. Seconds count from the start of the process; what a stage took is the difference
to the row above. Other processes on the machine disturb all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from measure import Row, Timing, report

ROOT = Path(__file__).resolve().parents[1]
STAGES = (  # what the run says when a stage is over
    "imported",
    "data are ready",
    "Ray is there",
    "actors are there",
    "workers have begun",
    "evaluated",
    "extracted",
    "labelled",
    "first update",
)


def main() -> None:
    """The command."""
    if sys.argv[1:2] == ["one"]:
        one(float(sys.argv[2]), sys.argv[4:], alone=sys.argv[3] == "alone")
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="2", help="0: without Ray")
    parser.add_argument("--alone", action="store_true", help="without the child that compiles kernels beforehand")
    parser.add_argument("--output", type=Path, help="where the JSON is kept")
    parser.add_argument("words", nargs="*", metavar="section.name=value")
    options = parser.parse_args()
    words = [f"run.workers={options.workers}", "run.report=false", *options.words]
    with tempfile.TemporaryDirectory() as place:
        found = [started(Path(place), [*words, f"run.dir={place}/run{turn}"], alone=options.alone) for turn in range(2)]
    if options.output is not None:
        report("start", rows(found), threads=1, output=options.output)
    print(table(found))


def rows(runs: list[dict[str, float]]) -> list[Row]:
    """The first updates, and the stages before them."""
    bars = {"nothing kept": 75, "kernels and data kept": 35}
    size = "the default job, 2 workers on 2 cores"
    return [
        Row(
            what=f"from the command to the first update, {kept}",
            size=size,
            bar=f"<= {bar} s",
            ours=Timing(run[STAGES[-1]], float("nan"), run[STAGES[-1]]),
            reached=run[STAGES[-1]] <= bar,
            notes={f"{stage}, s": round(run[stage], 1) for stage in STAGES if stage in run},
        )
        for run, (kept, bar) in zip(runs, bars.items(), strict=True)
    ]


def started(place: Path, words: list[str], *, alone: bool) -> dict[str, float]:
    """Seconds from the start of a process to the end of each stage."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(place / "kernels"), "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        "one",
        str(time.time()),
        "alone" if alone else "attended",
        *words,
    ]
    finished = subprocess.run(command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    lines = [line for line in finished.stdout.splitlines() if line.startswith("{")]
    found: dict[str, float] = json.loads(lines[-1])
    return found


def one(begin: float, words: list[str], *, alone: bool) -> None:
    """A run that ends after its first update; prints when its stages were over."""
    from reidray.launch.launch import launch
    from reidray.report.console import Console
    from reidray.settings_io import from_words, settings_from

    found: dict[str, float] = {"imported": time.time() - begin}
    handle = Console.handle

    def handled(console: Console, event: Mapping[str, Any]) -> None:
        handle(console, event)
        name = stage_of(event)
        if name is not None:
            found.setdefault(name, round(time.time() - begin, 2))
        if name == STAGES[-1]:
            print(json.dumps(found), flush=True)
            os._exit(0)  # Ray's processes end with their driver

    with patch.object(Console, "handle", handled):
        launch(settings_from([*from_words(words)]), attended=not alone)


def stage_of(event: Mapping[str, Any]) -> str | None:
    """The stage that is over when this is said."""
    kind, text = event["kind"], event.get("text", "")
    if kind == "message":
        if text == "starting Ray":
            return "data are ready"
        if text.startswith("to train: "):
            return "Ray is there"
        return "actors are there" if text == "starting the workers" else None
    if kind in ("started", "resumed"):
        return "workers have begun"
    if kind == "evaluation":
        return "evaluated"
    if kind == "labels":
        return "labelled"
    if kind == "stage" and event["stage"] == "extract" and event["done"] == event["total"]:
        return "extracted"
    return "first update" if kind == "stage" and event["stage"] == "train" and event["done"] else None


def table(runs: list[dict[str, float]]) -> str:
    """Markdown: a row a stage, and in brackets what it took."""
    lines = ["| stage is over | first time, s | second time, s |", "|---|---|---|"]
    before = [0.0] * len(runs)
    for stage in STAGES:
        if any(stage not in run for run in runs):
            continue
        cells = [f"{run[stage]:.1f} ({run[stage] - then:.1f})" for run, then in zip(runs, before, strict=True)]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
        before = [run[stage] for run in runs]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
