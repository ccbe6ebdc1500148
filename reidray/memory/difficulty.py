"""The difficulty score of SCWM: how far the neighbours by a part agree with the neighbours by the whole image."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from reidray.arrays import Array, Floats
from reidray.compiled import njit

# N = images, L = parts, K = columns of a neighbour list (the lists may differ in length)


def difficulty(global_neighbours_NK: Any, part_neighbours_LNK: Iterable[Any]) -> Floats:
    """Share of common neighbours in the global space and in each part's space: |R_g ∩ R_p| / |R_g ∪ R_p|.

    Eq. 7 of SCWM. High where the part is discriminative, low where it is hard (occluded, background). The image itself
    is not its own neighbour: row i leaves out index i, wherever it stands in a list (with duplicates it need not stand
    first). For the paper's k neighbours pass the k + 1 columns of `reidray.neighbours.nearest`; an image with more than
    k duplicates of lower index is not in its own list, which then counts with k + 1 entries.

    Args:
      global_neighbours_NK: indices in [0, N) of the neighbours, all images of the training set; -1 where a list is
        shorter. Order and repetition do not matter.
      part_neighbours_LNK: the same for each part: one array, a sequence of matrices, or an iterator that searches part
        after part; only one part's lists are held at a time.

    Errors:
      ValueError for lists of different images, no integers, or indices outside [-1, N).

    Returns:
      alpha_NL float32 in [0, 1]; 0 where both lists are empty.
    """
    global_NK = _lists(global_neighbours_NK, "global")
    if _outside(global_NK):
        raise ValueError(_wrong_indices(len(global_NK), "global"))
    alphas_LN = []
    for part, part_neighbours_NK in enumerate(part_neighbours_LNK):
        part_NK = _lists(part_neighbours_NK, f"part {part}")
        if len(global_NK) != len(part_NK):
            raise ValueError(
                f"global and part neighbours must be those of the same images; got {len(global_NK)} rows, and "
                f"{len(part_NK)} in part {part}."
            )
        if _outside(part_NK):
            raise ValueError(_wrong_indices(len(global_NK), f"part {part}"))
        alphas_LN.append(_shared(global_NK, part_NK))
    return np.stack(alphas_LN, axis=1) if alphas_LN else np.empty((len(global_NK), 0), np.float32)


def _lists(neighbours_NK: Any, name: str) -> Array:
    neighbours_NK = np.asarray(neighbours_NK)
    if neighbours_NK.ndim != 2 or not np.issubdtype(neighbours_NK.dtype, np.integer):
        raise ValueError(
            f"{name} neighbours must be a matrix of integers; got {neighbours_NK.dtype} of shape {neighbours_NK.shape}."
        )
    return neighbours_NK


def _wrong_indices(count: int, name: str) -> str:
    return f"{name} neighbours must be indices in [0, {count}), or -1 for none; got others."


@njit(cache=True, nogil=True)
def _outside(neighbours_NK: Any) -> bool:
    """Whether an index is outside [-1, N)."""
    count = neighbours_NK.shape[0]
    outside = False
    for i in range(count):
        for k in range(neighbours_NK.shape[1]):
            outside |= neighbours_NK[i, k] < -1
            outside |= neighbours_NK[i, k] >= count
    return outside


@njit(cache=True, nogil=True)
def _shared(global_NK: Any, part_NK: Any) -> Any:
    count = global_NK.shape[0]
    alpha_N = np.zeros(count, np.float32)
    met_N = np.zeros(count + 1, np.uint8)  # 1: in the global list, 2: in the part's; -1 marks the entry past the end
    for i in range(count):
        in_global = in_part_only = common = 0
        met_N[i] = 4  # the image itself: neither
        met_N[count] = 4
        for k in range(global_NK.shape[1]):
            j = global_NK[i, k]
            in_global += met_N[j] == 0
            met_N[j] |= 1
        for k in range(part_NK.shape[1]):
            j = part_NK[i, k]
            in_part_only += met_N[j] == 0
            common += met_N[j] == 1
            met_N[j] |= 2
        for k in range(global_NK.shape[1]):
            met_N[global_NK[i, k]] = 0
        for k in range(part_NK.shape[1]):
            met_N[part_NK[i, k]] = 0
        met_N[i] = 0
        if in_global + in_part_only > 0:
            alpha_N[i] = common / (in_global + in_part_only)
    return alpha_N
