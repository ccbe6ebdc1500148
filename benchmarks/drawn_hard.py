"""Whether a drawn data set has headroom: two figures, each in points of mAP on the test split, data seed by data seed.

    python benchmarks/drawn_hard.py --config configs/drawn_hard.yaml --data-seeds 11 12 13 --output hard.jsonl

- Parts: true part masks against as many horizontal stripes. The network keeps its start weights; a part's feature is
  the mean of the map over the part, standardised by the training images, at unit length; the parts are joined. Masks
  and stripes have the same network, the same number of parts (head, torso, legs) and the same width. A part that is not
  to be seen is a vector of zeros. The row "stripes inside" has the stripes' cells weighted by the true foreground.
- Labels: Cluster Contrast trained with the true persons against Cluster Contrast with its own clusters; same start,
  data, batches and updates.

`--only parts` needs no training. Words behind the options are settings of every run. A run that is already in the
output is not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from drawn import run_once
from torch.nn import functional as F

from reidray.config import Settings
from reidray.evaluation import rank
from reidray.launch.prepare import prepared
from reidray.settings_io import from_file, from_words, settings_from
from reidray.storage.masks_file import read_masks
from reidray.storage.shards import read_truth
from reidray.storage.weights import load_weights
from reidray.threads import set_threads
from reidray.training.context import evaluation_splits, open_split
from reidray.training.images import as_input
from reidray.training.loop import new_model

# B = images, H, W = cells, P = parts, D = width of the map, F = P D
PARTS = ((1,), (2,), (3, 4))  # classes of the true masks: head; torso; legs and shoes
BATCH = 64
LABELS = {
    "true labels": ["method.name=cluster_contrast", "method.labels=ground_truth"],
    "own clusters": ["method.name=cluster_contrast"],
}
ROOT = Path(__file__).resolve().parents[1]
Measure = Callable[[str, int, argparse.Namespace], dict[str, float]]


def part_weights(truth_Bhw: np.ndarray, map_size: tuple[int, int]) -> torch.Tensor:
    """How much of each cell a part covers, from true masks at any resolution: float32 [B, P, H, W] in 0..1."""
    truth = torch.from_numpy(np.ascontiguousarray(truth_Bhw))
    shares = [sum((truth == number) for number in part).float() for part in PARTS]
    return F.interpolate(torch.stack(shares, 1), size=map_size, mode="area")


def masked_means(map_BDHW: torch.Tensor, weights_BPHW: torch.Tensor) -> torch.Tensor:
    """The mean of the map over each part [B, P, D]; NaN where a part covers nothing."""
    sums_BPD = weights_BPHW.flatten(2) @ map_BDHW.flatten(2).transpose(1, 2)
    return sums_BPD / weights_BPHW.sum((2, 3))[..., None]


def ways(parts_BPHW: torch.Tensor) -> dict[str, torch.Tensor]:
    """The ways to pool a map as weights [B, P, H, W], P 1 for the whole picture, from the true parts' weights."""
    height = parts_BPHW.shape[2]
    stripes_H = torch.arange(height) * len(PARTS) // height
    stripes_PHW = (stripes_H == torch.arange(len(PARTS))[:, None]).float()[:, :, None]
    inside_B1HW = parts_BPHW.sum(1, keepdim=True)
    return {
        "masks": parts_BPHW,
        "stripes": stripes_PHW.expand_as(parts_BPHW),
        "stripes inside": stripes_PHW * inside_B1HW,
        "whole": torch.ones_like(inside_B1HW),
        "whole inside": inside_B1HW,
    }


def joined(parts_BPD: torch.Tensor, mean_PD: torch.Tensor, std_PD: torch.Tensor) -> np.ndarray:
    """Standardised parts at unit length behind each other [B, F], at unit length; zeros for a part that is NaN.

    A picture without any part (a distractor) has the same number everywhere: it is like nobody.
    """
    rows_BF = torch.nan_to_num(F.normalize((parts_BPD - mean_PD) / std_PD, dim=2)).flatten(1)
    rows_BF[(rows_BF == 0).all(1)] = 1
    return F.normalize(rows_BF, dim=1).numpy()


def probe(settings: Settings) -> dict[str, float]:
    """mAP in percent of the ways to pool a frozen map, on the split that the settings evaluate."""
    packed = prepared(settings, _silent, processes=1)
    model = new_model(settings).eval()
    if settings.model.weights != "none":
        load_weights(model, settings.model.weights)
    return ranked(settings, packed, lambda name: _pooled(settings, packed, name, model))


