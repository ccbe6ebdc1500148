"""Smallest, largest and summed distance between every two clusters, kept while clusters are merged.

Built once from features; from then on merging is min of mins, max of maxes and sum of sums (the recurrences of G. N.
Lance and W. T. Williams, "A General Theory of Classificatory Sorting Strategies", The Computer Journal 9, 1967), and
features are not looked at again.

Of each symmetric matrix the part below the diagonal is kept, row after row: pair (i, j), i < j, lies at
j (j - 1) / 2 + i, whatever the number of clusters. New clusters are numbered by their lowest old one, so that a merged
row overwrites only rows that are not needed any more: merging happens in place.

Letters: N images, D feature width, C clusters, P = C (C - 1) / 2 pairs of clusters, G clusters after merging, L, M some
clusters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numba import prange

from reidray.arrays import Array, Doubles, Floats, Ints
from reidray.compiled import njit
from reidray.neighbours import unit_rows
from reidray.threads import parallel_kernel

_GRID = 2.0**25
"""Coordinates are rounded to multiples of 1 / _GRID; see `measure_clusters`."""

_ROWS, _COLUMNS = 512, 2048  # of one matrix product
_AT_ONCE = 1 << 22  # pairs that are merged before they are written
_MIN, _MAX, _SUM = 0, 1, 2


@dataclass
class ClusterDistances:
    """Distances between clusters and within them. `merge_clusters` and `merge_stage` change it; nothing else does.

    Attributes:
      labels_N: int64, the cluster of each image, 0 .. C-1, none empty.
      sizes_C: int64, images of each cluster.
      lowest_P: float32, smallest distance between an image of the one and an image of the other cluster.
      highest_P: float32, largest such distance; None where it was not asked for.
      total_P: float32, sum of all such distances; None where it was not asked for.
      within_C: float64, sum of the distances over the unordered pairs of images inside each cluster; None where
        total_P is. While every image is a cluster of its own, the three matrices are one and the same array.
    """

    labels_N: Ints
    sizes_C: Ints
    lowest_P: Floats
    highest_P: Floats | None
    total_P: Floats | None
    within_C: Doubles | None

    @property
    def num_clusters(self) -> int:
        return len(self.sizes_C)


def measure_clusters(features_ND: Array, labels_N: Array, *, highest: bool, total: bool) -> ClusterDistances:
    """Euclidean distances between clusters of unit features (IHC, Zhao et al., below eq. (4)).

    Rows are rounded to multiples of 2^-25, so that squared distances come out of float64 matrix products without any
    rounding: the same bit for bit for every number of threads, size of block, library and machine, and 0 between equal
    rows. Each distance is then within 2^-25 sqrt(D) (1.4e-6 at D = 2048; 1e-8 is usual) and one rounding to float32 of
    the distance between the rows as given. A sum over pairs of images is taken in float64 and rounded to float32 once
    here and once in each merging: after s mergings its relative error is below (s + 1) 2^-24. Smallest and largest
    distances are never rounded again.

    Needs 2 N^2 bytes and a float64 copy of the features while it measures, 2 C^2 bytes for each matrix afterwards.

    Args:
      features_ND: unit rows (length within 1e-3 of 1), N >= 1; used as float32.
      labels_N: the cluster of each image, 0 .. C-1, each used; np.arange(N) makes every image a cluster.
      highest, total: whether largest and summed distances are wanted beside the smallest.

    Errors:
      ValueError for rows that are zero, not finite or not of length 1 (naming the first such index), no rows, or labels
      that are not 0 .. C-1 with none left out.
    """
    features_ND = unit_rows(features_ND, name="features")
    if len(features_ND) == 0:
        raise ValueError("features must have at least one row; got none.")
    labels_N = _checked_labels(labels_N, len(features_ND))
    order_N = np.argsort(labels_N, kind="stable")
    distances_P = _image_distances(features_ND, order_N)
    distances = ClusterDistances(
        labels_N=np.argsort(order_N),  # image order_N[p] is cluster p
        sizes_C=np.ones(len(labels_N), np.int64),
        lowest_P=distances_P,
        highest_P=distances_P if highest else None,
        total_P=distances_P if total else None,
        within_C=np.zeros(len(labels_N)) if total else None,
    )
    merge_clusters(distances, labels_N[order_N])
    return distances


def merge_clusters(distances: ClusterDistances, merged_C: Array) -> None:
    """Joins all clusters that get the same number, in place.

    Args:
      distances: changed; it then describes the merged clusters.
      merged_C: the new number of each cluster, 0 .. G-1, in the order in which they first occur.

    Errors:
      ValueError when the new numbers are not of that form.
    """
    groups = _grouped(merged_C, distances.num_clusters)
    if len(groups.lowest_G) == distances.num_clusters:
        return
    lowest_P, highest_P, total_P = distances.lowest_P, distances.highest_P, distances.total_P
    if total_P is not None and distances.within_C is not None:
        distances.within_C = _joined_within(distances.within_C, total_P, groups)
        distances.total_P = _merged(total_P, groups, _SUM, in_place=total_P is not lowest_P)
    if highest_P is not None:
        distances.highest_P = _merged(highest_P, groups, _MAX, in_place=highest_P is not lowest_P)
    distances.lowest_P = _merged(lowest_P, groups, _MIN, in_place=True)
    distances.sizes_C = np.add.reduceat(distances.sizes_C[groups.members_C], groups.starts_G1[:-1])
    distances.labels_N = groups.merged_C[distances.labels_N]


def _checked_labels(labels_N: Array, count: int) -> Ints:
    labels_N = np.asarray(labels_N)
    if labels_N.shape != (count,) or not np.issubdtype(labels_N.dtype, np.integer):
        raise ValueError(
            f"labels must be integers, one for each of {count} images; got {labels_N.dtype} of shape {labels_N.shape}."
        )
    used = np.unique(labels_N)
    if used[0] != 0 or used[-1] != len(used) - 1:
        raise ValueError(
            f"labels must be 0 .. C-1 with none left out; got {len(used)} labels from {used[0]} to {used[-1]}. "
            "Number the clusters anew."
        )
    return labels_N.astype(np.int64)


# --- from features to distances of images -----------------------------------------------------------------------------


def _image_distances(features_ND: Floats, order_N: Ints) -> Floats:
    """Distances between the rows in the given order, below the diagonal."""
    count = len(order_N)
    rows_ND = np.empty(features_ND.shape)
    for start in range(0, count, _ROWS):
        some = order_N[start : start + _ROWS]
        rows_ND[start : start + len(some)] = np.rint(features_ND[some] * np.float64(_GRID)) / _GRID
    squares_N = np.einsum("nd,nd->n", rows_ND, rows_ND)
    distances_P = np.empty(count * (count - 1) // 2, np.float32)
    buffer = torch.empty(_ROWS * _COLUMNS, dtype=torch.float64)
    rows = torch.from_numpy(rows_ND)
    for first in range(0, count, _ROWS):
        last = min(first + _ROWS, count)
        for column in range(0, last, _COLUMNS):
            end = min(column + _COLUMNS, last)
            products = buffer[: (last - first) * (end - column)].view(last - first, end - column)
            torch.mm(rows[first:last], rows[column:end].T, out=products)  # scales over threads, NumPy's does not
            _write_distances(products.numpy(), squares_N, first, column, distances_P)
    return distances_P


@parallel_kernel
def _write_distances(products_RS: Array, squares_N: Array, first_row: int, first_column: int, out_P: Array) -> None:
    """Products of rows are multiples of 2^-50 below 2, so that neither they nor the squared distance are rounded."""
    for r in prange(products_RS.shape[0]):
        j = first_row + r
        start = j * (j - 1) // 2 + first_column
        square = squares_N[j]
        for s in range(min(products_RS.shape[1], j - first_column)):
            out_P[start + s] = np.sqrt((square + squares_N[first_column + s]) - 2.0 * products_RS[r, s])


# --- from clusters to merged clusters ---------------------------------------------------------------------------------


class _Groups(NamedTuple):
    """Old clusters by their new one.

    merged_C: the new number of each cluster. members_C: the clusters, by new number and then by old one; those of g lie
    at starts_G1[g] .. starts_G1[g + 1]. lowest_G: the first of each. others_L: all that are not the first of theirs,
    ascending. late_M: those of them that come after the first of a later group.
    """

    merged_C: Ints
    members_C: Ints
    starts_G1: Ints
    lowest_G: Ints
    others_L: Ints
    late_M: Ints


def _grouped(merged_C: Array, num_clusters: int) -> _Groups:
    merged_C = np.ascontiguousarray(merged_C, np.int64)
    if merged_C.shape != (num_clusters,):
        raise ValueError(
            f"expected a new number for each of {num_clusters} clusters, got shape {merged_C.shape}; give one each."
        )
    highest_C = np.maximum.accumulate(merged_C)
    rises_C = np.diff(highest_C, prepend=-1)
    if merged_C.min() < 0 or rises_C.max() > 1:
        raise ValueError("expected new numbers 0, 1, ... in the order in which they first occur, got others.")
    members_C = np.argsort(merged_C, kind="stable")
    return _Groups(
        merged_C=merged_C,
        members_C=members_C,
        starts_G1=np.searchsorted(merged_C[members_C], np.arange(highest_C[-1] + 2)),
        lowest_G=np.flatnonzero(rises_C),
        others_L=np.flatnonzero(rises_C == 0),
        late_M=np.flatnonzero(merged_C < highest_C),
    )


def _merged(old_P: Floats, groups: _Groups, operation: int, *, in_place: bool) -> Floats:
    """The matrix over the new clusters.

    A chunk of rows is made from the old ones before it is written: its place holds old rows below its last row only,
    and later rows are made from old rows of at least their own number.
    """
    count = len(groups.lowest_G)
    size = count * (count - 1) // 2
    new_P = old_P if in_place else np.empty(size, np.float32)
    for first, last in _chunks(count):
        begin, end = first * (first - 1) // 2, last * (last - 1) // 2
        scratch = np.empty(end - begin, np.float32)
        _merge_rows(old_P, groups, operation, first, last, scratch)
        new_P[begin:end] = scratch
    return new_P[:size]


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows with at most `_AT_ONCE` pairs each (or one row)."""
    first = 0
    while first < count:
        last = first + 1
        while last < count and last * (last + 1) // 2 - first * (first - 1) // 2 <= _AT_ONCE:
            last += 1
        yield first, last
        first = last


