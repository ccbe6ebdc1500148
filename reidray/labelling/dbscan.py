"""DBSCAN on a sparse matrix of distances.

M. Ester et al., "A Density-Based Algorithm for Discovering Clusters in Large Spatial Databases with Noise", KDD 1996.
Equal, label by label, to scikit-learn's DBSCAN(metric="precomputed") on the same sparse matrix, in time linear in the
stored entries.
"""

from typing import Any

import numpy as np
from scipy import sparse

from reidray.compiled import njit

# N = images, E = stored entries; ends_N1: row i lies at ends[i] .. ends[i + 1]

_SOUND, _UNSORTED, _NO_DISTANCE = 0, 1, 2


def dbscan(distances_NN: Any, *, eps: float, min_samples: int) -> np.ndarray:
    """Clusters of density-connected images.

    An image with at least `min_samples` images within `eps` (d <= eps) is a core point; a cluster is a set of core
    points that reach each other through core points, and their neighbours. The image itself counts as one of its
    neighbours: a diagonal entry that is not stored is 0 (as scikit-learn has it), and a stored one must be <= eps like
    any other. Pairs that are not stored are no neighbours; explicit zeros are. Clusters are numbered by their
    lowest-index core point; a border point goes to the lowest-numbered cluster that has a core point next to it. If the
    matrix is not symmetric, row i says whom i reaches.

    Args:
      distances_NN: square SciPy sparse matrix of floats >= 0, e.g. from `jaccard_distances`. Compared with eps in its
        own precision (float32 for ours).
      eps: in (0, 1). From 1 on, pairs that are not stored (they are at distance 1) would be neighbours.
      min_samples: >= 1.

    Errors:
      ValueError for eps, min_samples outside their range, a matrix that is not sparse, square and floating, stores an
      entry twice, or holds a distance that is NaN, infinite or negative (naming the first such row).

    Returns:
      labels_N int64, -1 for noise; no cluster at all is a valid answer.
    """
    if not 0.0 < eps < 1.0:
        raise ValueError(f"eps must be in (0, 1), because pairs that are not stored are at distance 1; got {eps}.")
    if min_samples < 1:
        raise ValueError(f"min_samples must be at least 1; got {min_samples}.")
    rows_NN: Any = distances_NN
    if not sparse.issparse(rows_NN):
        raise ValueError(f"distances must be a SciPy sparse matrix; got {type(distances_NN).__name__}.")
    rows_NN = distances_NN.tocsr()
    if rows_NN.ndim != 2 or rows_NN.shape[0] != rows_NN.shape[1] or not np.issubdtype(rows_NN.dtype, np.floating):
        raise ValueError(f"distances must be a square matrix of floats; got {rows_NN.dtype} of shape {rows_NN.shape}.")
    limit = rows_NN.dtype.type(eps)
    core_N, fault, row = _core_points(rows_NN.indptr, rows_NN.indices, rows_NN.data, limit, min_samples)
    if fault == _UNSORTED:
        rows_NN = rows_NN.sorted_indices()
        core_N, fault, row = _core_points(rows_NN.indptr, rows_NN.indices, rows_NN.data, limit, min_samples)
    if fault == _UNSORTED:
        raise ValueError(
            f"distances must store each pair once; row {row} stores a pair several times (sum_duplicates?)."
        )
    if fault == _NO_DISTANCE:
        of_row = rows_NN.data[rows_NN.indptr[row] : rows_NN.indptr[row + 1]]
        value = of_row[~((of_row >= 0) & (of_row < np.inf))][0]
        raise ValueError(f"distances must be finite and not negative; row {row} holds {value}.")
    return _label(rows_NN.indptr, rows_NN.indices, rows_NN.data, limit, core_N)


@njit(cache=True, nogil=True)
def _core_points(ends_N1: Any, columns_E: Any, distances_E: Any, eps: Any, min_samples: int) -> Any:
    """Which images are core points; and, in the same pass, the first fault of the matrix and its row."""
    core_N = np.empty(ends_N1.shape[0] - 1, np.bool_)
    for i in range(core_N.shape[0]):
        neighbours = 1  # itself, if its distance to itself is not stored
        before = np.int64(-1)
        for e in range(ends_N1[i], ends_N1[i + 1]):
            column = np.int64(columns_E[e])
            if column <= before:
                return core_N, _UNSORTED, i
            before = column
            if not 0 <= distances_E[e] < np.inf:
                return core_N, _NO_DISTANCE, i
            if column == i:
                neighbours -= 1
            if distances_E[e] <= eps:
                neighbours += 1
        core_N[i] = neighbours >= min_samples
    return core_N, _SOUND, -1


@njit(cache=True, nogil=True)
def _label(ends_N1: Any, columns_E: Any, distances_E: Any, eps: Any, core_N: Any) -> Any:
    """Floods one cluster at a time, from its lowest-index core point."""
    labels_N = np.full(core_N.shape[0], -1, np.int64)
    waiting = np.empty(core_N.shape[0], np.int64)
    clusters = 0
    for first in range(core_N.shape[0]):
        if labels_N[first] != -1 or not core_N[first]:
            continue
        labels_N[first] = clusters
        waiting[0] = first
        size = 1
        while size > 0:
            size -= 1
            i = waiting[size]
            for e in range(ends_N1[i], ends_N1[i + 1]):
                j = columns_E[e]
                if labels_N[j] == -1 and distances_E[e] <= eps:  # most are labelled: their distance is not read
                    labels_N[j] = clusters
                    if core_N[j]:
                        waiting[size] = j
                        size += 1
        clusters += 1
    return labels_N
