"""The k-reciprocal Jaccard distance, kept sparse.

Z. Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017 (arXiv:1701.08398), in the
variant that the unsupervised trainers share: k1 counts the image itself. Each image is described by weights on its
k-reciprocal neighbours (eq. 7), averaged over its k2 nearest images (eq. 11), and the distance compares two such
descriptions (eq. 10). Images that share no neighbour are at distance 1 and are not stored.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import njit, prange
from scipy import sparse

from reidray.neighbours.reciprocal import expanded_sets, row_ends
from reidray.neighbours.search import nearest
from reidray.neighbours.similarity import similarity, unit_rows

# N = images, D = feature width, K = neighbours (the image itself counts), E = stored entries of a sparse matrix
# ends_N1: row i of a sparse matrix lies at ends[i] .. ends[i + 1]


class _Descriptions(NamedTuple):
    """One sparse row of positive weights per image, columns ascending."""

    ends: np.ndarray
    columns: np.ndarray
    weights: np.ndarray


def jaccard_distances(features_ND: Any, *, k1: int = 30, k2: int = 6, keep: float = 1.0) -> sparse.csr_array:
    """Jaccard distances between all images that have k-reciprocal neighbours in common.

    Args:
      features_ND: unit rows, N >= 1.
      k1: length of the neighbour lists, >= 1, the image itself included. The half lists of the expansion have
        round(k1 / 2) + 1 columns (halves round to even), also counting the image. Fewer when N is smaller.
      k2: how many of the nearest images, itself included, are averaged; >= 1; 1 averages nothing.
      keep: largest distance to store, in (0, 1]; compared in float32. DBSCAN with eps needs only keep >= eps.

    Errors:
      ValueError for k1, k2 < 1, keep outside (0, 1], and as `nearest` for the features.

    Returns:
      float32 [N, N] CSR, symmetric bit for bit, columns ascending: every pair with d < 1 and d <= keep, and the
      diagonal as a stored 0. A pair that is not stored is at distance 1 (or above `keep`). O(N k1) memory besides the
      result.
    """
    _check(k1, k2, keep)
    indices_NK, similarities_NK = nearest(features_ND, k1)
    return jaccard_from_neighbours(indices_NK, similarities_NK, features_ND, k1=k1, k2=k2, keep=keep)


def jaccard_from_neighbours(
    indices_NK: np.ndarray, similarities_NK: np.ndarray, features_ND: Any, *, k1: int, k2: int, keep: float
) -> sparse.csr_array:
    """`jaccard_distances` after the search, for neighbour lists that are already there.

    Args:
      indices_NK, similarities_NK: as returned by `nearest(features_ND, k)` with k >= k1; columns beyond k1 are not
        looked at.
      features_ND: the rows that were searched, for the few similarities which are not in the lists.
      k1, k2, keep: as in `jaccard_distances`.

    Errors:
      as `jaccard_distances`; ValueError when the lists do not belong to the features.
    """
    _check(k1, k2, keep)
    features_ND = unit_rows(features_ND, name="features")
    count = len(features_ND)
    half = min(round(k1 / 2) + 1, k1, count)
    k1 = min(k1, count)
    if indices_NK.shape != similarities_NK.shape or len(indices_NK) != count or indices_NK.shape[1] < k1:
        raise ValueError(
            f"neighbour lists must have {count} rows and at least {k1} columns; got indices {indices_NK.shape} and "
            f"similarities {similarities_NK.shape}."
        )
    if indices_NK.size and (indices_NK.min() < 0 or indices_NK.max() >= count):
        raise ValueError(f"neighbour lists must hold indices in [0, {count}); were they made from other features?")
    neighbours_NK = np.ascontiguousarray(indices_NK[:, :k1], dtype=np.int32)
    known_NK = np.ascontiguousarray(similarities_NK[:, :k1], dtype=np.float32)
    described = _described(neighbours_NK, known_NK, features_ND, half)
    if k2 > 1:
        described = _averaged(described, neighbours_NK[:, :k2])
    return _compared(described, keep)


def _check(k1: int, k2: int, keep: float) -> None:
    if k1 < 1 or k2 < 1:
        raise ValueError(f"k1 and k2 must be at least 1; got k1={k1} and k2={k2}.")
    if not 0.0 < keep <= 1.0:
        raise ValueError(f"keep must be in (0, 1]; got {keep}.")


def _described(neighbours_NK: np.ndarray, known_NK: np.ndarray, features_ND: np.ndarray, half: int) -> _Descriptions:
    """Weights of each image on its expanded k-reciprocal neighbours (eq. 7)."""
    ends_N1, columns_E = expanded_sets(neighbours_NK, half)
    weights_E = np.empty(ends_N1[-1], np.float32)
    _weigh(features_ND, neighbours_NK, known_NK, ends_N1, columns_E, weights_E)
    return _Descriptions(ends_N1, columns_E, weights_E)


def _averaged(described: _Descriptions, nearest_NK: np.ndarray) -> _Descriptions:
    """The mean description of each image's nearest images (eq. 11), summed in float32 from the nearest on."""
    count = len(nearest_NK)
    workers = min(numba.get_num_threads(), count)
    counts_N = np.zeros(count, np.int64)
    _average(
        nearest_NK, *described, workers, counts_N, np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32)
    )
    ends_N1 = row_ends(counts_N)
    columns_E = np.empty(ends_N1[-1], np.int32)
    weights_E = np.empty(ends_N1[-1], np.float32)
    _average(nearest_NK, *described, workers, counts_N, ends_N1, columns_E, weights_E)
    return _Descriptions(ends_N1, columns_E, weights_E)


