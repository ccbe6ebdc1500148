"""Merging clusters from the bottom up, a share of them each stage: BUC and IHC.

BUC: Y. Lin et al., "A Bottom-Up Clustering Approach to Unsupervised Person Re-identification", AAAI 2019. IHC: W. Zhao
et al., "Improved Hierarchical Clustering with Non-locally Enhanced Features for Unsupervised Person
Re-identification". A stage measures all pairs of clusters once, sorts them, and joins pair after pair, passing over
those that earlier pairs of the stage have joined already, until as many merges as asked for have happened. Nothing is
measured anew in between, so a stage may chain several clusters together.

That walk is Kruskal's algorithm cut short: its merges are the lightest edges of the minimum spanning tree. They are
found without sorting C²/2 pairs, by O. Borůvka's rounds (1926): each group of joined clusters takes its nearest pair to
another group, of the pairs that can be among the lightest, until no group finds any. Pairs are ordered by (distance,
lower cluster, higher cluster), which leaves no ties: the merges are those of the full sort for any number of threads.

Letters: N images, D feature width, C clusters, P = C (C - 1) / 2 pairs of clusters, R rows of their matrix, S strips of
rows, E pairs that merge.
"""

import math
import operator
from dataclasses import dataclass

import numpy as np
from numba import prange

from reidray.arrays import Array, Doubles, Floats, Ints
from reidray.compiled import njit
from reidray.labelling.cluster_distances import ClusterDistances, measure_clusters, merge_clusters
from reidray.threads import parallel_kernel

LINKAGES = {"minimum": 0, "squared_minimum": 1, "intermediate": 2}
_SQUARED_MINIMUM, _INTERMEDIATE = 1, 2
_STRIPS = 32  # each with bests of its own, so that threads do not meet; at most this many threads are of use
_NO_PAIR = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Criterion:
    """Which clusters are near, the smallest D first (ties: the lower pair of numbers):

    D(A, B) = linkage(A, B) + size_weight (|A| + |B|) + compactness_weight (CPD(A) + CPD(B)).

    linkage: "minimum", the smallest distance between the images of A and B (BUC, as in its text); "squared_minimum",
      its square (BUC, as in its public code); "intermediate", IMD = (smallest + largest) / 2 (IHC, eq. 4).
    size_weight: >= 0. BUC's diversity regularisation: 0.003; 0 turns it off.
    compactness_weight: >= 0. λ of IHC's eq. (6): 0.3; 0 turns it off. CPD(A) = sum of the distances over the unordered
      pairs of A's images / |A| (eq. 5; the sum is over pairs, the divisor the number of images, so large clusters have
      large CPD).

    Errors: ValueError for an unknown linkage or a weight that is negative or not finite.
    """

    linkage: str
    size_weight: float
    compactness_weight: float

    def __post_init__(self) -> None:
        if self.linkage not in LINKAGES:
            raise ValueError(
                f"expected linkage one of {', '.join(LINKAGES)}, got {self.linkage!r}; correct the setting."
            )
        for name in ("size_weight", "compactness_weight"):
            weight = getattr(self, name)
            if not 0.0 <= weight < math.inf:
                raise ValueError(f"expected {name} finite and >= 0, got {weight}; 0 turns it off.")


def stage_distances(features_ND: Array, labels_N: Array, *, criterion: Criterion) -> ClusterDistances:
    """What the criterion needs to know of these clusters; see `measure_clusters` for arguments, accuracy and errors."""
    return measure_clusters(
        features_ND,
        labels_N,
        highest=criterion.linkage == "intermediate",
        total=criterion.compactness_weight > 0,
    )


def merging_mb(num_images: int, criterion: Criterion) -> float:
    """Memory that a stage of so many images takes at most, in MB: its triangles of distances.

    The smallest distances, and with it the largest and the sums where the criterion reads them.
    """
    return 2e-6 * num_images**2 * _triangles(criterion)


def most_images(mb: float, criterion: Criterion) -> int:
    """How many images fit."""
    return math.isqrt(int(mb / (2e-6 * _triangles(criterion))))


