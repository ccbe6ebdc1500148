"""Agglomerative clustering of a dense distance matrix by nearest-neighbour chains, cut at an exact number of clusters.

The chain algorithm (Müllner, "Modern hierarchical, agglomerative clustering algorithms", 2011, arXiv:1109.2378, Sec.
3.1) is O(N²) for the linkages offered here. Ties go as in `scipy.cluster.hierarchy`: the previous element of the chain
first, then the lowest index (a distance must be strictly smaller to be preferred); merges of one height stay in the
order in which they were found.

Distances are not negative, so they are ordered as their bits are as integers: the minimum of integers is compiled to
vector instructions, that of floating-point numbers, because of NaN, is not.

Letters: N points, E = N - 1 merges, S = places of a row of distances: N, rounded up.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from reidray.arrays import Array, Doubles, Ints
from reidray.compiled import njit

LINKAGES = {"average": 0, "complete": 1, "single": 2}
_COMPLETE, _SINGLE = 1, 2
_MOST = 1e300  # a mean of such distances does not overflow
_GONE = 2**63 - 1  # above the bits of every distance, infinity included
_STEP = 16  # rows are searched in steps of so many places, without a remainder
_LINE = 8  # doubles of a cache line


class Tree(NamedTuple):
    """Room for the clustering of at most N points, used again and again.

    distances_NS: what is clustered, overwritten; never negative or NaN, not even between rows. bits_NS: the same memory
    as integers. gone_S: 0 for clusters that live. labels_N: the result.
    """

    distances_NS: Doubles
    bits_NS: Ints
    gone_S: Ints
    chain_N: Ints
    size_N: Ints
    left_E: Ints
    right_E: Ints
    height_E: Doubles
    labels_N: Ints


def agglomerate(distances_NN: ArrayLike, num_clusters: int, *, linkage: str) -> Ints:
    """Join the nearest clusters until min(num_clusters, N) are left.

    Equal to `scipy.cluster.hierarchy.linkage` cut by `fcluster(..., "maxclust")` where no two merge heights are equal;
    where they are, `fcluster` may return fewer clusters, this function never does.

    Args:
        distances_NN: symmetric distances [N, N] from 0 to 1e300, N >= 0; the diagonal is not read, the matrix is not
            modified.
        num_clusters: at least 1.
        linkage: "average" (UPGMA), "complete" or "single".

    Returns:
        int64 [N], clusters numbered 0, 1, ... by their lowest point.

    Raises:
        ValueError: a matrix that is not square and symmetric, or outside of 0 .. 1e300 somewhere, no clusters asked
            for, or an unknown linkage.
    """
    distances_NN = np.array(distances_NN, dtype=np.float64)
    if distances_NN.ndim != 2 or distances_NN.shape[0] != distances_NN.shape[1]:
        raise ValueError(
            f"expected a square distance matrix, got shape {distances_NN.shape}; pass the full [N, N] matrix."
        )
    np.fill_diagonal(distances_NN, 0.0)
    if not (distances_NN <= _MOST).all():
        raise ValueError(
            f"expected distances up to {_MOST:g}, got a larger one, NaN or infinity; give forbidden pairs a large "
            "distance that is not."
        )
    if distances_NN.size and distances_NN.min() < 0:
        raise ValueError(f"expected distances >= 0, got {distances_NN.min()}; add a constant to all of them.")
    if not np.array_equal(distances_NN, distances_NN.T):
        raise ValueError("expected a symmetric distance matrix, got an asymmetric one; pass (D + D.T) / 2.")
    if num_clusters < 1:
        raise ValueError(f"expected num_clusters >= 1, got {num_clusters}; ask for at least one cluster.")
    code, count = linkage_code(linkage), len(distances_NN)
    tree = room_for_tree(count)
    tree.distances_NS[:, :count] = distances_NN + 0.0  # -0 becomes 0, whose bits are the lowest
    join_nearest(count, num_clusters, code, tree)
    return tree.labels_N


def linkage_code(linkage: str) -> int:
    """The number by which the compiled functions know a linkage; ValueError for an unknown name."""
    if linkage not in LINKAGES:
        raise ValueError(f"expected linkage one of {', '.join(LINKAGES)}, got {linkage!r}; correct the setting.")
    return LINKAGES[linkage]


@njit(cache=True, nogil=True)
def room_for_tree(n: int) -> Tree:
    """Room for n points. Rows are an odd number of cache lines apart, so that a column does not share a cache set."""
    places = (n + _STEP - 1) // _STEP * _STEP
    distances_NS = np.zeros((n, places + _LINE))
    return Tree(
        distances_NS,
        distances_NS.view(np.int64),
        np.empty(places, np.int64),
        np.empty(n + 1, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n),
        np.empty(n, np.int64),
    )


@njit(cache=True, nogil=True)
def join_nearest(n: int, num_clusters: int, linkage: int, tree: Tree) -> None:
    """Compiled core of `agglomerate`: of the first n points of the tree's distances; fills the first n labels."""
    if n <= num_clusters:
        for i in range(n):
            tree.labels_N[i] = i
        return
    _merge_all(n, linkage, tree)
    _cut(n, num_clusters, tree)