def _compared(described: _Descriptions, keep: float) -> sparse.csr_array:
    """Distances (eq. 10) between all images whose descriptions share a column; d = 1 - s / (2 - s), s summed by
    ascending column."""
    ends_N1, columns_E, weights_E = described
    count = len(ends_N1) - 1
    workers = min(numba.get_num_threads(), count)
    by_column = sparse.csr_array((weights_E, columns_E, ends_N1), shape=(count, count)).tocsc()
    holders = (by_column.indptr.astype(np.int64), by_column.indices.astype(np.int32), by_column.data)
    furthest = np.float32(keep)
    counts_N = np.zeros(count, np.int64)
    _compare(
        *described,
        *holders,
        furthest,
        workers,
        counts_N,
        np.empty(0, np.int64),
        np.empty(0, np.int32),
        np.empty(0, np.float32),
    )
    rows_N1 = row_ends(counts_N)
    indices = np.empty(rows_N1[-1], np.int32)
    distances = np.empty(rows_N1[-1], np.float32)
    _compare(*described, *holders, furthest, workers, counts_N, rows_N1, indices, distances)
    index_type = np.int32 if rows_N1[-1] <= np.iinfo(np.int32).max else np.int64
    return sparse.csr_array((distances, indices.astype(index_type), rows_N1.astype(index_type)), shape=(count, count))


# Kernels that write rows of unknown length run twice, as in `reciprocal`: first without row ends, only counting, then
# filling.


@njit(cache=True, nogil=True)
def _look_up(neighbours_K: Any, known_K: Any, index: Any) -> Any:
    """The similarity stored for `index` in one neighbour list, or NaN."""
    for b in range(neighbours_K.shape[0]):
        if neighbours_K[b] == index:
            return known_K[b]
    return np.float32(np.nan)


