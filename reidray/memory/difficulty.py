"""How well a part of an image agrees with the whole about who is near: the difficulty score of SCWM."""

from typing import Any

import numpy as np
from numba import njit, prange

# N = images, K = columns of a neighbour list (the two lists may differ in length)


def difficulty(global_neighbours_NK: Any, part_neighbours_NK: Any) -> np.ndarray:
    """Share of common neighbours in the global space and in one part's space: |R_g ∩ R_p| / |R_g ∪ R_p|.

    Eq. 7 of SCWM. High where the part is discriminative, low where it is hard (occluded, background). The image itself
    is not its own neighbour: row i leaves out index i, wherever it stands in a list (with duplicates it need not stand
    first). For the paper's k neighbours pass the k + 1 columns of `reidray.neighbours.nearest`; an image with more than
    k duplicates of lower index is not in its own list, which then counts with k + 1 entries.

    Args:
      global_neighbours_NK, part_neighbours_NK: indices in [0, N) of the neighbours, all images of the training set in
        both; -1 where a list is shorter. Order and repetition do not matter.

    Errors:
      ValueError for lists of different images, no integers, or indices outside [-1, N).

    Returns:
      alpha_N float32 in [0, 1]; 0 where both lists are empty.
    """
    global_NK = _checked(global_neighbours_NK, "global")
    part_NK = _checked(part_neighbours_NK, "part")
    if len(global_NK) != len(part_NK):
        raise ValueError(
            "global and part neighbours must be those of the same images; "
            f"got {len(global_NK)} and {len(part_NK)} rows."
        )
    return _shared(global_NK, part_NK)


def _checked(neighbours_NK: Any, name: str) -> np.ndarray:
    neighbours_NK = np.asarray(neighbours_NK)
    if neighbours_NK.ndim != 2 or not np.issubdtype(neighbours_NK.dtype, np.integer):
        raise ValueError(
            f"{name} neighbours must be a matrix of integers; got {neighbours_NK.dtype} of shape {neighbours_NK.shape}."
        )
    count = len(neighbours_NK)
    if neighbours_NK.size and (neighbours_NK.min() < -1 or neighbours_NK.max() >= count):
        raise ValueError(f"{name} neighbours must be indices in [0, {count}), or -1 for none; got others.")
    return np.ascontiguousarray(neighbours_NK, dtype=np.int64)


@njit(cache=True, nogil=True)
def _members(neighbours_K: Any, itself: int) -> Any:
    """The set of a list, ascending, without padding and without the image itself."""
    ascending_K = np.sort(neighbours_K)
    size = 0
    for k in range(ascending_K.shape[0]):
        index = ascending_K[k]
        if index >= 0 and index != itself and (size == 0 or ascending_K[size - 1] != index):
            ascending_K[size] = index
            size += 1
    return ascending_K[:size]


@njit(cache=True, nogil=True, parallel=True)
def _shared(global_NK: Any, part_NK: Any) -> Any:
    alpha_N = np.zeros(global_NK.shape[0], np.float32)
    for i in prange(global_NK.shape[0]):
        of_global = _members(global_NK[i], i)
        of_part = _members(part_NK[i], i)
        common = g = p = 0
        while g < of_global.shape[0] and p < of_part.shape[0]:
            if of_global[g] == of_part[p]:
                common += 1
                g += 1
                p += 1
            elif of_global[g] < of_part[p]:
                g += 1
            else:
                p += 1
        together = of_global.shape[0] + of_part.shape[0] - common
        if together > 0:
            alpha_N[i] = common / together
    return alpha_N
