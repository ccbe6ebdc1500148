"""How far criteria without labels agree with mAP: random trials, every criterion, and mAP of both splits.

    python benchmarks/criteria.py --folder runs/criteria [--search configs/search_scwm.yaml] [--trials 20]

Trials are drawn as the search file says and all run to their end (no early stopping). Their mAP on the validation split
is what a criterion is judged by; the test split is measured afterwards from the trials' last checkpoints, for the table
alone: nothing is chosen by it. For each criterion: Spearman's rho over the trials with its bootstrap interval (95 %,
2000 resamples), and the mAP of the trial that the criterion would have chosen. Run again, it goes on where it was.

    python benchmarks/criteria.py --cost

times the criteria beside the labelling that they come with, at 12,936 images and one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from features import draw
from measure import in_turn, set_threads

from reidray.evaluation.criteria import (
    assigned_share,
    camera_mixing,
    correlation_interval,
    mean_silhouette,
    neighbour_agreement,
    rank_correlation,
    stability,
)
from reidray.labelling import dbscan
from reidray.launch.inference import load_model, offline_context
from reidray.launch.prepare import packed_place
from reidray.neighbours import jaccard_from_neighbours, nearest
from reidray.settings_io import from_words, settings_from
from reidray.training.evaluation import evaluate
from reidray.tuning.ledger import Entry
from reidray.tuning.run_search import asked_search, run_search
from reidray.tuning.search_file import CRITERIA, settings_of

RESAMPLES = 2000


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/criteria"), help="of the search; gone on with where it is there"
    )
    parser.add_argument("--search", type=Path, default=Path("configs/search_scwm.yaml"))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--output", type=Path, help="the table's figures as JSON")
    parser.add_argument("overrides", nargs="*", metavar="section.name=value")
    parser.add_argument("--cost", action="store_true", help="time the criteria, and nothing else")
    options = parser.parse_args()
    if options.cost:
        print(cost(12_936, 2048))
        return
    folder = options.folder.resolve()
    resume = folder if (folder / "search.yaml").is_file() else None
    asked = replace(asked_search(options.search, None, options.trials, None), scheduler="none")
    words = [*options.overrides, f"run.dir={folder}"]
    status, entries = run_search(settings_from([settings_of(options.search), *from_words(words)]), asked, resume=resume)
    if status:
        sys.exit(status)
    trials = [measures(entry) for entry in entries if entry.state == "finished"]
    rows = [row(name, trials) for name in (*CRITERIA, "mAP_validation")]
    print(table(rows, trials))
    if options.output:
        options.output.write_text(json.dumps({"rows": rows, "trials": trials}, indent=1) + "\n")


def cost(count: int, width: int) -> str:
    """Markdown: milliseconds of each criterion and of the stages of labelling, medians of 5 rounds in turn."""
    set_threads(1)
    drawn = draw(count, width, seed=0)
    indices_NK, similarities_NK = nearest(drawn.features_ND, 30)
    given: dict[str, Any] = {"k1": 30, "k2": 6, "keep": 0.6}
    distances_NN = jaccard_from_neighbours(indices_NK, similarities_NK, drawn.features_ND, **given)
    labels_N = dbscan(distances_NN, eps=0.6, min_samples=4)
    earlier_N = np.where(np.random.default_rng(0).random(count) < 0.1, -1, labels_N)
    alphas_NL = np.random.default_rng(1).random((count, 4), dtype=np.float32)
    timed = in_turn(
        {
            "neighbours": lambda: nearest(drawn.features_ND, 30),
            "Jaccard distances": lambda: jaccard_from_neighbours(
                indices_NK, similarities_NK, drawn.features_ND, **given
            ),
            "DBSCAN": lambda: dbscan(distances_NN, eps=0.6, min_samples=4),
            "stability": lambda: stability(labels_N, earlier_N),
            "silhouette": lambda: mean_silhouette(labels_N, distances_NN),
            "agreement": lambda: neighbour_agreement(alphas_NL),
            "camera_mixing": lambda: camera_mixing(labels_N, drawn.camera_N),
            "assigned": lambda: assigned_share(labels_N),
        },
        rounds=5,
    )
    lines = [f"| N = {count:,}, D = {width}, 1 thread | ms |", "|---|---|"]
    lines += [f"| {name} | {1000 * timing.seconds:.2f} |" for name, timing in timed.items()]
    ours = sum(timed[name].seconds for name in CRITERIA)
    labelling = sum(timing.seconds for name, timing in timed.items() if name not in CRITERIA)
    return "\n".join([*lines, f"\nAll criteria together: {100 * ours / labelling:.2f} % of the three stages."])


def measures(entry: Entry) -> dict[str, Any]:
    """The criteria after a trial's last epoch, and mAP of both splits in percent; that of the test split is kept."""
    kept = entry.folder / "test.json"
    if not kept.exists():
        model, settings = load_model(entry.folder)
        on_test = settings.evaluate.model_copy(update={"split": "test"})
        settings = settings.model_copy(update={"evaluate": on_test})
        context = offline_context(settings, packed_place(settings), entry.folder, _silent)
        kept.write_text(json.dumps({"mAP": evaluate(context, model.to(context.device), None)["mAP"]}) + "\n")
    test = json.loads(kept.read_text())["mAP"]
    criteria = {name: entry.measures[name] for name in CRITERIA if name in entry.measures}
    return {"trial": entry.trial, **criteria, "mAP_validation": entry.measures["mAP"], "mAP_test": test}


def row(name: str, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """A criterion's rho with mAP of both splits, and the mAP of the trial it chooses."""
    known = [trial for trial in trials if name in trial]
    chosen = max(known, key=lambda trial: trial[name])
    found: dict[str, Any] = {"criterion": name, "trials": len(known), "chosen": chosen["trial"]}
    for split in ("validation", "test"):
        values, mAPs = [trial[name] for trial in known], [trial[f"mAP_{split}"] for trial in known]
        found[f"rho_{split}"] = rank_correlation(values, mAPs)
        generator = np.random.default_rng(0)
        found[f"interval_{split}"] = correlation_interval(values, mAPs, generator, resamples=RESAMPLES)
        found[f"mAP_{split}"] = chosen[f"mAP_{split}"]
    return found


def table(rows: list[dict[str, Any]], trials: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| criterion | trials | rho, validation | 95 % | rho, test | 95 % | mAP of its choice, validation | test |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for found in rows:
        cells = [found["criterion"], str(found["trials"])]
        for split in ("validation", "test"):
            cells += [_number(found[f"rho_{split}"]), _interval(found[f"interval_{split}"])]
        cells += [f"{found['mAP_validation']:.1f}", f"{found['mAP_test']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    for split in ("validation", "test"):
        mAPs = [trial[f"mAP_{split}"] for trial in trials]
        lines.append(
            f"\nmAP of the trials, {split} split: lowest {min(mAPs):.1f}, median {np.median(mAPs):.1f}, "
            f"highest {max(mAPs):.1f}."
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _interval(value: tuple[float, float] | None) -> str:
    return "-" if value is None else f"{value[0]:+.2f} to {value[1]:+.2f}"


def _silent(event: Mapping[str, Any]) -> None:
    """Nothing is shown while the test split is evaluated."""


if __name__ == "__main__":
    main()
