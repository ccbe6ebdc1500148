"""Compare methods on several data sets: trials chosen on validation persons, the best measured on test persons.

    python benchmarks/grid.py --output grid.jsonl --data cuhk01 --root DIR --weights FILE \
        --method cluster_contrast stripes scwm --seeds 0 1 2 3 4
    python benchmarks/grid.py --output grid.jsonl --data cuhk01 ... --method cluster_contrast --choose 0 \
        --variant "=" --variant "ema=train.ema=0.99"

The question is written in benchmarks/grid.yaml: the data, the methods and eight trials of each. A run that is in the
output is not made again, so that the grid can be filled piece by piece. `--trials` names the trials to take part by
number; `--choose 1` takes that trial of all methods without choosing, `--method pplr=3` of one. A `--variant` has
settings for all runs, and is compared with the others like a method.

Every run is one process of one thread. The output has a line a run: settings, figures and labels of every epoch, and
the average precision of every query. The table has means and spread (sample standard deviation) over the seeds; the
pairs below it are compared seed by seed, with the middle 95 % of a bootstrap over seeds and queries.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations, product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
QUESTION = Path(__file__).with_suffix(".yaml")
RESAMPLES = 2000
TRIAL_SEEDS = (100, 101)
FIGURES = (  # of an epoch's labels, as far as the method has them
    *("epoch", "clusters", "outliers", "largest", "assigned", "silhouette", "stability", "agreement"),
    *("camera_cycle", "camera_mixing", "ARI", "AMI", "purity", "pseudo_mIoU"),
)

Run = dict[str, Any]


def main() -> None:
    """The command."""
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(one(json.loads(sys.argv[2]))))
        return
    question = yaml.safe_load(QUESTION.read_text())
    options = parsed(question, sys.argv[1:])
    places = {"root": options.root, "weights": options.weights}
    kept = None if options.keep is None else str(options.keep.resolve())

    variants = dict(variant.split("=", 1) for variant in options.variant or ["="])

    def job(method: str, variant: str, trial: int, seed: int, split: str) -> Run:
        return {
            **{"data": options.data, "method": method, "trial": trial, "seed": seed, "split": split},
            "words": words_of(question, options.data, method, trial, variants[variant], **places),
            **{"vary": question["data"][options.data]["seed"], "keep": kept},
        }

    def tried(method: str, variant: str, some: list[int], seeds: list[int]) -> dict[int, float]:
        jobs = [job(method, variant, number, seed, "validation") for number in some for seed in seeds]
        made = all_made(jobs, options.output, options.parallel)
        return {number: mean(run["mAP"] for run in made if run["trial"] == number) for number in some}

    rows = {}
    for (method, taken), variant in product(options.method, variants):
        trial = int(taken) if taken else options.choose
        name = f"{method}{taken and '='}{taken} {variant}".strip()
        if trial is None:
            count = len(question["trials"][question["methods"][method]["trials"]])
            numbers = options.trials if options.trials is not None else list(range(count))
            of_this = partial(tried, method, variant)
            trial = chosen(numbers, options.trial_seeds, options.finalists, of_this, name)
        jobs = [job(method, variant, trial, seed, options.split) for seed in options.seeds]
        rows[name] = all_made(jobs, options.output, options.parallel)
    print(table(rows))
    if len(rows) > 1:
        print("\n" + pairs(rows, same_queries=question["data"][options.data]["seed"] == "train.seed"))


def chosen(
    numbers: list[int],
    seeds: list[int],
    finalists: int | None,
    tried: Callable[[list[int], list[int]], dict[int, float]],
    name: str,
) -> int:
    """The trial of the highest mean validation mAP.

    Args:
      finalists: how many of the best by the first seed have the other seeds; all where it is None.
      tried: mean mAP of some trials over some seeds.
      name: said with what was found.
    """
    first = tried(numbers, seeds if finalists is None else seeds[:1])
    print(f"{name}: validation mAP of trial " + ", ".join(f"{number}: {value:.1f}" for number, value in first.items()))
    best = sorted(numbers, key=lambda number: -first[number])[:finalists]
    found = tried(best, seeds)
    if finalists is not None:
        print(f"{name}: of the best, all seeds: " + ", ".join(f"{number}: {found[number]:.1f}" for number in best))
    trial = max(best, key=lambda number: found[number])
    print(f"{name}: chosen {trial}")
    return trial


def parsed(question: Any, words: list[str]) -> argparse.Namespace:
    """The command's options; `method` as pairs of a name and a trial, "" where none is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, one a run; appended to")
    parser.add_argument("--data", choices=question["data"], required=True)
    parser.add_argument("--root", default="", help="folder of the data set, where it is not drawn")
    parser.add_argument("--weights", default="", help="start weights, where the data set asks for them")
    parser.add_argument(
        "--method", nargs="+", required=True, metavar="NAME[=TRIAL]", help=", ".join(question["methods"])
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of the runs on test persons")
    parser.add_argument("--trial-seeds", type=int, nargs="+", default=list(TRIAL_SEEDS))
    parser.add_argument(
        "--finalists", type=int, help="only so many of the best by the first trial seed have the others"
    )
    parser.add_argument("--trials", type=int, nargs="+", help="numbers of trials, from 0; default all")
    parser.add_argument("--choose", type=int, help="take this trial, without choosing")
    parser.add_argument(
        "--variant", action="append", metavar="NAME=SETTINGS", help="settings of every run; several are compared"
    )
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="of the runs after choosing")
    parser.add_argument("--keep", type=Path, help="keep run folders here, with a checkpoint of every epoch")
    options = parser.parse_args(words)
    options.method = [method.partition("=")[::2] for method in options.method]
    for name, trial in options.method:
        if name not in question["methods"]:
            parser.error(f"unknown method {name}: choose from {', '.join(question['methods'])}")
        if trial and trial not in map(str, range(len(question["trials"][question["methods"][name]["trials"]]))):
            parser.error(f"method {name} has no trial {trial}")
    return options


