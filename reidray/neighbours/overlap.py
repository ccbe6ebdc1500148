"""Which images have descriptions that overlap enough: eq. 10 of k-reciprocal encoding (Zhong et al., CVPR 2017).

Two images at distance d share s = 2 (1 - d) / (2 - d) of their descriptions. With all columns in one order, rare ones
first, a pair that shares s must meet in the first columns of both rows, namely before less than s is left of either
row: a column after that can add no more than what is left. So only the first columns are searched for pairs (prefix
filtering: R. Bayardo et al., "Scaling Up All Pairs Similarity Search", WWW 2007), and what is found is then compared in
full. Nothing is lost, and the sums are those of the unfiltered comparison to the last bit.
"""

from typing import Any

import numpy as np

from reidray.arrays import Array
from reidray.compiled import njit
from reidray.neighbours.ordering import Places
from reidray.neighbours.sparse_rows import Rows, add, empty_set, in_pieces, joined, longer, row_ends, take_all

# N = images by index, P = images by place, E = stored entries; ends_P1: row p lies at ends[p] .. ends[p + 1]
# rank: the place of a column in the order "rare first"

_ENTRIES = 16  # room for so many pairs a row at first
_FLOAT32_ROUNDING = 2.0**-24


def close_pairs(rows: Rows, keep: float) -> Rows:
    """Distances of the pairs p < q with d < 1 and d <= keep (compared in float32), ascending in each row.

    d = 1 - s / (2 - s), at least 0, where s is the sum of the smaller weights in the order in which the columns stand
    in the rows; all in float32.

    Args:
      rows: by place, columns in one and the same order in all rows.
      keep: in (0, 1].
    """
    count = len(rows.ends_N1) - 1
    rank_P = _rare_first(count, rows.columns_E)
    first_ends_P1, first_ranks_E = joined(
        in_pieces(_first_columns, count, *rows, rank_P, _least_overlap(rows.ends_N1, keep))
    )
    holder_ends_P1, holders_E = _holders(first_ends_P1, first_ranks_E)
    firsts = (first_ends_P1, first_ranks_E, holder_ends_P1, holders_E)
    return Rows(*joined(in_pieces(_compare, count, *rows, *firsts, np.float32(keep))))


def both_ways(pairs: Rows, places: Places) -> Rows:
    """The pairs and the diagonal by image: both (i, j) and (j, i), columns ascending, 0 where i = j."""
    mirrored = Rows(*_mirror(*pairs))
    ends_N1 = row_ends(np.diff(mirrored.ends_N1)[places.places_N])
    by_image = Rows(ends_N1, np.empty_like(mirrored.columns_E), np.empty_like(mirrored.values_E))
    in_pieces(_renumber, len(places.images_P), *mirrored, places.images_P, *by_image)
    return by_image


def _least_overlap(ends_P1: Array, keep: float) -> float:
    """No pair that is kept shares less, whatever float32 made of its sum and its distance."""
    furthest = float(np.float32(keep))
    longest = int(np.diff(ends_P1).max())
    return 2.0 * (1.0 - furthest) / (2.0 - furthest) - 2.0 * (longest + 16) * _FLOAT32_ROUNDING


def _rare_first(count: int, columns_E: Array) -> Array:
    """The rank of each column: by how many rows hold it."""
    rank_P = np.empty(count, np.int32)
    rank_P[np.argsort(_lengths(count, columns_E), kind="stable")] = np.arange(count, dtype=np.int32)
    return rank_P


@njit(cache=True, nogil=True)
def _lengths(count: int, columns_E: Any) -> Any:
    lengths_P = np.zeros(count, np.int64)
    for column in columns_E:
        lengths_P[column] += 1
    return lengths_P


@njit(cache=True, nogil=True)
def _first_columns(
    first: int, last: int, ends_P1: Any, columns_E: Any, weights_E: Any, rank_P: Any, least: float
) -> Any:
    """Ranks of the columns of each row, ascending, up to where less than `least` is left of the row."""
    count = rank_P.shape[0]
    words_W, groups_G = empty_set(count)
    weight_R = np.empty(count, np.float32)
    found = np.empty(count, np.int32)
    lengths = np.empty(last - first, np.int64)
    ranks_E = np.empty(ends_P1[last] - ends_P1[first], np.int32)
    used = 0
    for p in range(first, last):
        left = 0.0
        for e in range(ends_P1[p], ends_P1[p + 1]):
            rank = rank_P[columns_E[e]]
            weight_R[rank] = weights_E[e]
            left += weights_E[e]
            add(words_W, groups_G, rank)
        size = take_all(words_W, groups_G, found)
        kept = 0
        while kept < size and left >= least:
            ranks_E[used + kept] = found[kept]
            left -= weight_R[found[kept]]
            kept += 1
        lengths[p - first] = kept
        used += kept
    return lengths, ranks_E[:used]


