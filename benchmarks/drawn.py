"""Train variants on drawn pedestrians, several data seeds each, and print the table of their figures.

    python benchmarks/drawn.py --output results.json --data-seeds 11 12 13 --variant scwm= \
        --variant cluster_contrast=@configs/cluster_contrast_drawn.yaml \
        --variant supervised=method.labels=ground_truth

A variant is NAME=SETTINGS, where SETTINGS are section.name=value words separated by spaces, and @FILE a config. Runs
are whole `jobs/train.py --workers 0` processes of one thread, `--parallel` of them at a time; a run that is already in
the output is not repeated. With `--plot FILE.png` and `--set evaluate.every=N` the mAP by epoch is drawn: lines for the
means over the seeds, bands from the lowest to the highest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ("mAP", "rank1")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", action="append", required=True, metavar="NAME=SETTINGS")
    parser.add_argument("--data-seeds", type=int, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, one a run; appended to")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], metavar="section.name=value", help="settings of every run")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw mAP by epoch")
    options = parser.parse_args()
    variants = dict(variant.split("=", 1) for variant in options.variant)
    done = _read(options.output)
    wanted = [(name, seed) for seed in options.data_seeds for name in variants if (name, seed) not in done]
    with ThreadPoolExecutor(options.parallel) as pool:
        for run in pool.map(lambda job: run_once(job[0], variants[job[0]].split(), job[1], options.set), wanted):
            with options.output.open("a") as stream:
                stream.write(json.dumps(run) + "\n")
            print(f"{run['variant']} data.seed={run['data_seed']}: mAP {run['after']['mAP']:.1f}", file=sys.stderr)
    runs = _read(options.output)
    chosen = {name: [runs[name, seed] for seed in options.data_seeds] for name in variants}
    print(_table(chosen))
    if options.plot:
        _plot(options.plot, chosen)


def run_once(name: str, words: list[str], seed: int, common: list[str]) -> dict[str, Any]:
    """One training run in a process of one thread; its result.json."""
    config = [word for pair in words if pair.startswith("@") for word in ("--config", str(ROOT / pair[1:]))]
    settings = [word for word in words if not word.startswith("@")]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        fixed = [f"data.seed={seed}", f"run.dir={place}", "evaluate.ranked_lists=0"]
        command = [sys.executable, str(ROOT / "jobs" / "train.py"), "--workers", "0", *config]
        finished = subprocess.run(
            [*command, *common, *settings, *fixed], env={**os.environ, **threads}, capture_output=True, text=True
        )
        if finished.returncode:
            raise SystemExit(f"{name} with data.seed={seed} failed: {finished.stderr.strip()}")
        result = json.loads((place / "result.json").read_text())
        evaluations = [json.loads(line) for line in (place / "evaluations.jsonl").read_text().splitlines()]
    curve = [[0 if line["epoch"] is None else line["epoch"] + 1, line["mAP"]] for line in evaluations]
    return {"variant": name, "settings": words, "curve": curve, **result}


def _read(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    runs = [json.loads(line) for line in lines]
    return {(run["variant"], run["data_seed"]): run for run in runs}


def _table(variants: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: means over the seeds, the spread of mAP (sample standard deviation), masks and time."""
    rows = [
        "| variant | seeds | mAP before | mAP after | spread | rank-1 after | gain | mIoU | stripes | training s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in variants.items():
        before, after = [run["before"]["mAP"] for run in runs], [run["after"]["mAP"] for run in runs]
        spread = f"{stdev(after):.1f}" if len(runs) > 1 else "-"
        rank1 = mean(run["after"]["rank1"] for run in runs)
        masks = [
            f"{mean(run[key] for run in runs):.1f}" if runs[0][key] is not None else "-"
            for key in ("parsing_mIoU", "stripes_mIoU")
        ]
        seconds = mean(sum(run["seconds"][stage] for stage in ("extract", "label", "train")) for run in runs)
        rows.append(
            f"| {name} | {len(runs)} | {mean(before):.1f} | {mean(after):.1f} | {spread} | {rank1:.1f} | "
            f"{mean(after) - mean(before):+.1f} | {masks[0]} | {masks[1]} | {seconds:.0f} |"
        )
    return "\n".join(rows)


def _plot(path: Path, variants: dict[str, list[dict[str, Any]]]) -> None:
    matplotlib.use("Agg")
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for (name, runs), style in zip(variants.items(), ("-", "--", ":", "-."), strict=False):
        epochs = [epoch for epoch, _ in runs[0]["curve"]]
        values = np.array([[mAP for _, mAP in run["curve"]] for run in runs])
        (line,) = axes.plot(epochs, values.mean(0), style, marker="o", markersize=4, label=name)
        axes.fill_between(epochs, values.min(0), values.max(0), color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(xlabel="epochs", ylabel="mAP on the test split (percent)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