# ---- runs


def words_of(question: Any, data: str, method: str, trial: int, variant: str, *, root: str, weights: str) -> list[str]:
    """All settings of a run but its seed; those that come last count."""
    own = question["methods"][method]
    base = f"{question['common']} {question['data'][data]['words']}".format(root=root, weights=weights)
    return " ".join([base, own["words"], question["trials"][own["trials"]][trial], variant]).split()


def all_made(jobs: list[Run], output: Path, parallel: int) -> list[Run]:
    """The runs of these jobs; those that are not there yet are made."""
    there = read(output)
    todo = [job for job in jobs if key(job) not in there]
    with ThreadPoolExecutor(parallel) as pool:
        for run in pool.map(made_one, todo):
            with output.open("a") as stream:
                stream.write(json.dumps(stored(run)) + "\n")
            print(f"{key(run)}: mAP {run['mAP']:.1f}", file=sys.stderr, flush=True)
    there = read(output)
    return [there[key(job)] for job in jobs]


def key(run: Run) -> str:
    """What tells a run apart."""
    return f"{run['data']} {run['method']} {run['split']} {run['seed']} {' '.join(without_places(run['words']))}"


def without_places(words: list[str]) -> list[str]:
    """The settings, without where data and weights lie on this machine; weights keep their name."""
    return [
        f"model.weights={Path(word.partition('=')[2]).name}" if word.startswith("model.weights=") else word
        for word in words
        if not word.startswith("data.root=")
    ]


def stored(run: Run) -> Run:
    """What goes into the output."""
    measured = {
        "words": without_places(run["words"]),
        "precisions": [round(value, 4) for value in run["precisions"]],
        "epochs": [{name: epoch[name] for name in FIGURES if epoch.get(name) is not None} for epoch in run["epochs"]],
    }
    return {**{name: value for name, value in run.items() if name not in ("keep", "vary")}, **measured}


def read(path: Path) -> dict[str, Run]:
    """The runs that are there."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {key(run): run for run in map(json.loads, lines)}


def made_one(job: Run) -> Run:
    """A run in a process of one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    command = [sys.executable, str(Path(__file__)), "one", json.dumps(job)]
    finished = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"{key(job)} failed: {finished.stderr.strip()[-2000:]}")
    run: Run = json.loads(finished.stdout.splitlines()[-1])
    return run


