"""Which figure that needs no truth falls when mAP falls? Every epoch of the runs of benchmarks/grid.py is a point.

    python benchmarks/criteria_of_epochs.py grid.jsonl [--data cuhk01]

A network is judged by the labels that it gave in the beginning of the next epoch, and by the mAP that was measured
between the two. So a run of E epochs has E - 1 points; the start weights are left out.

Runs that were measured on validation and on test persons have tables of their own. In them:

- rho: Spearman's, over all points; its middle 95 % over runs drawn anew, with replacement, since the epochs of a run
  resemble each other.
- within: the mean over runs of rho over the epochs of one run, and in how many runs it is above 0.
- choice: mAP of the epoch with the highest criterion minus that of the last judged epoch, and that of the best one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from reidray.evaluation.criteria import rank_correlation

CRITERIA = ("camera_cycle", "camera_mixing", "assigned", "silhouette", "stability")
RESAMPLES = 2000

Points = list[tuple[float, float]]  # of a run: criterion and mAP of each epoch


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, nargs="+", help="what benchmarks/grid.py wrote")
    parser.add_argument("--data", nargs="+", help="data sets; default all")
    options = parser.parse_args()
    runs = [json.loads(line) for file in options.grid for line in file.read_text().splitlines()]
    unlabelled = [run for run in runs if run["method"] != "true_labels"]
    for data, split in sorted({(run["data"], run["split"]) for run in unlabelled}):
        own = [run for run in unlabelled if (run["data"], run["split"]) == (data, split)]
        if not options.data or data in options.data:
            print(table(f"{data}, {split} persons", own))


def points(run: dict[str, Any], criterion: str) -> Points:
    """Of one run."""
    figures = {epoch["epoch"]: epoch.get(criterion) for epoch in run["epochs"]}
    found = [(figures.get(epoch + 1), mAP) for epoch, mAP in dict(run["curve"]).items() if epoch >= 0]
    return [(value, mAP) for value, mAP in found if value is not None]


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
