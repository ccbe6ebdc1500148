"""How sure a clustering is of each image, and of each cluster: from distances to centroids, without truth.

N = images, R = images of a block, C = clusters, D = feature width.

Distances are Euclidean between unit vectors. `a` is the distance of an image to the mean direction of the other images
of its cluster, `b` that to the nearest centroid of another cluster. The doubt of an image is a / (a + b): 0 where it
lies in the middle of its cluster, 0.5 where another cluster is as near as its own, above 0.5 where it is nearer. No
matrix of all pairs is made: time grows with images times clusters, memory with a block times clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from reidray.arrays import Array, Doubles, Floats, Ints

UNKNOWN = 0.5
"""The doubt of an image that nothing can be said of: it is alone in its cluster, or there is no other cluster."""

_STEPS = 3  # of 2-means

Blocks = Callable[[], Iterable[tuple[int, Floats]]]
"""All features, block by block, as often as they are asked for: the index of the first image, and its rows [R, D]."""


@dataclass(frozen=True)
class Doubts:
    """What `judge` found.

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


def judge(blocks: Blocks, labels_N: Ints, *, at_once: int = 1024) -> Doubts:
    """The doubts of a clustering.

    Args:
      blocks: the features; rows are brought to unit length here. They are read a dozen times.
      labels_N: the cluster of each image, -1 for outliers; every cluster 0 .. C-1 has an image.
      at_once: images that are compared with all centroids together.
    """
    labels_N = np.asarray(labels_N).astype(np.int64)
    count = int(labels_N.max(initial=-1)) + 1
    if count == 0:
        nothing = np.empty(0, np.float32)
        none_N = np.full(len(labels_N), -1)
        return Doubts(
            np.ones(len(labels_N), np.float32), none_N.astype(np.int32), none_N.astype(np.int8), nothing,
            np.empty(0, np.int32), nothing,
        )  # fmt: skip
    sizes_C = np.bincount(labels_N[labels_N >= 0], minlength=count)
    sums_CD = _sums(blocks, labels_N, count)
    away_N, outside_N, doubts_N, nearest_N = _against_centroids(blocks, labels_N, sizes_C, sums_CD, at_once)
    own_M = labels_N[labels_N >= 0]
    doubts_C = np.bincount(own_M, doubts_N[labels_N >= 0], count) / sizes_C
    outside_C = np.bincount(own_M, outside_N[labels_N >= 0], count) / sizes_C
    halves_N, across_C = _halves(blocks, labels_N, sums_CD, away_N)
    told_C = np.isfinite(outside_C) & (sizes_C > 1)
    widths_C = np.where(told_C, across_C / np.maximum(across_C + outside_C, 1e-12), 0.0)
    return Doubts(
        doubts_N, nearest_N, halves_N, doubts_C.astype(np.float32), _most_common(labels_N, nearest_N, count),
        np.round(widths_C, 4).astype(np.float32),
    )  # fmt: skip


def _against_centroids(
    blocks: Blocks, labels_N: Ints, sizes_C: Ints, sums_CD: Doubles, at_once: int
) -> tuple[Floats, Floats, Floats, Array]:
    """Of each image the distances to its cluster's centroid and to the nearest other one, its doubt, and the nearest
    other cluster."""
    centroids_CD = _unit(sums_CD).astype(np.float32)
    away_N, doubts_N = np.zeros(len(labels_N), np.float32), np.ones(len(labels_N), np.float32)
    outside_N = np.full(len(labels_N), np.inf, np.float32)
    nearest_N = np.full(len(labels_N), -1, np.int32)
    for first, rows_RD in _pieces(blocks, at_once):
        own = slice(first, first + len(rows_RD))
        labels_R, unit_RD = labels_N[own], _unit(rows_RD)
        similarities_RC = unit_RD.astype(np.float32) @ centroids_CD.T
        clustered = np.flatnonzero(labels_R >= 0)
        mine = labels_R[clustered]
        away_N[first + clustered] = _chord(similarities_RC[clustered, mine])
        similarities_RC[clustered, mine] = -np.inf
        best_R = similarities_RC.argmax(1)
        best = similarities_RC[np.arange(len(best_R)), best_R]
        nearest_N[own] = np.where(np.isfinite(best), best_R, -1)
        others = _unit(sums_CD[mine] - unit_RD[clustered])
        inside, outside = _chord((unit_RD[clustered] * others).sum(1)), _chord(best[clustered])
        told = (sizes_C[mine] > 1) & np.isfinite(best[clustered])
        outside_N[first + clustered] = np.where(np.isfinite(best[clustered]), outside, np.inf)
        doubts_N[first + clustered] = _doubt(inside, outside, told)
    return away_N, outside_N, doubts_N, nearest_N