def one(job: Run) -> Run:
    """Trains, and adds what came out."""
    import torch

    from reidray.launch.inference import load_model, offline_context
    from reidray.launch.launch import launch
    from reidray.launch.prepare import packed_place
    from reidray.settings_io import from_file, from_words, settings_from
    from reidray.training.evaluation import evaluate

    torch.set_num_threads(1)
    files = [word[1:] for word in job["words"] if word.startswith("@")]
    words = [word for word in job["words"] if not word.startswith("@")]
    with tempfile.TemporaryDirectory() as place:
        name = hashlib.sha256(key(job).encode()).hexdigest()[:12]
        folder = Path(place) / "run" if job["keep"] is None else Path(job["keep"]) / name
        own = [f"{job['vary']}={job['seed']}", f"evaluate.split={job['split']}", "run.workers=0", f"run.dir={folder}"]
        own += [] if job["keep"] is None else ["run.keep_checkpoints=1000"]
        if folder.exists():  # of a grid that was interrupted
            shutil.rmtree(folder)
        settings = settings_from([*(from_file(ROOT / file) for file in files), *from_words([*words, *own])])
        result = launch(settings)
        model, settings = load_model(folder)
        context = offline_context(settings, packed_place(settings), folder, lambda _: None)
        figures = evaluate(context, model, None, lists=context.split(splits(job["split"])).source.count)
        worst = figures["examples"]["worst"]
        precisions = dict(zip(worst["queries"], worst["precisions"], strict=True))
        epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        evaluations = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    return {
        **job,
        "run": name,
        "mAP": figures["mAP"],
        "rank1": figures["rank1"],
        "before": result["before"]["mAP"],
        "mIoU": figures["parsing_mIoU"],
        "curve": [[-1 if line["epoch"] is None else line["epoch"], line["mAP"]] for line in evaluations],
        "epochs": epochs,
        "precisions": [precisions[query] for query in sorted(precisions)],
        "seconds": result["seconds"],
    }


def splits(split: str) -> str:
    """The queries' split."""
    return "query" if split == "test" else f"{split}_query"


# ---- what came out


def table(rows: dict[str, list[Run]]) -> str:
    """Markdown: a row a method."""
    lines = [
        "| method | trial | mAP before | mAP after | spread | lowest | highest | best epoch - last | rank-1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, runs in rows.items():
        values = [run["mAP"] for run in runs]
        spread = f"{stdev(values):.1f}" if len(values) > 1 else "-"
        lost = mean(max(value for _, value in run["curve"]) - run["mAP"] for run in runs)
        before, rank1 = (mean(run[name] for run in runs) for name in ("before", "rank1"))
        lines.append(
            f"| {method} | {runs[0]['trial']} | {before:.1f} | {mean(values):.1f} | {spread} | {min(values):.1f} | "
            f"{max(values):.1f} | {lost:.1f} | {rank1:.1f} |"
        )
    return "\n".join(lines)


def pairs(rows: dict[str, list[Run]], *, same_queries: bool) -> str:
    """Markdown: each pair of methods, seed by seed. same_queries: whether all seeds have the same queries."""
    lines = ["| pair | difference of mAP | 95 % | seeds above |", "|---|---|---|---|"]
    for one_name, other_name in combinations(rows, 2):
        apart_SQ = apart(rows[one_name], rows[other_name], same_queries=same_queries)
        low, high = interval(apart_SQ, np.random.default_rng(0))
        above = int((apart_SQ.mean(1) > 0).sum())
        lines.append(
            f"| {one_name} - {other_name} | {apart_SQ.mean():+.1f} | {low:+.1f} to {high:+.1f} | "
            f"{above} of {len(apart_SQ)} |"
        )
    return "\n".join(lines)


def apart(ones: list[Run], others: list[Run], *, same_queries: bool) -> Any:
    """float64 [S, Q]: differences of average precision, in percent, of seeds and queries.

    Drawn data have other queries a seed: each seed then has its mean in all places.
    """
    rows = [
        100 * (np.array(one["precisions"]) - np.array(other["precisions"]))
        for one, other in zip(ones, others, strict=True)
    ]
    if same_queries:
        return np.stack(rows)
    width = min(len(row) for row in rows)
    return np.stack([np.full(width, row.mean()) for row in rows])


def interval(apart_SQ: Any, generator: np.random.Generator) -> tuple[float, float]:
    """The middle 95 % of the mean difference over seeds and queries drawn anew, with replacement."""
    seeds, queries = apart_SQ.shape
    means = [
        apart_SQ[generator.integers(0, seeds, seeds)][:, generator.integers(0, queries, queries)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