@parallel_kernel
def _merge_rows(old_P: Array, groups: _Groups, operation: int, first: int, last: int, scratch: Array) -> None:
    """Rows first .. last - 1 over the new clusters; sums in float64, in a fixed order."""
    begin = first * (first - 1) // 2
    neutral = np.inf if operation == _MIN else (-np.inf if operation == _MAX else 0.0)
    for row in prange(first, last):
        merged_row = np.full(row, neutral)
        for m in range(groups.starts_G1[row], groups.starts_G1[row + 1]):
            a = groups.members_C[m]
            start = a * (a - 1) // 2
            for column in range(row):  # the first of an earlier group lies before all of this one
                value = np.float64(old_P[start + groups.lowest_G[column]])
                merged_row[column] = _combined(operation, merged_row[column], value)
            for b in groups.others_L:
                if b >= a:
                    break
                column = groups.merged_C[b]
                if column < row:
                    value = np.float64(old_P[start + b])
                    merged_row[column] = _combined(operation, merged_row[column], value)
            for late in range(np.searchsorted(groups.late_M, a, side="right"), groups.late_M.shape[0]):
                b = groups.late_M[late]
                column = groups.merged_C[b]
                if column < row:
                    value = np.float64(old_P[b * (b - 1) // 2 + a])
                    merged_row[column] = _combined(operation, merged_row[column], value)
        scratch[row * (row - 1) // 2 - begin : row * (row + 1) // 2 - begin] = merged_row


@njit(cache=True, nogil=True)
def _combined(operation: int, value: float, other: float) -> float:
    if operation == _MIN:
        return min(value, other)
    if operation == _MAX:
        return max(value, other)
    return value + other


@parallel_kernel
def _joined_within(within_C: Array, total_P: Array, groups: _Groups) -> Array:
    """Sums inside the new clusters: those inside the old ones, then those between them."""
    within_G = np.zeros(groups.lowest_G.shape[0])
    for g in prange(within_G.shape[0]):
        begin, end = groups.starts_G1[g], groups.starts_G1[g + 1]
        joined = 0.0
        for m in range(begin, end):
            a = groups.members_C[m]
            joined += within_C[a]
            for lower in range(begin, m):
                joined += np.float64(total_P[a * (a - 1) // 2 + groups.members_C[lower]])
        within_G[g] = joined
    return within_G