@njit(cache=True, nogil=True, parallel=True)
def _weigh(features_ND: Any, neighbours_NK: Any, known_NK: Any, ends_N1: Any, columns_E: Any, weights_E: Any) -> None:
    """Eq. 7: softmax of -|x_i - x_j|^2 = -(2 - 2 s) over the columns of each row; float64 inside."""
    for i in prange(features_ND.shape[0]):
        start, stop = ends_N1[i], ends_N1[i + 1]
        closest = np.float32(-np.inf)
        for e in range(start, stop):
            j = columns_E[e]
            value = _look_up(neighbours_NK[i], known_NK[i], j)
            if np.isnan(value):
                value = _look_up(neighbours_NK[j], known_NK[j], i)
            if np.isnan(value):
                value = similarity(features_ND[i], features_ND[j])
            weights_E[e] = value
            closest = max(closest, value)
        total = 0.0
        for e in range(start, stop):
            total += math.exp(2.0 * (np.float64(weights_E[e]) - np.float64(closest)))
        for e in range(start, stop):
            weights_E[e] = math.exp(2.0 * (np.float64(weights_E[e]) - np.float64(closest))) / total


@njit(cache=True, nogil=True, parallel=True)
def _average(
    nearest_NK: Any,
    ends_N1: Any,
    columns_E: Any,
    weights_E: Any,
    workers: int,
    counts_N: Any,
    new_ends_N1: Any,
    new_columns_E: Any,
    new_weights_E: Any,
) -> None:
    """Eq. 11: the mean of the rows of the nearest images."""
    count, rows = nearest_NK.shape
    filling = new_ends_N1.shape[0] > 0
    for worker in prange(workers):
        seen = np.zeros(count, np.int64)  # i + 1: this column belongs to row i
        total = np.zeros(count, np.float32)
        found = np.empty(count, np.int32)
        for i in range(worker, count, workers):
            size = 0
            for a in range(rows):
                j = nearest_NK[i, a]
                for e in range(ends_N1[j], ends_N1[j + 1]):
                    column = columns_E[e]
                    if seen[column] != i + 1:
                        seen[column] = i + 1
                        total[column] = 0.0
                        found[size] = column
                        size += 1
                    total[column] += weights_E[e]
            if filling:
                start = new_ends_N1[i]
                ascending = np.sort(found[:size])
                for e in range(size):
                    new_columns_E[start + e] = ascending[e]
                    new_weights_E[start + e] = total[ascending[e]] / np.float32(rows)
            else:
                counts_N[i] = size


@njit(cache=True, nogil=True, parallel=True)
def _compare(
    ends_N1: Any,
    columns_E: Any,
    weights_E: Any,
    holder_ends_N1: Any,
    holders_E: Any,
    holder_weights_E: Any,
    furthest: Any,
    workers: int,
    counts_N: Any,
    rows_N1: Any,
    indices: Any,
    distances: Any,
) -> None:
    """Eq. 10 for each image and all images that hold one of its columns."""
    count = ends_N1.shape[0] - 1
    filling = rows_N1.shape[0] > 0
    one, two, zero = np.float32(1.0), np.float32(2.0), np.float32(0.0)
    for worker in prange(workers):
        overlap = np.zeros(count, np.float32)  # weights are positive: 0 means not met yet
        found = np.empty(count + 1, np.int32)
        for i in range(worker, count, workers):
            found[0] = i
            size = 1
            for e in range(ends_N1[i], ends_N1[i + 1]):
                column = columns_E[e]
                for h in range(holder_ends_N1[column], holder_ends_N1[column + 1]):
                    j = holders_E[h]
                    if overlap[j] == zero and j != i:
                        found[size] = j
                        size += 1
                    overlap[j] += min(weights_E[e], holder_weights_E[h])
            kept = 0
            for a in range(size):
                j = found[a]
                distance = max(zero, one - overlap[j] / (two - overlap[j]))
                if j == i or (distance < one and distance <= furthest):
                    overlap[j] = distance
                    found[kept] = j
                    kept += 1
                else:
                    overlap[j] = zero
            if filling:
                start = rows_N1[i]
                ascending = np.sort(found[:kept])
                for e in range(kept):
                    j = ascending[e]
                    indices[start + e] = j
                    distances[start + e] = zero if j == i else overlap[j]
            else:
                counts_N[i] = kept
            for a in range(kept):
                overlap[found[a]] = zero
