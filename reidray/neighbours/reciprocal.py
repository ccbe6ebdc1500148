"""k-reciprocal neighbours: eq. 2 of k-reciprocal encoding (Zhong et al., CVPR 2017, arXiv:1701.08398)."""

from typing import Any, NamedTuple

import numpy as np

from reidray.arrays import Array
from reidray.compiled import njit
from reidray.neighbours.sparse_rows import in_pieces

# N = images, K = neighbours (the image itself is one of them), H = columns of the half lists, H <= K


class Reciprocal(NamedTuple):
    """R(i, K) and R(i, H): those of the first K (or H) neighbours of i that have i among their own first K (or H).

    Attributes:
      members_NK, halves_NH: int32, in the order of the neighbour list; row i is filled up to the size of its set.
      sizes_N, half_sizes_N: int32.
    """

    members_NK: Array
    sizes_N: Array
    halves_NH: Array
    half_sizes_N: Array


def reciprocal_sets(neighbours_NK: Array, half: int) -> Reciprocal:
    """Both sets of every image (eq. 2).

    Args:
      neighbours_NK: int32 in [0, N), nearest first.
      half: H, in [1, K].
    """
    count, columns = neighbours_NK.shape
    sets = Reciprocal(
        np.empty((count, columns), np.int32),
        np.empty(count, np.int32),
        np.empty((count, half), np.int32),
        np.empty(count, np.int32),
    )
    in_pieces(_choose_each_other, count, neighbours_NK, *sets)
    return sets


@njit(cache=True, nogil=True)
def _choose_each_other(
    first: int, last: int, neighbours_NK: Any, members_NK: Any, sizes_N: Any, halves_NH: Any, half_sizes_N: Any
) -> None:
    half = halves_NH.shape[1]
    for i in range(first, last):
        size = half_size = 0
        for a in range(neighbours_NK.shape[1]):
            j = neighbours_NK[i, a]
            for b in range(neighbours_NK.shape[1]):
                if neighbours_NK[j, b] == i:
                    members_NK[i, size] = j
                    size += 1
                    if a < half and b < half:
                        halves_NH[i, half_size] = j
                        half_size += 1
                    break
        sizes_N[i] = size
        half_sizes_N[i] = half_size