def _halves(blocks: Blocks, labels_N: Ints, sums_CD: Doubles, away_N: Floats) -> tuple[Array, Doubles]:
    """Each cluster divided in two by 2-means, which begins with the image farthest from the centroid and the one that
    is farthest from that.

    Returns:
      the half of each image, and how far the two images lie apart [C].
    """
    count = len(sums_CD)
    centres_HD = np.zeros((2 * count, sums_CD.shape[1]))
    centres_HD[0::2] = _taken(blocks, _farthest(labels_N, away_N, count))
    for first, rows_RD in blocks():
        labels_R = labels_N[first : first + len(rows_RD)]
        clustered = np.flatnonzero(labels_R >= 0)
        towards = (_unit(rows_RD[clustered]) * centres_HD[2 * labels_R[clustered]]).sum(1)
        away_N[first + clustered] = _chord(towards)
    ends_C = _farthest(labels_N, away_N, count)
    across_C = away_N[ends_C].astype(np.float64)
    centres_HD[1::2] = _taken(blocks, ends_C)
    halves_N = np.full(len(labels_N), -1, np.int8)
    for _ in range(_STEPS):
        for first, rows_RD in blocks():
            own = slice(first, first + len(rows_RD))
            halves_N[own] = _nearer_half(_unit(rows_RD), labels_N[own], centres_HD)
        places_N = np.where(labels_N >= 0, 2 * labels_N + halves_N, -1)
        centres_HD = _unit(_sums(blocks, places_N, 2 * count))
    return halves_N, across_C


def _taken(blocks: Blocks, images_C: Ints) -> Doubles:
    """The unit rows of some images."""
    taken: Doubles | None = None
    for first, rows_RD in blocks():
        if taken is None:
            taken = np.zeros((len(images_C), rows_RD.shape[1]))
        here = np.flatnonzero((images_C >= first) & (images_C < first + len(rows_RD)))
        taken[here] = _unit(rows_RD[images_C[here] - first])
    assert taken is not None
    return taken


def _nearer_half(unit_RD: Doubles, labels_R: Ints, centres_HD: Doubles) -> Array:
    halves_R = np.full(len(labels_R), -1, np.int8)
    clustered = np.flatnonzero(labels_R >= 0)
    places = 2 * labels_R[clustered]
    first = (unit_RD[clustered] * centres_HD[places]).sum(1)
    second = (unit_RD[clustered] * centres_HD[places + 1]).sum(1)
    halves_R[clustered] = second > first
    return halves_R


def _sums(blocks: Blocks, labels_N: Ints, count: int) -> Doubles:
    """Sums of the unit rows of each group 0 .. count-1; -1 is left out."""
    sums: Doubles | None = None
    for first, rows_RD in blocks():
        labels_R = labels_N[first : first + len(rows_RD)]
        if sums is None:
            sums = np.zeros((count, rows_RD.shape[1]))
        order = np.argsort(labels_R, kind="stable")
        order = order[labels_R[order] >= 0]
        if len(order):
            groups, starts = np.unique(labels_R[order], return_index=True)
            sums[groups] += np.add.reduceat(_unit(rows_RD[order]), starts, axis=0)
    assert sums is not None
    return sums


def _farthest(labels_N: Ints, away_N: Floats, count: int) -> Ints:
    """The image of each cluster that is farthest from its centroid."""
    order_N = np.lexsort((-away_N, labels_N))
    order_M = order_N[labels_N[order_N] >= 0]
    starts_C = np.searchsorted(labels_N[order_M], np.arange(count))
    return order_M[starts_C]


def _most_common(labels_N: Ints, nearest_N: Array, count: int) -> Array:
    """For each cluster the value that most of its images have; the smallest of equals."""
    found_C = np.full(count, -1, np.int32)
    kept = (labels_N >= 0) & (nearest_N >= 0)
    if kept.any():
        pairs_2U, times_U = np.unique(np.stack([labels_N[kept], nearest_N[kept]]), axis=1, return_counts=True)
        order_U = np.lexsort((-pairs_2U[1], times_U))  # what comes last is kept
        found_C[pairs_2U[0][order_U]] = pairs_2U[1][order_U]
    return found_C


def _pieces(blocks: Blocks, at_once: int) -> Iterable[tuple[int, Floats]]:
    for first, rows_RD in blocks():
        for start in range(0, len(rows_RD), at_once):
            yield first + start, rows_RD[start : start + at_once]


def _doubt(inside: Array, outside: Array, told: Array) -> Floats:
    doubts = inside / np.maximum(inside + outside, 1e-12)
    return np.round(np.where(told, doubts, UNKNOWN), 4).astype(np.float32)  # the last bits depend on the threads


def _unit(rows: Array) -> Doubles:
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _chord(similarities: Array) -> Array:
    """Euclidean distance of unit vectors with these inner products."""
    return np.sqrt(np.maximum(2 - 2 * np.maximum(similarities, -1.0), 0.0))