def _triangles(criterion: Criterion) -> int:
    return 1 + (criterion.linkage == "intermediate") + (criterion.compactness_weight > 0)


def merge_stage(distances: ClusterDistances, count: int, *, criterion: Criterion) -> Ints:
    """One stage: `count` merges of the nearest clusters (BUC and IHC: 5 % of the images).

    Merged clusters keep the order of their lowest members: the new number of a cluster is its rank among the new
    clusters by lowest old number. When features are extracted anew for each stage, begin it from `stage_distances` of
    the new features and the labels of the last stage; on the same features, call this again.

    Args:
      distances: from `stage_distances` with the same criterion; changed in place, it then describes the new clusters.
      count: merges, >= 0; at most C - 1 happen.
      criterion: which clusters are near.

    Errors:
      ValueError for count < 0, or distances that were not measured for this criterion.

    Returns:
      labels_N int64, the new cluster of each image, 0 .. C-1.
    """
    merge_clusters(distances, choose_merges(distances, count, criterion=criterion))
    return distances.labels_N.copy()


def choose_merges(distances: ClusterDistances, count: int, *, criterion: Criterion) -> Ints:
    """The decision of `merge_stage` without carrying it out: merged_C, the new number of each cluster."""
    count = operator.index(count)
    if count < 0:
        raise ValueError(f"expected count >= 0 merges, got {count}; ask for none or more.")
    count = min(count, distances.num_clusters - 1)
    groups_C = np.arange(distances.num_clusters)
    _join(groups_C, _lightest_edges(distances, count, criterion))
    return np.unique(groups_C, return_inverse=True)[1]


def _terms(distances: ClusterDistances, criterion: Criterion) -> Doubles:
    """What each cluster adds to its distance to any other."""
    terms_C = np.asarray(criterion.size_weight * distances.sizes_C, np.float64)
    if criterion.compactness_weight > 0:
        if distances.within_C is None:
            raise ValueError("expected sums of distances for the compactness, got none; measure the clusters for it.")
        terms_C = terms_C + criterion.compactness_weight * (distances.within_C / distances.sizes_C)
    return terms_C


def _highest(distances: ClusterDistances, criterion: Criterion) -> Floats:
    if criterion.linkage != "intermediate":
        return distances.lowest_P  # not read
    if distances.highest_P is None:
        raise ValueError("expected largest distances for the intermediate linkage, got none; measure them as well.")
    return distances.highest_P


def _lightest_edges(distances: ClusterDistances, count: int, criterion: Criterion) -> Ints:
    """The `count` lightest edges of the minimum spanning tree as pairs i C + j, i < j.

    The nearest lower cluster of each cluster makes a spanning tree, if not the minimum one. Its `count` lightest edges
    cannot be lighter than those that are sought: their heaviest is a limit, and few rows have a pair within it.
    """
    num_clusters = distances.num_clusters
    matrices = distances.lowest_P, _highest(distances, criterion), LINKAGES[criterion.linkage]
    terms_C = _terms(distances, criterion)
    row_keys_C = _row_keys(*matrices, terms_C)
    limit = np.partition(row_keys_C[1:], count - 1)[count - 1] if count > 0 else -np.inf
    rows_R = np.flatnonzero(row_keys_C <= limit)
    groups_C = np.arange(num_clusters)
    keys_SC = np.empty((_STRIPS, num_clusters))
    pairs_SC = np.empty((_STRIPS, num_clusters), np.int64)
    keys_E, pairs_E = np.empty(0), np.empty(0, np.int64)
    while True:
        _nearest_outside(*matrices, terms_C, groups_C, rows_R, limit, keys_SC, pairs_SC)
        keys_C, pairs_C = _best_of_strips(keys_SC, pairs_SC)
        found, places = np.unique(pairs_C[pairs_C != _NO_PAIR], return_index=True)  # two groups may agree on a pair
        if len(found) == 0:
            break
        keys_E = np.concatenate([keys_E, keys_C[pairs_C != _NO_PAIR][places]])
        pairs_E = np.concatenate([pairs_E, found])
        _join(groups_C, found)
    return pairs_E[np.lexsort((pairs_E, keys_E))[:count]]


