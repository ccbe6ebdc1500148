"""How well predicted part masks agree with true ones. Predicted parts have no names, so they are matched to the true
classes once for the whole data set. Truth classes of the drawn pedestrians: 0 background, 1 head, 2 torso, 3 legs, 4
shoes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# B = images, H, W = cells, L = predicted parts (background last), T = true classes (background first)


@dataclass(frozen=True, eq=False)
class MaskQuality:
    """Intersection over union, fractions. `per_class` [T] in the order of the truth, NaN for classes not in it."""

    mIoU: float
    per_class: np.ndarray
    foreground_IoU: float


def confusion(parts_BHW: Any, truth_BHW: Any, num_parts: int, num_truth: int) -> np.ndarray:
    """How many cells have each predicted part and each true class; matrices of several batches add up.

    Args:
      parts_BHW: predicted parts, integers in [0, num_parts), background = num_parts - 1.
      truth_BHW: true classes of the same cells, integers in [0, num_truth), background = 0.

    Errors:
      ValueError for different shapes or values out of range.

    Returns:
      int64 [num_parts, num_truth].
    """
    parts, truth = np.asarray(parts_BHW), np.asarray(truth_BHW)
    if parts.shape != truth.shape:
        raise ValueError(f"parts and truth must cover the same cells; got shapes {parts.shape} and {truth.shape}.")
    for values, limit, name in ((parts, num_parts, "parts"), (truth, num_truth, "truth")):
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{name} must be integers; got {values.dtype}.")
        if values.size and (values.min() < 0 or values.max() >= limit):
            raise ValueError(f"{name} must be in [0, {limit}); got {values.min()} .. {values.max()}.")
    cells = parts.astype(np.int64).ravel() * num_truth + truth.astype(np.int64).ravel()
    return np.bincount(cells, minlength=num_parts * num_truth).reshape(num_parts, num_truth)


def mean_iou(confusion_LT: Any, *, merge: Mapping[int, int] | None = None) -> MaskQuality:
    """Mean intersection over union after the best matching of predicted parts to true classes.

    The predicted background is the true background. The other parts are matched one to one to the other classes so that
    the sum of their IoU is greatest (Hungarian method, over the whole data set). A class without a part has IoU 0. The
    mean is over the classes that occur in the truth, background included.

    Args:
      confusion_LT: counts as from `confusion`, at least 2 x 2: rows parts (background last), columns classes
        (background first).
      merge: true classes to count as another, e.g. {4: 3} for shoes as legs; a merged class is then absent.

    Errors:
      ValueError for another shape, negative counts, no cells at all, or a merge that names a class outside [0, T).
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and few processes match masks

    counts_LT = np.array(confusion_LT, dtype=np.int64)
    if counts_LT.ndim != 2 or min(counts_LT.shape) < 2 or counts_LT.min() < 0 or counts_LT.sum() == 0:
        raise ValueError(
            f"confusion must hold counts of at least 2 parts and 2 classes, not all 0; got shape {counts_LT.shape}."
        )
    for source, target in (merge or {}).items():
        if not (0 <= source < counts_LT.shape[1] and 0 <= target < counts_LT.shape[1]) or source == target:
            raise ValueError(f"merge must name two classes in [0, {counts_LT.shape[1]}); got {source}: {target}.")
        counts_LT[:, target] += counts_LT[:, source]
        counts_LT[:, source] = 0

    sizes_L, sizes_T = counts_LT.sum(axis=1), counts_LT.sum(axis=0)
    union_LT = sizes_L[:, None] + sizes_T[None, :] - counts_LT
    iou_LT = counts_LT / np.maximum(union_LT, 1)
    per_class = np.zeros(len(sizes_T))
    per_class[0] = iou_LT[-1, 0]
    parts, classes = linear_sum_assignment(iou_LT[:-1, 1:], maximize=True)
    per_class[classes + 1] = iou_LT[parts, classes + 1]
    per_class[sizes_T == 0] = np.nan
    agreed = counts_LT[:-1, 1:].sum()
    either = counts_LT.sum() - counts_LT[-1, 0]
    return MaskQuality(
        mIoU=float(np.nanmean(per_class)),
        per_class=per_class,
        foreground_IoU=float(agreed / either) if either else 1.0,
    )


def stripes(foreground_BHW: Any, num_parts: int) -> np.ndarray:
    """A baseline without any learning: bands of equal height of the whole map, within the predicted foreground.

    Args:
      foreground_BHW: bool.
      num_parts: parts counting the background, >= 2; row y of H belongs to part y (num_parts - 1) // H.

    Errors:
      ValueError for another shape or type, or num_parts < 2.

    Returns:
      parts_BHW int64, background = num_parts - 1.
    """
    foreground_BHW = np.asarray(foreground_BHW)
    if foreground_BHW.ndim != 3 or foreground_BHW.dtype != np.bool_:
        raise ValueError(
            "foreground must be bool [images, height, width]; "
            f"got {foreground_BHW.dtype} of shape {foreground_BHW.shape}."
        )
    if num_parts < 2:
        raise ValueError(f"num_parts must be at least 2 (one part and the background); got {num_parts}.")
    height = foreground_BHW.shape[1]
    bands_H = np.arange(height, dtype=np.int64) * (num_parts - 1) // max(height, 1)
    return np.where(foreground_BHW, bands_H[None, :, None], num_parts - 1)
