"""Compares an exported file with PyTorch, image by image."""

# B = images, D = feature width

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reidray.arrays import Array, Floats

LEAST_COSINE = {"float32": 0.9999, "float16": 0.999}
"""float32 runs the same operations in another order: errors of 1e-6. float16 rounds every weight and every map of the
trunk by up to 2^-11 = 5e-4; after tens of layers that is at most a few percent of a feature's length, and a relative
error e lowers the cosine by e^2 / 2: .999 stands for e = 4.5 %."""

_BATCHES = (1, 32, 3)  # again and again: the batch must be free


@dataclass(frozen=True)
class Agreement:
    """How far a file's features are from PyTorch's.

    images: how many were compared. least_cosine: between the two features of an image, the lowest of all images.
    largest_difference: between two numbers of a feature of unit length.
    """

    images: int
    least_cosine: float
    largest_difference: float


def compared(run: Callable[[Array], Array], given_B: Array, expected_BD: Floats, *, precision: str) -> Agreement:
    """Runs the file on all images, in batches of several sizes.

    Args:
      run: images as the file takes them -> features.
      given_B: all images.
      expected_BD: PyTorch's features.
      precision: of the file.

    Raises:
      ValueError: another width, values that are not finite, a lower cosine than LEAST_COSINE, or no unit length.
    """
    found: list[Array] = []
    start = 0
    while start < len(given_B):
        end = min(start + _BATCHES[len(found) % len(_BATCHES)], len(given_B))
        found.append(run(given_B[start:end]))
        start = end
    features_BD = np.concatenate(found)
    if features_BD.shape != expected_BD.shape or features_BD.dtype != np.float32:
        raise ValueError(
            f"the exported file gives features {features_BD.dtype} {features_BD.shape} and PyTorch gives "
            f"{expected_BD.dtype} {expected_BD.shape}: nothing was written"
        )
    cosines_B, differences_BD = (features_BD * expected_BD).sum(1), np.abs(features_BD - expected_BD)
    least, bound = float(cosines_B.min()), LEAST_COSINE[precision]
    lengths_B = np.linalg.norm(features_BD, axis=1)
    if not (least >= bound and np.abs(lengths_B - 1).max() < 1e-3):  # also where there are no numbers
        advice = ": take --precision float32" if precision == "float16" else ""
        raise ValueError(
            f"the exported file does not give PyTorch's features: the lowest cosine of {len(cosines_B)} images is "
            f"{least:.6f} and must be {bound} at least, lengths are {lengths_B.min():.4f} to {lengths_B.max():.4f} and "
            f"must be 1; nothing was written{advice}"
        )
    return Agreement(len(features_BD), least, float(differences_BD.max()))
