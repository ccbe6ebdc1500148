"""Which figure that needs no truth falls when mAP falls? Every epoch of the runs of benchmarks/grid.py is a point.

    python benchmarks/criteria_of_epochs.py grid.jsonl
    python benchmarks/criteria_of_epochs.py --runs DIR

A network is judged by the labels that it gave in the beginning of the next epoch, and by the mAP that was measured
between the two. So a run of E epochs has E - 1 points; the start weights are left out.

With --runs it takes the run folders that the grid kept (--keep DIR), and computes `camera_cycle` from the checkpoints
of all epochs, so that runs without method.camera_centring have it, too, and the last network. Runs with true labels are
left out.

Runs that were measured on validation and on test persons have tables of their own. In them:

- rho: Spearman's, over all points; its middle 95 % over runs drawn anew, with replacement, since the epochs of a run
  resemble each other.
- within: the mean over runs of rho over the epochs of one run, and in how many runs it is above 0.
- choice: mAP of the epoch with the highest criterion minus that of the last judged epoch, and that of the best one.

With --advice it prints the runs in which the caution of `reidray.training.advice` speaks, or would speak if it spoke
where weights are averaged, and those that ended more than half a point below their best epoch without it; of both those
alone that know `camera_cycle`.

With --trials it compares the trials of a method instead, as a search does: a criterion of the last labels against the
mAP of the end, where a method has at least five trials with one seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from reidray.config import Settings
from reidray.evaluation.criteria import CYCLE_NEIGHBOURS, camera_cycle, rank_correlation
from reidray.labelling import centred
from reidray.launch.inference import extracted, load_model
from reidray.launch.prepare import packed_place
from reidray.methods import make_method
from reidray.neighbours import nearest
from reidray.settings_io import from_file, from_words, settings_from
from reidray.storage.runfolder import RunFolder
from reidray.threads import set_threads
from reidray.training.advice import advice
from reidray.training.context import open_split

CRITERIA = ("camera_cycle", "camera_mixing", "assigned", "silhouette", "stability")
ROOT = Path(__file__).resolve().parents[1]
RESAMPLES = 2000
IMAGES = 2000  # of a training split, about: what the caution takes for chance depends on it
LEAST_TRIALS = 5
SILENT = 0.5  # points of mAP

Points = list[tuple[float, float]]  # of a run: criterion and mAP of each epoch


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, nargs="*", help="what benchmarks/grid.py wrote")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of run folders that it kept")
    parser.add_argument("--advice", action="store_true", help="print when a run would have warned instead")
    parser.add_argument("--trials", action="store_true", help="compare the trials of each method instead")
    options = parser.parse_args()
    set_threads(1)
    runs = [json.loads(line) for file in options.grid for line in file.read_text().splitlines()]
    folders = [folder.parent for place in options.runs for folder in sorted(place.glob("*/result.json"))]
    folders = [folder for folder in folders if RunFolder.open(folder).settings().method.labels != "ground_truth"]
    runs = [run for run in runs if run["method"] != "true_labels"] + [kept(folder) for folder in folders]
    if options.trials:
        print(trials(runs))
        return
    if options.advice:
        print(cautions(runs))
        return
    for data, split in sorted({(run["data"], run["split"]) for run in runs}):
        own = [run for run in runs if (run["data"], run["split"]) == (data, split)]
        print(table(f"{data}, {split} persons", own))


def kept(place: Path) -> dict[str, Any]:
    """A run folder with the checkpoints of all epochs, as a line of the grid. The cycles are kept beside them."""
    folder = RunFolder.open(place)
    settings = folder.settings()
    found = place / "camera_cycles.json"
    if not found.exists():
        epochs = {int(checkpoint.name[6:]): checkpoint for checkpoint in folder.checkpoints.glob("epoch_????")}
        found.write_text(json.dumps({epoch: cycles(checkpoint) for epoch, checkpoint in sorted(epochs.items())}))
        print(f"{place.name}: {len(epochs)} networks judged", file=sys.stderr)
    figures = {line["epoch"]: line for line in folder.epochs()}
    for epoch, value in json.loads(found.read_text()).items():
        figures.setdefault(int(epoch) + 1, {"epoch": int(epoch) + 1})["camera_cycle"] = value
    return {
        "data": Path(settings.data.root or "drawn").name,
        "split": settings.evaluate.split,
        "method": settings.method.name,
        "epochs": list(figures.values()),
        "curve": [[line["epoch"], line["mAP"]] for line in folder.evaluations() if line["epoch"] is not None],
    }


def cycles(checkpoint: Path) -> float | None:
    """`camera_cycle` of the network of a checkpoint, by its global feature of the training images."""
    model, settings = load_model(checkpoint)
    samples, method = open_split(settings, packed_place(settings), "train"), make_method(settings)
    shards = extracted(model, settings, samples, method.to_label, lambda _: None)
    features_N1D = np.concatenate([shard.arrays[method.features[0]][:, :1] for shard in shards])
    cameras_N = samples.source.cameras_N
    centred_ND = centred(features_N1D, cameras_N, at_once=settings.run.search_block)[:, 0]
    return camera_cycle(nearest(centred_ND, CYCLE_NEIGHBOURS)[0], cameras_N)


def points(run: dict[str, Any], criterion: str) -> Points:
    """Of one run."""
    figures = {epoch["epoch"]: epoch.get(criterion) for epoch in run["epochs"]}
    found = [(figures.get(epoch + 1), mAP) for epoch, mAP in dict(run["curve"]).items() if epoch >= 0]
    return [(value, mAP) for value, mAP in found if value is not None]


def cautions(runs: list[dict[str, Any]]) -> str:
    """Markdown: a row a run that warned, or should have."""
    lines = [
        "| data | method | trial | persons | seed | averaging | warns after epochs | mAP after each | lost |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    known = [run for run in runs if sum("camera_cycle" in epoch for epoch in run["epochs"]) > 1]
    warned = 0
    for run in known:
        epochs = run["epochs"]
        when = [epoch["epoch"] for place, epoch in enumerate(epochs) if advice(Settings(), epochs[: place + 1], IMAGES)]
        curve = [mAP for epoch, mAP in sorted(dict(run["curve"]).items()) if epoch >= 0]
        lost = max(curve) - run["mAP"]
        warned += bool(when)
        if when or lost > SILENT:
            cells = [
                run["data"],
                run["method"],
                run["trial"],
                run["split"],
                run["seed"],
                f"{averaging(run):g}",
                ", ".join(map(str, when)) or "-",
            ]
            cells += [", ".join(f"{mAP:.1f}" for mAP in curve), f"{lost:.1f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", f"{warned} of {len(known)} runs warn"])


def trials(runs: list[dict[str, Any]]) -> str:
    """Markdown: a row a method; of each criterion rho over its trials, and the mAP of the one that it chooses."""
    lines = [
        f"| method | mAP of the trials: lowest, median, highest | {' | '.join(CRITERIA)} |",
        "|---|---|" + "---|" * len(CRITERIA),
    ]
    for data, split, method, seed in sorted({(run["data"], run["split"], run["method"], run["seed"]) for run in runs}):
        of_trial: dict[int, dict[str, Any]] = {}  # the first of each: what comes later has other settings beside
        for run in runs:
            if (run["data"], run["split"], run["method"], run["seed"]) == (data, split, method, seed):
                of_trial.setdefault(run["trial"], run)
        if len(of_trial) < LEAST_TRIALS:
            continue
        mAP = [run["mAP"] for run in of_trial.values()]
        cells = [f"{data}, {method}, {split} persons", f"{min(mAP):.1f}, {np.median(mAP):.1f}, {max(mAP):.1f}"]
        for criterion in CRITERIA:
            values = [run["epochs"][-1].get(criterion) for run in of_trial.values()]
            rho = None if None in values else rank_correlation(np.array(values), np.array(mAP))
            cells.append("" if rho is None else f"{rho:+.2f}, {mAP[int(np.argmax(values))]:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def averaging(run: dict[str, Any]) -> float:
    """train.ema of a run."""
    words = [word for word in run["words"] if not word.startswith("@")]
    files = [from_file(ROOT / word[1:]) for word in run["words"] if word.startswith("@")]
    return settings_from([*files, *from_words(["data.root=crops", *words])]).train.ema


def table(data: str, runs: list[dict[str, Any]]) -> str:
    """Markdown: a row a criterion."""
    lines = [
        f"| {data} | points | runs | rho | 95 % | within | above 0 | choice - last | choice - best |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for criterion in CRITERIA:
        of_runs = [found for run in runs if len(found := points(run, criterion)) >= 3]
        if not of_runs:
            continue
        everything = np.array([point for found in of_runs for point in found])
        rho = rank_correlation(*everything.T)
        if rho is None:  # equal everywhere
            continue
        low, high = interval(of_runs, np.random.default_rng(0))
        each = [rank_correlation(*np.array(found).T) for found in of_runs]
        within = [one for one in each if one is not None]
        chosen = [max(reversed(found), key=lambda point: point[0])[1] for found in of_runs]  # the last of equals
        last = np.mean([mAP - found[-1][1] for mAP, found in zip(chosen, of_runs, strict=True)])
        best = np.mean([mAP - max(point[1] for point in found) for mAP, found in zip(chosen, of_runs, strict=True)])
        lines.append(
            f"| {criterion} | {len(everything)} | {len(of_runs)} | {rho:+.2f} | {low:+.2f} to {high:+.2f} | "
            f"{np.mean(within):+.2f} | {sum(one > 0 for one in within)} of {len(within)} | {last:+.1f} | {best:+.1f} |"
        )
    return "\n".join(lines) + "\n"


def interval(of_runs: list[Points], generator: np.random.Generator) -> tuple[float, float]:
    """The middle 95 % of rho over all points, of runs drawn anew."""
    found = []
    for _ in range(RESAMPLES):
        drawn = [of_runs[run] for run in generator.integers(0, len(of_runs), len(of_runs))]
        rho = rank_correlation(*np.array([point for one in drawn for point in one]).T)
        found += [] if rho is None else [rho]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
