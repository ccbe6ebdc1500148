"""How sure a clustering is of each image, and of each cluster: from distances to centroids, without truth.

N = images, M = images of some clusters, R = images of a block, C = clusters, B = clusters of a block, D = width.

Distances are Euclidean between unit vectors. `a` is the distance of an image to the mean direction of the other images
of its cluster, `b` that to the nearest centroid of another cluster. The doubt of an image is a / (a + b): 0 where it
lies in the middle of its cluster, 0.5 where another cluster is as near as its own, above 0.5 where it is nearer.

The work comes in pieces that anybody can do, in any order: `look_inside` whole clusters, then compare blocks of images
with blocks of centroids (`nearest_others`, `nearer`). `joined` has the doubts from these, and `judge` does all of it.
Comparing takes time with images times clusters, and memory of 1,024 images times the centroids of its block. Looking
inside takes 4 to 16 times its rows: the fewer images a cluster has, the more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from reidray.arrays import Array, Doubles, Floats, Ints

UNKNOWN = 0.5
"""The doubt of an image that nothing can be said of: it is alone in its cluster, or there is no other cluster."""

_STEPS = 3  # of 2-means
_AT_ONCE = 1024  # images that are compared together


@dataclass(frozen=True)
class Doubts:
    """What is said of a clustering.

    Attributes:
      doubts_N: float32 in [0, 1]; 1 for outliers.
      nearest_N: int32: the nearest cluster other than the image's own; of an outlier the nearest of all; -1: none.
      halves_N: int8: which half of its cluster an image is in, 0 or 1, if the cluster were divided in two; -1 for
        outliers.
      doubts_C: float32: mean doubt of a cluster's images.
      nearest_C: int32: the cluster that most of its images have as the nearest; -1: none.
      widths_C: float32: w / (w + b), where w is the distance between the image farthest from the cluster's centroid and
        the image farthest from that one, and b the mean distance of its images to the nearest centroid of another
        cluster. 0: nothing can be said.
    """

    doubts_N: Floats
    nearest_N: Array
    halves_N: Array
    doubts_C: Floats
    nearest_C: Array
    widths_C: Floats


class Inside(NamedTuple):
    """Clusters by themselves.

    centroids_CD: float32, unit length. inside_M: float32: distance of an image to the mean direction of the others of
    its cluster, 0 where it is alone. halves_M: int8: 0 or 1, the half of its cluster. across_C: float32: how far the
    two images lie apart with which the halves began.
    """

    centroids_CD: Floats
    inside_M: Floats
    halves_M: Array
    across_C: Floats


class Others(NamedTuple):
    """Of each image the nearest cluster other than its own, so far: its inner product, -inf for none, and its number
    (int32), -1 for none."""

    similarities_R: Floats
    clusters_R: Array


def judge(features_ND: Floats, labels_N: Ints) -> Doubts:
    """The doubts, from the features of all images at once; `reidray.training.judging` needs no more than blocks.

    Args:
      features_ND: of any length but 0.
      labels_N: the cluster of each image, -1 for outliers; every cluster 0 .. C-1 has an image.
    """
    clustered_N = labels_N >= 0
    inside_N, halves_N = np.zeros(len(labels_N), np.float32), np.full(len(labels_N), -1, np.int8)
    if not clustered_N.any():
        return joined(labels_N, inside_N, halves_N, np.empty(0, np.float32), nobody(len(labels_N)))
    found = look_inside(features_ND[clustered_N], labels_N[clustered_N])
    inside_N[clustered_N], halves_N[clustered_N] = found.inside_M, found.halves_M
    others = nearest_others(features_ND, labels_N, found.centroids_CD, 0)
    return joined(labels_N, inside_N, halves_N, found.across_C, others)


def look_inside(features_MD: Floats, labels_M: Ints) -> Inside:
    """Whole clusters.

    Args:
      features_MD: of all their images; of any length but 0.
      labels_M: their clusters, 0 .. C-1; each has an image.
    """
    unit_MD, count = _unit(features_MD), int(labels_M.max()) + 1
    sums_CD = _sums(unit_MD, labels_M, count)
    centroids_CD = _unit(sums_CD)
    inside_M = np.empty(len(labels_M), np.float32)
    for some in _pieces(len(labels_M)):
        others_MD = _unit(sums_CD[labels_M[some]] - unit_MD[some])
        inside_M[some] = np.linalg.norm(unit_MD[some] - others_MD, axis=1)
    inside_M[np.bincount(labels_M)[labels_M] == 1] = 0
    halves_M, across_C = _halves(unit_MD, labels_M, centroids_CD)
    return Inside(centroids_CD, inside_M, halves_M, across_C)


def nearest_others(features_RD: Floats, labels_R: Ints, centroids_BD: Floats, first: int) -> Others:
    """The nearest among some clusters, each image's own left out.

    Args:
      features_RD: of any length but 0.
      labels_R: clusters of the images, -1 for outliers.
      centroids_BD: of the clusters first, first + 1, ..; unit length.
    """
    found = nobody(len(features_RD))
    for some in _pieces(len(features_RD)):
        similarities_RB = _unit(features_RD[some]) @ centroids_BD.T
        own_R = labels_R[some] - first
        own = np.flatnonzero((own_R >= 0) & (own_R < len(centroids_BD)) & (labels_R[some] >= 0))
        similarities_RB[own, own_R[own]] = -np.inf
        best_R = similarities_RB.argmax(1)
        best = similarities_RB[np.arange(len(best_R)), best_R]
        found.similarities_R[some] = best
        found.clusters_R[some] = np.where(np.isfinite(best), first + best_R, -1)
    return found


def nobody(count: int) -> Others:
    """Of images that were compared with no cluster."""
    return Others(np.full(count, -np.inf, np.float32), np.full(count, -1, np.int32))


def nearer(one: Others, other: Others) -> Others:
    """Of two findings about the same images the nearer; of equals the lower cluster."""
    further = (other.similarities_R > one.similarities_R) | (
        (other.similarities_R == one.similarities_R)
        & (other.clusters_R >= 0)
        & ((one.clusters_R < 0) | (other.clusters_R < one.clusters_R))
    )
    return Others(
        np.where(further, other.similarities_R, one.similarities_R),
        np.where(further, other.clusters_R, one.clusters_R),
    )


def joined(labels_N: Ints, inside_N: Floats, halves_N: Array, across_C: Floats, others: Others) -> Doubts:
    """The doubts.

    Args:
      labels_N: the cluster of each image, -1 for outliers; every cluster 0 .. C-1 has an image.
      inside_N, halves_N, across_C: of `look_inside`, over all clusters; of outliers anything.
      others: of `nearest_others`, over all clusters.
    """
    count = len(across_C)
    sizes_C = np.bincount(labels_N[labels_N >= 0], minlength=count)
    clustered_N = labels_N >= 0
    own_M = labels_N[clustered_N]
    outside_N = np.where(others.clusters_R >= 0, _chord(others.similarities_R), np.inf)
    outside_C = np.bincount(own_M, outside_N[clustered_N], count) / np.maximum(sizes_C, 1)
    told_N = clustered_N & np.isfinite(outside_N)
    told_N[clustered_N] &= sizes_C[own_M] > 1
    doubts_N = np.where(clustered_N, UNKNOWN, 1.0)
    doubts_N[told_N] = inside_N[told_N] / np.maximum(inside_N[told_N] + outside_N[told_N], 1e-12)
    doubts_N = np.round(doubts_N, 4).astype(np.float32)  # the last bits depend on the threads
    doubts_C = np.bincount(own_M, doubts_N[clustered_N], count) / np.maximum(sizes_C, 1)
    told_C = np.isfinite(outside_C) & (sizes_C > 1)
    widths_C = np.where(told_C, across_C / np.maximum(across_C + outside_C, 1e-12), 0.0)
    return Doubts(
        doubts_N,
        others.clusters_R,
        np.where(clustered_N, halves_N, -1).astype(np.int8),
        doubts_C.astype(np.float32),
        _most_common(labels_N, others.clusters_R, count),
        np.round(widths_C, 4).astype(np.float32),
    )


def _halves(unit_MD: Floats, labels_M: Ints, centroids_CD: Floats) -> tuple[Array, Floats]:
    """Each cluster divided in two by 2-means, which begins with the image farthest from the centroid and the one that
    is farthest from that.

    Returns:
      the half of each image, and how far the two images lie apart [C].
    """
    count = len(centroids_CD)
    firsts_C = _farthest(labels_M, _distances(unit_MD, centroids_CD, labels_M), count)
    away_M = _distances(unit_MD, unit_MD[firsts_C], labels_M)
    seconds_C = _farthest(labels_M, away_M, count)
    centres_HD = np.stack([unit_MD[firsts_C], unit_MD[seconds_C]], axis=1).reshape(2 * count, -1)
    halves_M = np.zeros(len(labels_M), np.int8)
    for _ in range(_STEPS):
        nearer_first_M = _distances(unit_MD, centres_HD, 2 * labels_M)
        halves_M = (_distances(unit_MD, centres_HD, 2 * labels_M + 1) < nearer_first_M).astype(np.int8)
        centres_HD = _unit(_sums(unit_MD, 2 * labels_M + halves_M, 2 * count))
    return halves_M, away_M[seconds_C]


def _distances(unit_MD: Floats, centres_HD: Floats, places_M: Ints) -> Floats:
    """Of each row to one of the centres."""
    away_M = np.empty(len(unit_MD), np.float32)
    for some in _pieces(len(unit_MD)):
        away_M[some] = np.linalg.norm(unit_MD[some] - centres_HD[places_M[some]], axis=1)
    return away_M


def _sums(unit_MD: Floats, groups_M: Ints, count: int) -> Doubles:
    """Sums of the rows of each group 0 .. count-1."""
    sums_GD = np.zeros((count, unit_MD.shape[1]))
    order_M = np.argsort(groups_M, kind="stable")
    present, starts = np.unique(groups_M[order_M], return_index=True)
    sums_GD[present] = np.add.reduceat(unit_MD[order_M], starts, axis=0, dtype=np.float64)
    return sums_GD


def _farthest(labels_M: Ints, away_M: Floats, count: int) -> Ints:
    """The image of each cluster that is farthest away; of equals, but for rounding, the first."""
    order_M = np.lexsort((-np.round(away_M, 5), labels_M))
    return order_M[np.searchsorted(labels_M[order_M], np.arange(count))]


def _most_common(labels_N: Ints, nearest_N: Array, count: int) -> Array:
    """For each cluster the value that most of its images have; the smallest of equals."""
    found_C = np.full(count, -1, np.int32)
    kept = (labels_N >= 0) & (nearest_N >= 0)
    if kept.any():
        pairs_2U, times_U = np.unique(np.stack([labels_N[kept], nearest_N[kept]]), axis=1, return_counts=True)
        order_U = np.lexsort((-pairs_2U[1], times_U))  # what comes last is kept
        found_C[pairs_2U[0][order_U]] = pairs_2U[1][order_U]
    return found_C


def _pieces(count: int) -> list[slice]:
    return [slice(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE)]


def _unit(rows: Array) -> Floats:
    """Rows at unit length, float32; their lengths are float64 sums."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return (rows / np.maximum(lengths, 1e-12).astype(rows.dtype)[:, None]).astype(np.float32, copy=False)


def _chord(similarities: Array) -> Array:
    """Euclidean distance of unit vectors with these inner products."""
    return np.sqrt(np.maximum(2 - 2 * np.maximum(similarities, -1.0), 0.0))
