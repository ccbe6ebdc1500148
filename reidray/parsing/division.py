"""Second step of spatial cascaded clustering: the foreground cells of one image become parts, ordered from top to
bottom.

SCWM eq. 2 gives pairs of cells too far apart in the map an infinite distance. Taken literally that stalls above the
wanted number of parts (and SciPy and scikit-learn refuse it). Forbidden pairs carry 1000 x the largest foreground
distance instead: with average linkage that is exactly "fewest forbidden pairs first, then mean distance". The original,
uncorrected cascade is k-means of the cells. The other end is space alone: equal rows of the map, whatever the cells
look like.

Letters: P cells of a map, row-major, F foreground cells, H x W offsets between cells, K clusters or parts, S places of
a row of distances.
"""

from typing import NamedTuple

import numpy as np

from reidray.arrays import Array, Doubles
from reidray.compiled import njit
from reidray.parsing.agglomeration import Tree, join_nearest, room_for_tree

SPACES = {"forbid": 0, "off": 1, "kmeans": 2, "rows": 3}
FORBID, KMEANS, ROWS = SPACES["forbid"], SPACES["kmeans"], SPACES["rows"]
FORBIDDEN = 1000.0  # times the largest distance; 10 is not enough for "fewest forbidden pairs first"
KMEANS_ITERATIONS = 50
SAME_DIRECTION = 1e-6  # squared distance of unit vectors that float32 rounding alone may cause


class Division(NamedTuple):
    """Room for the division of at most P cells into K parts, used again and again.

    tree: its distances begin as cosines. far_FF: lower triangle, 1 where two cells are η or more apart.
    """

    tree: Tree
    far_FF: Array
    largest_F: Doubles
    row_K: Doubles
    size_K: Doubles


@njit(cache=True, nogil=True)
def room_for_division(num_cells: int, num_parts: int) -> Division:
    """Room for so many cells and parts, the background counted."""
    return Division(
        room_for_tree(num_cells),
        np.empty((num_cells, num_cells), np.uint8),
        np.empty(num_cells),
        np.empty(num_parts - 1),
        np.empty(num_parts - 1),
    )


