"""Neighbours that choose each other: eq. 2 and 3 of k-reciprocal encoding (Zhong et al., CVPR 2017,
arXiv:1701.08398)."""

from typing import Any

import numba
import numpy as np
from numba import njit, prange

# N = images, K = neighbours (the image itself counts), E = stored entries of sparse rows
# ends_N1: row i lies at ends[i] .. ends[i + 1]


def expanded_sets(neighbours_NK: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray]:
    """The expanded k-reciprocal neighbours of each image.

    R(i, k) holds those of the first k neighbours of i that have i among their own first k (eq. 2). To R(i, K) are added
    the sets R(j, half) of those of its members j that have more than two thirds of R(j, half) in R(i, K) (eq. 3).

    Args:
      neighbours_NK: int32 in [0, N), nearest first, the image itself counted.
      half: columns of the half lists, in [1, K].

    Returns:
      ends_N1 int64 and columns_E int32, columns ascending; a row is empty when no neighbour is reciprocal.
    """
    workers = min(numba.get_num_threads(), len(neighbours_NK))
    members_NK, sizes_N = _reciprocal(neighbours_NK, neighbours_NK.shape[1])
    half_NK, half_sizes_N = _reciprocal(neighbours_NK, half)
    counts_N = np.zeros(len(neighbours_NK), np.int64)
    no_ends, no_columns = np.empty(0, np.int64), np.empty(0, np.int32)
    _expand(members_NK, sizes_N, half_NK, half_sizes_N, workers, counts_N, no_ends, no_columns)
    ends_N1 = row_ends(counts_N)
    columns_E = np.empty(ends_N1[-1], np.int32)
    _expand(members_NK, sizes_N, half_NK, half_sizes_N, workers, counts_N, ends_N1, columns_E)
    return ends_N1, columns_E


def row_ends(counts_N: np.ndarray) -> np.ndarray:
    """Where each row begins and ends when rows of these lengths stand one after the other."""
    ends_N1 = np.zeros(len(counts_N) + 1, np.int64)
    np.cumsum(counts_N, out=ends_N1[1:])
    return ends_N1


# A kernel that writes rows of unknown length runs twice: first without `ends_N1`, only counting, then filling. A worker
# takes every `workers`-th row and owns its scratch memory, so that no row depends on the number of threads.


@njit(cache=True, nogil=True, parallel=True)
def _reciprocal(neighbours_NK: Any, columns: int) -> Any:
    """Eq. 2: those of the first `columns` neighbours that have the image among their own first `columns`; and how
    many."""
    count = neighbours_NK.shape[0]
    members_NK = np.empty((count, columns), np.int32)
    sizes_N = np.zeros(count, np.int32)
    for i in prange(count):
        for a in range(columns):
            j = neighbours_NK[i, a]
            for b in range(columns):
                if neighbours_NK[j, b] == i:
                    members_NK[i, sizes_N[i]] = j
                    sizes_N[i] += 1
                    break
    return members_NK, sizes_N


@njit(cache=True, nogil=True, parallel=True)
def _expand(
    members_NK: Any,
    sizes_N: Any,
    half_NK: Any,
    half_sizes_N: Any,
    workers: int,
    counts_N: Any,
    ends_N1: Any,
    columns_E: Any,
) -> None:
    """Eq. 3: adds the half list of each member that has more than two thirds of it among the members."""
    count = members_NK.shape[0]
    filling = ends_N1.shape[0] > 0
    for worker in prange(workers):
        seen = np.zeros(count, np.int64)  # 2 i + 1: member of i, 2 i + 2: added to i
        found = np.empty(members_NK.shape[1] * (1 + half_NK.shape[1]), np.int32)
        for i in range(worker, count, workers):
            size = 0
            for a in range(sizes_N[i]):
                found[size] = members_NK[i, a]
                seen[found[size]] = 2 * i + 1
                size += 1
            for a in range(sizes_N[i]):
                member = members_NK[i, a]
                common = 0
                for b in range(half_sizes_N[member]):
                    if seen[half_NK[member, b]] == 2 * i + 1:
                        common += 1
                if 3 * common > 2 * half_sizes_N[member]:
                    for b in range(half_sizes_N[member]):
                        j = half_NK[member, b]
                        if seen[j] <= 2 * i:
                            seen[j] = 2 * i + 2
                            found[size] = j
                            size += 1
            if filling:
                columns_E[ends_N1[i] : ends_N1[i + 1]] = np.sort(found[:size])
            else:
                counts_N[i] = size
