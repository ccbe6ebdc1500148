"""Second step of spatial cascaded clustering: the foreground cells of one image become parts, ordered from top to
bottom.

SCWM eq. 2 gives pairs of cells too far apart in the map an infinite distance. Taken literally that stalls above the
wanted number of parts (and SciPy and scikit-learn refuse it). Forbidden pairs carry 1000 x the largest foreground
distance instead: with average linkage that is exactly "fewest forbidden pairs first, then mean distance". The original,
uncorrected cascade is k-means of the cells.

Letters: P cells of a map, row-major, F foreground cells, H x W offsets between cells, K clusters or parts.
"""

import numpy as np
from numba import njit

from reidray.arrays import Array
from reidray.parsing.agglomeration import join_nearest

SPACES = {"forbid": 0, "off": 1, "kmeans": 2}
FORBID, KMEANS = SPACES["forbid"], SPACES["kmeans"]
FORBIDDEN = 1000.0  # times the largest distance; 10 is not enough for "fewest forbidden pairs first"
KMEANS_ITERATIONS = 50
SAME_DIRECTION = 1e-6  # squared distance of unit vectors that float32 rounding alone may cause


@njit(cache=True, nogil=True)
def divide(
    cosines_FF: Array,
    cells_F: Array,
    magnitudes_P: Array,
    far_HW: Array,
    num_parts: int,
    linkage: int,
    space: int,
    parts_P: Array,
) -> float:
    """Divide the foreground of one image into num_parts - 1 parts (fewer cells: one a part, the rest empty).

    Args:
        cosines_FF: cosines between the foreground cells; overwritten.
        cells_F: their row-major positions, ascending.
        magnitudes_P: magnitudes of all cells of the map.
        far_HW: whether cells so many rows and columns apart are η or more apart.
        num_parts: parts counting the background.
        linkage: code of the linkage; space: code of the correction, see `SPACES`.
        parts_P: filled with 0..num_parts-2 by mean row from the top (ties: lowest cell first), num_parts-1 background.

    Returns:
        The share of the pairs of cells within a part that are far, 0 without pairs.
    """
    n = len(cells_F)
    parts_P[:] = num_parts - 1
    if n == 0:
        return 0.0
    far_FF = _far_pairs(cells_F, far_HW)
    if space == KMEANS:
        start = int(np.argmax(magnitudes_P[cells_F]))
        labels_F = unit_kmeans(cosines_FF, min(num_parts - 1, n), start)
    else:
        _to_distances(cosines_FF, far_FF, space == FORBID)
        labels_F = join_nearest(cosines_FF, num_parts - 1, linkage)

    width = far_HW.shape[1]
    row_K, size_K = np.zeros(num_parts - 1), np.zeros(num_parts - 1)
    for i in range(n):
        row_K[labels_F[i]] += cells_F[i] // width
        size_K[labels_F[i]] += 1
    for k in range(num_parts - 1):
        row_K[k] = row_K[k] / size_K[k] if size_K[k] > 0 else np.inf  # empty parts come last
    order_K = np.argsort(row_K, kind="mergesort")  # clusters are numbered by their lowest cell: so are ties
    place_K = np.empty(num_parts - 1, np.int64)
    for k in range(num_parts - 1):
        place_K[order_K[k]] = k
    pairs, far = 0, 0
    for i in range(n):
        parts_P[cells_F[i]] = place_K[labels_F[i]]
        for j in range(i):
            if labels_F[i] == labels_F[j]:
                pairs += 1
                far += far_FF[i, j]
    return far / pairs if pairs > 0 else 0.0


@njit(cache=True, nogil=True)
def _far_pairs(cells_F: Array, far_HW: Array) -> Array:
    """bool [F, F]: which pairs of cells are η or more apart."""
    n, width = len(cells_F), far_HW.shape[1]
    row_F, column_F = cells_F // width, cells_F % width
    far_FF = np.empty((n, n), np.bool_)
    for i in range(n):
        for j in range(n):
            far_FF[i, j] = far_HW[abs(row_F[i] - row_F[j]), abs(column_F[i] - column_F[j])]
    return far_FF


@njit(cache=True, nogil=True)
def _to_distances(cosines_FF: Array, far_FF: Array, forbid: bool) -> None:
    """Cosines become the corrected distances of eq. 2, in place."""
    n = len(cosines_FF)
    largest = 0.0
    for i in range(n):
        cosines_FF[i, i] = 0.0
        for j in range(i):
            distance = np.sqrt(max(0.0, 2.0 - 2.0 * cosines_FF[i, j]))
            cosines_FF[i, j] = cosines_FF[j, i] = distance
            largest = max(largest, distance)
    if not forbid:
        return
    forbidden = FORBIDDEN * (largest if largest > 0 else 1.0)  # cells of one direction: space alone divides them
    for i in range(n):
        for j in range(n):
            if far_FF[i, j]:
                cosines_FF[i, j] = forbidden


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