@njit(cache=True, nogil=True)
def _merge_all(n: int, linkage: int, tree: Tree) -> None:
    """All n - 1 merges in the order of the chain: a cluster is known by one of its points, the right one lives on."""
    distances_NS, bits_NS, size_N, chain_N = tree.distances_NS, tree.bits_NS, tree.size_N, tree.chain_N
    places = (n + _STEP - 1) // _STEP * _STEP
    gone_S = tree.gone_S[:places]
    gone_S[:] = _GONE
    for i in range(n):
        gone_S[i] = 0
        size_N[i] = 1
        distances_NS[i, i] = np.inf
    lowest = 0  # living cluster
    length = 0
    for merge in range(n - 1):
        if length == 0:
            while size_N[lowest] == 0:
                lowest += 1
            chain_N[0] = lowest
            length = 1
        while True:  # follow nearest neighbours until two clusters are each other's
            x = chain_N[length - 1]
            nearest = _lowest_bits(bits_NS[x, :places], gone_S)
            if length > 1 and bits_NS[x, chain_N[length - 2]] == nearest:
                y = chain_N[length - 2]
                break
            chain_N[length] = _place_of(nearest, bits_NS[x, :places], gone_S)
            length += 1
        length -= 2

        if x > y:
            x, y = y, x
        tree.left_E[merge], tree.right_E[merge], tree.height_E[merge] = x, y, distances_NS[x, y]
        _join(distances_NS[x, :places], distances_NS[y, :places], size_N[x], size_N[y], linkage)
        distances_NS[y, y] = np.inf
        for i in range(n):
            distances_NS[i, y] = distances_NS[y, i]
        size_N[y] += size_N[x]
        size_N[x] = 0
        gone_S[x] = _GONE


@njit(cache=True, nogil=True)
def _lowest_bits(bits_S: Array, gone_S: Array) -> int:
    lowest = _GONE
    for i in range(len(bits_S)):
        lowest = min(lowest, bits_S[i] | gone_S[i])
    return lowest


@njit(cache=True, nogil=True)
def _place_of(bits: int, bits_S: Array, gone_S: Array) -> int:
    i = 0
    while bits_S[i] | gone_S[i] != bits:
        i += 1
    return i


@njit(cache=True, nogil=True, error_model="numpy")
def _join(to_x_S: Array, to_y_S: Array, size_x: int, size_y: int, linkage: int) -> None:
    """Distances of x and y become those of the joined cluster, in the place of y (Lance and Williams, 1967)."""
    if linkage == _COMPLETE:
        for i in range(len(to_y_S)):
            to_y_S[i] = to_x_S[i] if to_x_S[i] > to_y_S[i] else to_y_S[i]
    elif linkage == _SINGLE:
        for i in range(len(to_y_S)):
            to_y_S[i] = to_x_S[i] if to_x_S[i] < to_y_S[i] else to_y_S[i]
    else:
        share_x, share_y, both = float(size_x), float(size_y), float(size_x + size_y)
        for i in range(len(to_y_S)):
            to_y_S[i] = (share_x * to_x_S[i] + share_y * to_y_S[i]) / both


@njit(cache=True, nogil=True)
def _cut(n: int, num_clusters: int, tree: Tree) -> None:
    """Clusters after the n - num_clusters lowest merges, numbered by their lowest point."""
    height_E, labels_N = tree.height_E, tree.labels_N
    for _ in range(num_clusters - 1):  # undo the highest merge, of equally high ones the last
        highest = 0
        for e in range(n - 1):
            if height_E[e] >= height_E[highest]:
                highest = e
        height_E[highest] = -np.inf
    root_N, number_N = tree.chain_N, tree.size_N
    for i in range(n):
        root_N[i], number_N[i] = i, -1
    for e in range(n - 2, -1, -1):  # a point ends as the left one of one merge: all merges of the right one come later
        if height_E[e] >= 0:
            root_N[tree.left_E[e]] = root_N[tree.right_E[e]]
    found = 0
    for i in range(n):
        root = root_N[i]
        if number_N[root] < 0:
            number_N[root] = found
            found += 1
        labels_N[i] = number_N[root]
