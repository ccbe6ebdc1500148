"""How well part clustering finds head, torso and legs of drawn pedestrians, switch by switch, without any training.

    python benchmarks/parsing_quality.py data.seed=100

Prints the area under the ROC curve of the cells' magnitudes as a foreground score (mean over images) beside that of
the distance from the centre column, then for each switch of the part clustering its mIoU, the mIoU of stripes in the
same foreground, and the foreground's IoU. The last rows are given the true foreground. Start weights, validation
gallery, all in percent but the ROC areas.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from reidray.command import parse
from reidray.evaluation import confusion, mean_iou, stripes
from reidray.launch.prepare import prepared
from reidray.launch.services import num_cpus
from reidray.parsing import gram_matrices, parse_grams
from reidray.storage.shards import read_masks
from reidray.storage.weights import load_weights
from reidray.threads import set_threads
from reidray.training.context import open_split
from reidray.training.evaluation import true_cells
from reidray.training.images import as_input
from reidray.training.loop import new_model

IMAGES = 400
SWITCHES: dict[str, dict[str, Any]] = {
    "as printed": {},
    "2 classes": {"classes": 2},
    "log magnitude": {"log_magnitude": True},
    "centre prior .15": {"centre_prior": 0.15},
    "centre prior .15, 2 classes": {"centre_prior": 0.15, "classes": 2},
    "eta .5": {"eta": 0.5},
    "eta .5, centre prior .15, 2 classes": {"eta": 0.5, "centre_prior": 0.15, "classes": 2},
    "no space term": {"space": "off"},
    "k-means (original cascade)": {"space": "kmeans"},
    "complete linkage": {"linkage": "complete"},
    "single linkage": {"linkage": "single"},
}


def main() -> None:
    """The command."""
    settings = parse(sys.argv[1:], prog="benchmarks/parsing_quality.py", description=__doc__ or "").settings
    settings = settings.resolved(Path.cwd())
    set_threads(1)
    packed = prepared(settings, _silent, processes=num_cpus())
    images = open_split(settings, packed, "validation_gallery")
    indices = np.arange(min(IMAGES, images.source.count))
    model = new_model(settings).eval()
    if settings.model.weights != "none":
        load_weights(model, settings.model.weights)
    truth = read_masks(f"{packed}/validation_gallery")
    if truth is None:
        raise SystemExit("the data set has no true masks")
    with torch.no_grad():
        pixels = images.rows(indices)
        maps = [model.backbone(as_input(pixels[i : i + 64], torch.device("cpu"))) for i in range(0, len(indices), 64)]
        map_BDHW = torch.cat(maps)
    height, width = map_BDHW.shape[2:]
    true_BHW = true_cells(truth[indices], model.grid, (height, width), settings)
    grams = gram_matrices(map_BDHW).numpy()
    magnitudes = map_BDHW.norm(dim=1).numpy()
    centre = np.broadcast_to(-np.abs(np.arange(width) - (width - 1) / 2), magnitudes.shape)
    table = {name: _measure(grams, true_BHW, **switch) for name, switch in SWITCHES.items()}
    known = grams * (true_BHW > 0).reshape(len(grams), -1, 1) * (true_BHW > 0).reshape(len(grams), 1, -1)
    table["true foreground, eta .35"] = _measure(known, true_BHW, classes=2, truth_foreground=True)
    table["true foreground, eta .5"] = _measure(known, true_BHW, classes=2, eta=0.5, truth_foreground=True)
    found = {
        "images": len(indices),
        "foreground_share": float((true_BHW > 0).mean()),
        "auc_magnitude": _auc(true_BHW > 0, magnitudes),
        "auc_centre_column": _auc(true_BHW > 0, centre),
        "table": table,
    }
    print(json.dumps(found, indent=1))


def _measure(grams: np.ndarray, true_BHW: np.ndarray, **switch: Any) -> dict[str, float]:
    height, width = true_BHW.shape[1:]
    options = {"classes": 3, "log_magnitude": False, "centre_prior": 0.0, "space": "forbid", "linkage": "average"}
    eta = switch.pop("eta", 0.35)
    if switch.pop("truth_foreground", False):
        # every true cell at one length: the background cells, of length 0, are the lower of two magnitudes
        lengths = np.sqrt(np.diagonal(grams, axis1=1, axis2=2))
        scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        grams = grams * scale[:, :, None] * scale[:, None, :]
    found = parse_grams(
        grams, height=height, width=width, num_parts=4, max_distance=eta * height, **{**options, **switch}
    )
    parts = np.asarray(found.parts_BHW)
    quality = mean_iou(confusion(parts, true_BHW, 4, 5))
    bands = mean_iou(confusion(stripes(parts != 3, 4), true_BHW, 4, 5))
    return {
        "mIoU": round(100 * quality.mIoU, 1),
        "stripes": round(100 * bands.mIoU, 1),
        "foreground_IoU": round(100 * quality.foreground_IoU, 1),
        "far_pairs": round(100 * float(np.mean(found.far_share_B)), 1),
    }


def _silent(event: Mapping[str, Any]) -> None:
    """Nothing is shown while the data set is drawn."""


def _auc(true_BHW: np.ndarray, score_BHW: np.ndarray) -> float:
    mixed = [index for index, mask in enumerate(true_BHW) if 0 < mask.mean() < 1]
    areas = [roc_auc_score(true_BHW[index].ravel(), score_BHW[index].ravel()) for index in mixed]
    return round(float(np.mean(areas)), 3)


if __name__ == "__main__":
    main()