def ranked(settings: Settings, packed: str, pooled_split: Callable[[str], dict[str, torch.Tensor]]) -> dict[str, float]:
    """mAP in percent of each way to pool, on the evaluated split.

    pooled_split: the vectors [B, P, D] of all images of a split, way by way.
    """
    names = evaluation_splits(settings)
    pooled = {name: pooled_split(name) for name in ("train", *names)}
    persons = [read_truth(f"{packed}/{name}") for name in names]
    cameras = [open_split(settings, packed, name).source.cameras_N for name in names]
    found = {}
    for way in pooled["train"]:
        train_BPD = pooled["train"][way]
        present = ~torch.isnan(train_BPD)
        count = present.sum(0).clamp(min=2)
        mean_PD = torch.nansum(train_BPD, 0) / count
        std_PD = (torch.nansum((train_BPD - mean_PD) ** 2, 0) / count).sqrt().clamp(min=1e-6)
        rows = [joined(pooled[name][way], mean_PD, std_PD) for name in names]
        found[way] = rank(*rows, *persons, *cameras).percent()["mAP"]
    return found


def _pooled(settings: Settings, packed: str, name: str, model: Any) -> dict[str, torch.Tensor]:
    images = open_split(settings, packed, name)
    truth = read_masks(f"{packed}/{name}")
    if truth is None:
        raise SystemExit(f"{packed}/{name} has no true masks")
    batches: list[dict[str, torch.Tensor]] = []
    with torch.no_grad():
        for first in range(0, images.source.count, BATCH):
            indices = np.arange(first, min(first + BATCH, images.source.count))
            map_BDHW = model.backbone(as_input(images.rows(indices), torch.device("cpu")))
            weights = ways(part_weights(truth[indices], (map_BDHW.shape[2], map_BDHW.shape[3])))
            batches.append({way: masked_means(map_BDHW, weights_BPHW) for way, weights_BPHW in weights.items()})
    return {way: torch.cat([batch[way] for batch in batches]) for way in batches[0]}


def _silent(event: Mapping[str, Any]) -> None:
    """Nothing is shown while the data set is drawn."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/drawn_hard.yaml", help="what to draw, and how long to train")
    parser.add_argument("--data-seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, one a figure and seed; appended to")
    parser.add_argument("--only", choices=("parts", "labels"), help="one of the two figures")
    parser.add_argument("--parallel", type=int, default=2, help="trainings at once, a thread each")
    parser.add_argument("words", nargs="*", metavar="section.name=value", help="settings of every run")
    options = parser.parse_args()
    set_threads(1)
    for seed in options.data_seeds:
        if options.only != "labels":
            _once(options.output, "parts", seed, _parts, options)
        if options.only != "parts":
            with ThreadPoolExecutor(options.parallel) as pool:
                jobs = [pool.submit(_once, options.output, name, seed, _trained, options) for name in LABELS]
            for job in jobs:
                job.result()
    print(_table(_read(options.output), options.data_seeds))


def _parts(_: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    given = [from_file(ROOT / options.config), *from_words([*options.words, f"data.seed={seed}"])]
    return probe(settings_from(given).resolved(Path.cwd()))


def _trained(name: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    run = run_once(name, [f"@{options.config}", *LABELS[name]], seed, options.words)
    return {"before": run["before"]["mAP"], "after": run["after"]["mAP"], "rank1": run["after"]["rank1"]}


def _once(output: Path, name: str, seed: int, measure: Measure, options: argparse.Namespace) -> None:
    if (name, seed) not in _read(output):
        line = {"what": name, "data_seed": seed, "figures": measure(name, seed, options)}
        with output.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        print(f"{name}, data.seed={seed}: {line['figures']}", file=sys.stderr)


def _read(path: Path) -> dict[tuple[str, int], dict[str, float]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(line["what"], line["data_seed"]): line["figures"] for line in lines}


def _table(found: dict[tuple[str, int], dict[str, float]], seeds: list[int]) -> str:
    """Markdown: a row for each way and each pair that is compared, a column for each seed, mean and spread."""
    rows: dict[str, list[float]] = {}
    for way in ("masks", "stripes", "stripes inside", "whole", "whole inside"):
        rows[f"frozen, {way}"] = [found["parts", seed][way] for seed in seeds if ("parts", seed) in found]
    for name in LABELS:
        for when in ("before", "after"):
            rows[f"{name}, {when}"] = [found[name, seed][when] for seed in seeds if (name, seed) in found]
    for name, better, worse in (
        ("masks against stripes", "frozen, masks", "frozen, stripes"),
        ("true labels against own clusters", "true labels, after", "own clusters, after"),
    ):
        rows[f"**{name}**"] = [a - b for a, b in zip(rows[better], rows[worse], strict=True)]
    head = f"| mAP | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | spread |\n|{'---|' * (len(seeds) + 3)}"
    lines = [
        f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} | {mean(values):.1f} | "
        f"{f'{stdev(values):.1f}' if len(values) > 1 else '-'} |"
        for name, values in rows.items()
        if values
    ]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    main()
