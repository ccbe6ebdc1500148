"""Agglomerative clustering of a dense distance matrix by nearest-neighbour chains, cut at an exact number of clusters.

The chain algorithm (Müllner, "Modern hierarchical, agglomerative clustering algorithms", 2011, arXiv:1109.2378, Sec.
3.1) is O(N²) for the linkages offered here. Ties go as in `scipy.cluster.hierarchy`: the previous element of the chain
first, then the lowest index (a distance must be strictly smaller to be preferred); merges of one height stay in the
order in which they were found.

Letters: N points, E = N - 1 merges.
"""

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from reidray.arrays import Array, Ints

LINKAGES = {"average": 0, "complete": 1, "single": 2}
_COMPLETE, _SINGLE = 1, 2


def agglomerate(distances_NN: ArrayLike, num_clusters: int, *, linkage: str) -> Ints:
    """Join the nearest clusters until min(num_clusters, N) are left.

    Equal to `scipy.cluster.hierarchy.linkage` cut by `fcluster(..., "maxclust")` where no two merge heights are equal;
    where they are, `fcluster` may return fewer clusters, this function never does.

    Args:
        distances_NN: finite symmetric distances [N, N], N >= 0; the diagonal is not read, the matrix is not modified.
        num_clusters: at least 1.
        linkage: "average" (UPGMA), "complete" or "single".

    Returns:
        int64 [N], clusters numbered 0, 1, ... by their lowest point.

    Raises:
        ValueError: a matrix that is not square, symmetric and finite, no clusters asked for, or an unknown linkage.
    """
    distances_NN = np.array(distances_NN, dtype=np.float64)
    if distances_NN.ndim != 2 or distances_NN.shape[0] != distances_NN.shape[1]:
        raise ValueError(
            f"expected a square distance matrix, got shape {distances_NN.shape}; pass the full [N, N] matrix."
        )
    np.fill_diagonal(distances_NN, 0.0)
    if not np.isfinite(distances_NN).all():
        raise ValueError(
            "expected finite distances, got NaN or infinity; give forbidden pairs a large finite distance."
        )
    if not np.array_equal(distances_NN, distances_NN.T):
        raise ValueError("expected a symmetric distance matrix, got an asymmetric one; pass (D + D.T) / 2.")
    if num_clusters < 1:
        raise ValueError(f"expected num_clusters >= 1, got {num_clusters}; ask for at least one cluster.")
    return join_nearest(distances_NN, num_clusters, linkage_code(linkage))


def linkage_code(linkage: str) -> int:
    """The number by which the compiled functions know a linkage; ValueError for an unknown name."""
    if linkage not in LINKAGES:
        raise ValueError(f"expected linkage one of {', '.join(LINKAGES)}, got {linkage!r}; correct the setting.")
    return LINKAGES[linkage]


@njit(cache=True, nogil=True)
def join_nearest(distances_NN: Array, num_clusters: int, linkage: int) -> Array:
    """Compiled core of `agglomerate`; overwrites the distances."""
    n = distances_NN.shape[0]
    if n <= num_clusters:
        return np.arange(n)
    left_E, right_E, height_E = _merges(distances_NN, linkage)
    return _cut(left_E, right_E, height_E, num_clusters)


@njit(cache=True, nogil=True)
def _merges(distances_NN: Array, linkage: int) -> tuple[Array, Array, Array]:
    """All N - 1 merges in the order of the chain: a cluster is known by one of its points, the right one lives on."""
    n = distances_NN.shape[0]
    left_E, right_E, height_E = np.empty(n - 1, np.int64), np.empty(n - 1, np.int64), np.empty(n - 1)
    size_N = np.ones(n, np.int64)
    alive_N = np.arange(n)  # ascending; the first num_alive entries count
    num_alive = n
    chain_N = np.empty(n, np.int64)
    length = 0
    for merge in range(n - 1):
        if length == 0:
            chain_N[0] = alive_N[0]
            length = 1
        while True:  # follow nearest neighbours until two clusters are each other's
            x = chain_N[length - 1]
            y, nearest = -1, np.inf
            if length > 1:
                y = chain_N[length - 2]
                nearest = distances_NN[x, y]
            for t in range(num_alive):
                i = alive_N[t]
                if i != x and distances_NN[x, i] < nearest:
                    y, nearest = i, distances_NN[x, i]
            if length > 1 and y == chain_N[length - 2]:
                break
            chain_N[length] = y
            length += 1
        length -= 2

        if x > y:
            x, y = y, x
        left_E[merge], right_E[merge], height_E[merge] = x, y, nearest
        kept = 0
        for t in range(num_alive):
            if alive_N[t] != x:
                alive_N[kept] = alive_N[t]
                kept += 1
        num_alive = kept
        size_x, size_y = size_N[x], size_N[y]
        size_N[y] = size_x + size_y
        for t in range(num_alive):
            i = alive_N[t]
            if i != y:
                to_x, to_y = distances_NN[x, i], distances_NN[y, i]
                if linkage == _COMPLETE:
                    joined = max(to_x, to_y)
                elif linkage == _SINGLE:
                    joined = min(to_x, to_y)
                else:
                    joined = (size_x * to_x + size_y * to_y) / (size_x + size_y)
                distances_NN[y, i] = joined
                distances_NN[i, y] = joined
    return left_E, right_E, height_E


@njit(cache=True, nogil=True)
def _cut(left_E: Array, right_E: Array, height_E: Array, num_clusters: int) -> Array:
    """Clusters after the N - num_clusters lowest merges, numbered by their lowest point."""
    n = len(height_E) + 1
    parent_N = np.arange(n)
    order_E = np.argsort(height_E, kind="mergesort")
    for t in range(n - num_clusters):
        parent_N[_root(parent_N, left_E[order_E[t]])] = _root(parent_N, right_E[order_E[t]])
    number_N = np.full(n, -1, np.int64)
    labels_N = np.empty(n, np.int64)
    found = 0
    for i in range(n):
        root = _root(parent_N, i)
        if number_N[root] < 0:
            number_N[root] = found
            found += 1
        labels_N[i] = number_N[root]
    return labels_N


@njit(cache=True, nogil=True)
def _root(parent_N: Array, i: int) -> int:
    while parent_N[i] != i:
        parent_N[i] = parent_N[parent_N[i]]
        i = parent_N[i]
    return i