@njit(cache=True, nogil=True)
def _holders(ends_P1: Any, ranks_E: Any) -> Any:
    """The rows that hold each rank among their first columns, ascending: where each rank begins, and the rows."""
    count = ends_P1.shape[0] - 1
    holder_ends_P1 = np.zeros(count + 1, np.int64)
    for rank in ranks_E:
        holder_ends_P1[rank + 1] += 1
    for rank in range(count):
        holder_ends_P1[rank + 1] += holder_ends_P1[rank]
    next_P = holder_ends_P1[:count].copy()
    holders_E = np.empty(ranks_E.shape[0], np.int32)
    for p in range(count):
        for e in range(ends_P1[p], ends_P1[p + 1]):
            rank = ranks_E[e]
            holders_E[next_P[rank]] = p
            next_P[rank] += 1
    return holder_ends_P1, holders_E


@njit(cache=True, nogil=True)
def _compare(
    first: int,
    last: int,
    ends_P1: Any,
    columns_E: Any,
    weights_E: Any,
    first_ends_P1: Any,
    first_ranks_E: Any,
    holder_ends_P1: Any,
    holders_E: Any,
    furthest: Any,
) -> Any:
    count = ends_P1.shape[0] - 1
    zero, one, two = np.float32(0.0), np.float32(1.0), np.float32(2.0)
    words_W, groups_G = empty_set(count)
    weight_P = np.zeros(count, np.float32)
    found = np.empty(count, np.int32)
    lengths = np.empty(last - first, np.int64)
    places_E = np.empty(_ENTRIES * (last - first), np.int32)
    distances_E = np.empty(_ENTRIES * (last - first), np.float32)
    used = 0
    for p in range(first, last):
        for e in range(first_ends_P1[p], first_ends_P1[p + 1]):
            rank = first_ranks_E[e]
            h = holder_ends_P1[rank + 1] - 1
            while holders_E[h] > p:  # p itself is among them
                add(words_W, groups_G, holders_E[h])
                h -= 1
        size = take_all(words_W, groups_G, found)
        if used + size > places_E.shape[0]:
            places_E, distances_E = longer(places_E, used + size), longer(distances_E, used + size)
        for e in range(ends_P1[p], ends_P1[p + 1]):
            weight_P[columns_E[e]] = weights_E[e]
        start = used
        for a in range(size):
            q = found[a]
            overlap = zero
            for e in range(ends_P1[q], ends_P1[q + 1]):
                overlap += min(weight_P[columns_E[e]], weights_E[e])
            distance = max(zero, one - overlap / (two - overlap))
            if distance < one and distance <= furthest:
                places_E[used] = q
                distances_E[used] = distance
                used += 1
        for e in range(ends_P1[p], ends_P1[p + 1]):
            weight_P[columns_E[e]] = zero
        lengths[p - first] = used - start
    return lengths, places_E[:used], distances_E[:used]


@njit(cache=True, nogil=True)
def _mirror(ends_P1: Any, places_E: Any, distances_E: Any) -> Any:
    """All rows of the symmetric matrix whose upper triangle is given; its diagonal is 0."""
    count = ends_P1.shape[0] - 1
    new_ends_P1 = np.zeros(count + 1, np.int64)
    for p in range(count):
        new_ends_P1[p + 1] += 1 + ends_P1[p + 1] - ends_P1[p]
        for e in range(ends_P1[p], ends_P1[p + 1]):
            new_ends_P1[places_E[e] + 1] += 1
    for p in range(count):
        new_ends_P1[p + 1] += new_ends_P1[p]
    next_P = new_ends_P1[:count].copy()
    new_places_E = np.empty(new_ends_P1[count], np.int32)
    new_distances_E = np.empty(new_ends_P1[count], np.float32)
    for p in range(count):
        here = next_P[p]
        new_places_E[here] = p
        new_distances_E[here] = 0.0
        for e in range(ends_P1[p], ends_P1[p + 1]):
            q = places_E[e]
            here += 1
            new_places_E[here] = q
            new_distances_E[here] = distances_E[e]
            new_places_E[next_P[q]] = p
            new_distances_E[next_P[q]] = distances_E[e]
            next_P[q] += 1
    return new_ends_P1, new_places_E, new_distances_E


@njit(cache=True, nogil=True)
def _renumber(
    first: int,
    last: int,
    ends_P1: Any,
    places_E: Any,
    distances_E: Any,
    images_P: Any,
    ends_N1: Any,
    images_E: Any,
    new_distances_E: Any,
) -> None:
    """Writes the rows of the places first .. last - 1 where those of their images belong."""
    count = images_P.shape[0]
    words_W, groups_G = empty_set(count)
    distance_N = np.empty(count, np.float32)
    for p in range(first, last):
        for e in range(ends_P1[p], ends_P1[p + 1]):
            image = images_P[places_E[e]]
            distance_N[image] = distances_E[e]
            add(words_W, groups_G, image)
        start, stop = ends_N1[images_P[p]], ends_N1[images_P[p] + 1]
        take_all(words_W, groups_G, images_E[start:stop])
        for e in range(start, stop):
            new_distances_E[e] = distance_N[images_E[e]]
