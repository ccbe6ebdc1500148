"""How well part clustering finds head, torso and legs of drawn pedestrians, switch by switch, without any training.

    python benchmarks/parsing_quality.py data.seed=100

Prints the area under the ROC curve of the cells' magnitudes as a foreground score (mean over images) beside that of
the distance from the centre column, then for each switch of the part clustering its mIoU, the mIoU of stripes in the
same foreground, and the foreground's IoU. The last rows are given the true foreground. Start weights, validation
gallery, all in percent but the ROC areas.

"foreground" is what a cell's features tell of the foreground at all: the area under the ROC curve of other scores
without truth (the first principal component of all cells, of either direction; a linear classifier of the middle
against the left and right border), and an upper bound of the IoU: a classifier of cells that saw the true masks of half
of the images, on the other half, at the threshold that is best there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from reidray.command import parse
from reidray.evaluation import confusion, mean_iou, stripes
from reidray.launch.prepare import prepared
from reidray.launch.services import num_cpus
from reidray.parsing import gram_matrices, parse_grams
from reidray.storage.masks_file import read_masks
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
    map_BDHW = maps(model, images.rows(indices))
    height, width = map_BDHW.shape[2:]
    true_BHW = true_cells(truth[indices], model.grid, (height, width), settings)
    grams = gram_matrices(map_BDHW).numpy()
    magnitudes = map_BDHW.norm(dim=1).numpy()
    centre = np.broadcast_to(-np.abs(np.arange(width) - (width - 1) / 2), magnitudes.shape)
    table = {name: _measure(grams, true_BHW, **switch) for name, switch in SWITCHES.items()}
    known = grams * (true_BHW > 0).reshape(len(grams), -1, 1) * (true_BHW > 0).reshape(len(grams), 1, -1)
    table["true foreground, eta .35"] = _measure(known, true_BHW, classes=2, truth_foreground=True)
    table["true foreground, eta .5"] = _measure(known, true_BHW, classes=2, eta=0.5, truth_foreground=True)
    cells_BHWD = map_BDHW.permute(0, 2, 3, 1).numpy()
    found = {
        "images": len(indices),
        "foreground_share": float((true_BHW > 0).mean()),
        "auc_magnitude": _auc(true_BHW > 0, magnitudes),
        "auc_centre_column": _auc(true_BHW > 0, centre),
        "foreground": {
            "auc_first_component": _auc(true_BHW > 0, first_component(cells_BHWD)),
            "auc_middle_against_border": _auc(true_BHW > 0, middle_against_border(cells_BHWD)),
            "IoU_of_a_classifier_with_true_masks": round(100 * upper_bound(cells_BHWD, true_BHW > 0), 1),
        },
        "table": table,
    }
    print(json.dumps(found, indent=1))


def first_component(cells_BHWD: np.ndarray) -> np.ndarray:
    """Scores of cells [B, H, W] along the first principal component of all of them, larger in the middle columns."""
    cells_ND = cells_BHWD.reshape(-1, cells_BHWD.shape[-1])
    centred_ND = cells_ND - cells_ND.mean(0)
    direction_D = np.linalg.eigh(centred_ND.T @ centred_ND)[1][:, -1]
    scores = (centred_ND @ direction_D).reshape(cells_BHWD.shape[:3])
    width = scores.shape[2]
    middle = scores[:, :, width // 3 : -(width // 3)].mean() > scores.mean()
    return scores if middle else -scores


def middle_against_border(cells_BHWD: np.ndarray) -> np.ndarray:
    """Scores of cells [B, H, W] by a linear classifier of the two middle columns against the outer ones."""
    height, width = cells_BHWD.shape[1:3]
    rows = slice(height // 6, height - height // 6)
    middle = cells_BHWD[:, rows, width // 2 - 1 : width // 2 + 1].reshape(-1, cells_BHWD.shape[-1])
    border = cells_BHWD[:, :, [0, -1]].reshape(-1, cells_BHWD.shape[-1])
    scale = cells_BHWD.std()
    classifier = LogisticRegression(C=0.1, max_iter=300).fit(
        np.concatenate([middle, border]) / scale, np.repeat([1, 0], [len(middle), len(border)])
    )
    scores: np.ndarray = classifier.decision_function(cells_BHWD.reshape(-1, cells_BHWD.shape[-1]) / scale)
    return scores.reshape(cells_BHWD.shape[:3])


def upper_bound(cells_BHWD: np.ndarray, foreground_BHW: np.ndarray) -> float:
    """The foreground's IoU that a classifier of cells reaches which saw the true masks of the first half."""
    half = len(cells_BHWD) // 2
    cells = [part.reshape(-1, cells_BHWD.shape[-1]) / cells_BHWD.std() for part in np.split(cells_BHWD, [half])]
    truth = [part.reshape(-1) for part in np.split(foreground_BHW, [half])]
    classifier = MLPClassifier((64,), max_iter=60, early_stopping=True, random_state=0).fit(cells[0], truth[0])
    chances = classifier.predict_proba(cells[1])[:, 1]
    masks = [chances > threshold for threshold in np.linspace(0.1, 0.9, 33)]
    return max(float((mask & truth[1]).sum() / (mask | truth[1]).sum()) for mask in masks)


def maps(model: Any, pixels_BHW3: np.ndarray) -> torch.Tensor:
    """The trunk's maps of images [B, D, H, W]."""
    with torch.no_grad():
        return torch.cat(
            [
                model.backbone(as_input(np.ascontiguousarray(pixels_BHW3[start : start + 64]), torch.device("cpu")))
                for start in range(0, len(pixels_BHW3), 64)
            ]
        )


def parsed(grams: np.ndarray, size: tuple[int, ...], *, eta: float = 0.35, **switch: Any) -> Any:
    """What part clustering makes of Gram matrices, as printed but for the switch. size: height and width of the map."""
    height, width = size
    options = {"classes": 3, "log_magnitude": False, "centre_prior": 0.0, "space": "forbid", "linkage": "average"}
    return parse_grams(
        grams, height=height, width=width, num_parts=4, max_distance=eta * height, **{**options, **switch}
    )


def _measure(grams: np.ndarray, true_BHW: np.ndarray, **switch: Any) -> dict[str, float]:
    if switch.pop("truth_foreground", False):
        # every true cell at one length: the background cells, of length 0, are the lower of two magnitudes
        lengths = np.sqrt(np.diagonal(grams, axis1=1, axis2=2))
        scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        grams = grams * scale[:, :, None] * scale[:, None, :]
    found = parsed(grams, true_BHW.shape[1:], **switch)
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