@njit(cache=True, nogil=True)
def far_pairs(far_HW: Array) -> Array:
    """uint8 [P, P]: 1 for pairs of cells whose offset is far."""
    height, width = far_HW.shape
    far_PP = np.empty((height * width, height * width), np.uint8)
    for p in range(height * width):
        for row in range(height):
            far_W = far_HW[abs(p // width - row)]
            for column in range(width):
                far_PP[p, row * width + column] = far_W[abs(p % width - column)]
    return far_PP


@njit(cache=True, nogil=True)
def divide(
    division: Division,
    cells_F: Array,
    magnitudes_P: Array,
    far_PP: Array,
    width: int,
    linkage: int,
    space: int,
    parts_P: Array,
) -> float:
    """Divide the foreground of one image into K parts (fewer cells: one a part, the rest empty).

    Args:
        division: the lower triangle of its tree's distances holds the cosines between the foreground cells; all of it
            is overwritten. K is the room it has.
        cells_F: their row-major positions, ascending.
        magnitudes_P: magnitudes of all cells of the map.
        far_PP: which pairs of cells are η or more apart.
        width: cells of a row of the map.
        linkage: code of the linkage; space: code of the correction, see `SPACES`.
        parts_P: filled with 0..K-1 by mean row from the top (ties: lowest cell first), K for the background. Where
            space alone divides, part k is the k-th of K equal rows of the map, also where the ones above it are empty.

    Returns:
        The share of the pairs of cells within a part that are far, 0 without pairs.
    """
    n, num_parts = len(cells_F), len(division.row_K)
    parts_P[:] = num_parts
    if n == 0:
        return 0.0
    tree, far_FF = division.tree, division.far_FF
    labels_F = tree.labels_N[:n]
    for i in range(n):
        far_P, far_F = far_PP[cells_F[i]], far_FF[i, :i]
        for j in range(i):
            far_F[j] = far_P[cells_F[j]]
    if space == ROWS:
        for i in range(n):
            labels_F[i] = parts_P[cells_F[i]] = cells_F[i] // width * num_parts // (len(parts_P) // width)
        return _far_share(labels_F, far_FF)
    if space == KMEANS:
        cosines_FF = np.empty((n, n))
        start = 0
        for i in range(n):
            start = i if magnitudes_P[cells_F[i]] > magnitudes_P[cells_F[start]] else start
            for j in range(i + 1):
                cosines_FF[i, j] = cosines_FF[j, i] = tree.distances_NS[i, j]
        kmeans_F = unit_kmeans(cosines_FF, min(num_parts, n), start)
        for i in range(n):
            labels_F[i] = kmeans_F[i]
    else:
        _to_distances(n, division, space == FORBID)
        join_nearest(n, num_parts, linkage, tree)
    _order_parts(cells_F, labels_F, width, division, parts_P)
    return _far_share(labels_F, far_FF)


@njit(cache=True, nogil=True)
def _to_distances(n: int, division: Division, forbid: bool) -> None:
    """The triangle of cosines becomes the full matrix of corrected distances of eq. 2, in place."""
    distances_NS, largest_F = division.tree.distances_NS, division.largest_F[:n]
    largest_F[:] = 0.0
    for i in range(n):
        row_F = distances_NS[i, :i]
        for j in range(len(row_F)):
            square = 2.0 - 2.0 * row_F[j]
            row_F[j] = np.sqrt(square if square > 0.0 else 0.0)
            largest_F[j] = row_F[j] if row_F[j] > largest_F[j] else largest_F[j]
    largest = largest_F.max()
    forbidden = FORBIDDEN * (largest if largest > 0 else 1.0)  # cells of one direction: space alone divides them
    for i in range(n):
        row_F, far_F = distances_NS[i, :i], division.far_FF[i, :i]
        if forbid:
            for j in range(len(row_F)):
                row_F[j] = forbidden if far_F[j] else row_F[j]
        for j in range(i):
            distances_NS[j, i] = row_F[j]


@njit(cache=True, nogil=True, error_model="numpy")
def _order_parts(cells_F: Array, labels_F: Array, width: int, division: Division, parts_P: Array) -> None:
    """Numbers the clusters from top to bottom."""
    row_K, size_K = division.row_K, division.size_K
    row_K[:] = 0.0
    size_K[:] = 0.0
    for i in range(len(cells_F)):
        row_K[labels_F[i]] += cells_F[i] // width
        size_K[labels_F[i]] += 1
    for k in range(len(row_K)):
        row_K[k] = row_K[k] / size_K[k] if size_K[k] > 0 else np.inf  # empty parts come last
    place_K = size_K
    for k in range(len(row_K)):
        place_K[k] = 0.0
        for other in range(len(row_K)):  # clusters are numbered by their lowest cell: so are ties
            place_K[k] += row_K[other] < row_K[k] or (row_K[other] == row_K[k] and other < k)
    for i in range(len(cells_F)):
        parts_P[cells_F[i]] = int(place_K[labels_F[i]])


@njit(cache=True, nogil=True, error_model="numpy")
def _far_share(labels_F: Array, far_FF: Array) -> float:
    """The share of far pairs among the pairs of one label."""
    pairs, far = 0, 0
    for i in range(len(labels_F)):
        far_F, label = far_FF[i, :i], labels_F[i]
        for j in range(len(far_F)):
            same = labels_F[j] == label
            pairs += same
            far += same & far_F[j]
    return far / pairs if pairs > 0 else 0.0


@njit(cache=True, nogil=True)
def unit_kmeans(cosines_FF: Array, num_clusters: int, start: int) -> Array:
    """Lloyd's k-means of unit vectors from their cosines, deterministic.

    First centre `start`, every further one the vector farthest from all centres so far. At most 50 iterations; ties to
    the lower centre, the lower vector. A cluster that loses all members takes the vector farthest from its own mean.

    Returns:
        int64 [F], clusters numbered by their lowest member: num_clusters of them, fewer where fewer directions are
        distinct.
    """
    n = len(cosines_FF)
    farness_FK = np.empty((n, num_clusters))  # squared distances to the centres
    nearest_F = np.full(n, np.inf)
    centre = start
    found = 0
    while found < num_clusters:
        for i in range(n):
            farness_FK[i, found] = max(0.0, 2.0 - 2.0 * cosines_FF[i, centre]) if i != centre else 0.0
            nearest_F[i] = min(nearest_F[i], farness_FK[i, found])
        found += 1
        centre = int(np.argmax(nearest_F))
        if nearest_F[centre] <= SAME_DIRECTION:
            break
    labels_F = np.full(n, -1, np.int64)
    size_K = np.zeros(found, np.int64)
    for _ in range(KMEANS_ITERATIONS):
        changed = False
        size_K[:] = 0
        for i in range(n):
            best = np.argmin(farness_FK[i, :found])
            changed |= best != labels_F[i]
            labels_F[i] = best
            size_K[best] += 1
        for k in range(found):
            if size_K[k] == 0:
                farthest = -1
                for i in range(n):
                    if size_K[labels_F[i]] > 1 and (
                        farthest < 0 or farness_FK[i, labels_F[i]] > farness_FK[farthest, labels_F[farthest]]
                    ):
                        farthest = i
                if farthest >= 0:
                    size_K[labels_F[farthest]] -= 1
                    labels_F[farthest] = k
                    size_K[k] = 1
                    changed = True
        if not changed:
            break
        _distances_to_means(cosines_FF, labels_F, size_K, farness_FK)

    number_K = np.full(found, -1, np.int64)
    numbered = 0
    for i in range(n):
        if number_K[labels_F[i]] < 0:
            number_K[labels_F[i]] = numbered
            numbered += 1
        labels_F[i] = number_K[labels_F[i]]
    return labels_F


@njit(cache=True, nogil=True)
def _distances_to_means(cosines_FF: Array, labels_F: Array, size_K: Array, farness_FK: Array) -> None:
    """|x - mean|² = 1 - 2 mean cos(x, member) + mean cos(member, member'); an empty cluster is infinitely far."""
    n = len(labels_F)
    farness_FK[:] = 0.0
    for i in range(n):
        for j in range(n):
            farness_FK[i, labels_F[j]] += cosines_FF[i, j]
    for k in range(len(size_K)):
        within = 0.0
        for i in range(n):
            if labels_F[i] == k:
                within += farness_FK[i, k]
        for i in range(n):
            if size_K[k] == 0:
                farness_FK[i, k] = np.inf
            else:
                farness_FK[i, k] = 1.0 - 2.0 * farness_FK[i, k] / size_K[k] + within / (size_K[k] * size_K[k])