@njit(cache=True, nogil=True)
def _key(lowest: float, highest: float, linkage: int, terms: float) -> float:
    """The distance that decides, in float64."""
    if linkage == _INTERMEDIATE:
        return 0.5 * (np.float64(lowest) + np.float64(highest)) + terms
    if linkage == _SQUARED_MINIMUM:
        return np.float64(lowest) * np.float64(lowest) + terms
    return np.float64(lowest) + terms


@parallel_kernel
def _row_keys(lowest_P: Array, highest_P: Array, linkage: int, terms_C: Array) -> Array:
    """The key of each cluster's nearest cluster of lower number; infinite for cluster 0."""
    row_keys_C = np.empty(terms_C.shape[0])
    for j in prange(terms_C.shape[0]):
        row_keys_C[j] = _smallest_key(lowest_P, highest_P, linkage, terms_C, j)
    return row_keys_C


# The flags let the smallest be taken in any order, many at a time, which changes nothing: no key is NaN or -0.
@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _smallest_key(lowest_P: Array, highest_P: Array, linkage: int, terms_C: Array, j: int) -> float:
    start = j * (j - 1) // 2
    smallest = np.inf
    for i in range(j):
        smallest = min(smallest, _key(lowest_P[start + i], highest_P[start + i], linkage, terms_C[i] + terms_C[j]))
    return smallest


@njit(cache=True, nogil=True)
def _offer(keys_C: Array, pairs_C: Array, group: int, key: float, pair: int) -> None:
    if key < keys_C[group] or (key == keys_C[group] and pair < pairs_C[group]):
        keys_C[group] = key
        pairs_C[group] = pair


@parallel_kernel
def _nearest_outside(
    lowest_P: Array,
    highest_P: Array,
    linkage: int,
    terms_C: Array,
    groups_C: Array,
    rows_R: Array,
    limit: float,
    keys_SC: Array,
    pairs_SC: Array,
) -> None:
    """For each strip of rows and each group of clusters, the nearest pair to another group, of those within the limit.

    rows_R: the rows that have a pair within the limit; strip s reads every S-th of them.
    """
    count = terms_C.shape[0]
    strips = keys_SC.shape[0]
    for strip in prange(strips):
        keys_C, pairs_C = keys_SC[strip], pairs_SC[strip]
        keys_C[:] = np.inf
        pairs_C[:] = _NO_PAIR
        for j in rows_R[strip::strips]:
            start = j * (j - 1) // 2
            for i in range(j):
                key = _key(lowest_P[start + i], highest_P[start + i], linkage, terms_C[i] + terms_C[j])
                if key <= limit and groups_C[i] != groups_C[j]:
                    _offer(keys_C, pairs_C, groups_C[i], key, i * count + j)
                    _offer(keys_C, pairs_C, groups_C[j], key, i * count + j)


@njit(cache=True, nogil=True)
def _best_of_strips(keys_SC: Array, pairs_SC: Array) -> tuple[Array, Array]:
    """The best of each group; the order of pairs has no ties, so it does not matter which strip is asked first."""
    keys_C, pairs_C = keys_SC[0].copy(), pairs_SC[0].copy()
    for strip in range(1, keys_SC.shape[0]):
        for group in range(keys_C.shape[0]):
            _offer(keys_C, pairs_C, group, keys_SC[strip, group], pairs_SC[strip, group])
    return keys_C, pairs_C


@njit(cache=True, nogil=True)
def _join(groups_C: Array, pairs_E: Array) -> None:
    """Joins the groups of both clusters of each pair. A group is known by its lowest cluster, before and after."""
    count = groups_C.shape[0]
    for pair in pairs_E:
        i, j = pair // count, pair % count
        while groups_C[i] != i:
            groups_C[i] = groups_C[groups_C[i]]
            i = groups_C[i]
        while groups_C[j] != j:
            groups_C[j] = groups_C[groups_C[j]]
            j = groups_C[j]
        groups_C[max(i, j)] = min(i, j)
    for c in range(count):  # ascending: the one above is settled already
        groups_C[c] = groups_C[groups_C[c]]
