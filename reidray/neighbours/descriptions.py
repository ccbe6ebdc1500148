"""The encoding of an image: weights on its k-reciprocal neighbours (Zhong et al., CVPR 2017, eq. 3, 7 and 11)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from reidray.arrays import Array, Floats, Ints
from reidray.compiled import njit
from reidray.neighbours.ordering import Places
from reidray.neighbours.reciprocal import Reciprocal
from reidray.neighbours.sparse_rows import Rows, add, empty_set, in_pieces, joined, longer, take_all

# N = images by index, P = images by place, K = neighbours (the image itself is one of them), U = pairs of images,
# H = columns of the half lists, E = stored entries; ends_P1: row p lies at ends[p] .. ends[p + 1]

_ENTRIES = 48  # room for so many entries a row at first

SimilaritiesOf = Callable[[Ints, Ints], Floats]
"""Of two lists of images of the same length, the `similarity` of each pair; pairs come with close ones together."""


def described(
    places: Places, neighbours_PK: Array, similarities_PK: Array, sets: Reciprocal, similarities_of: SimilaritiesOf
) -> Rows:
    """Weights of each image on its expanded k-reciprocal neighbours.

    To R(i, K) are added the sets R(j, H) of those of its members j that have more than two thirds of R(j, H) in R(i, K)
    (eq. 3). Their weights are the softmax of -|x_i - x_j|^2 = -(2 - 2 s) (eq. 7), in float64, rounded to float32.

    Args:
      places, neighbours_PK, similarities_PK, sets: all by place.
      similarities_of: is asked for the similarities that stand in neither of the two lists.

    Returns:
      rows by place; the columns are places too, in the order of their images' indices. A row is empty when no neighbour
      is reciprocal.
    """
    arguments = (*places, neighbours_PK, similarities_PK, *sets)
    rows = Rows(*joined(in_pieces(_describe, len(neighbours_PK), *arguments)))
    unknown_U = np.flatnonzero(np.isnan(rows.values_E))
    if len(unknown_U):
        firsts_U = places.images_P[np.searchsorted(rows.ends_N1, unknown_U, side="right") - 1]
        seconds_U = places.images_P[rows.columns_E[unknown_U]]
        rows.values_E[unknown_U] = similarities_of(firsts_U.astype(np.int64), seconds_U.astype(np.int64))
    in_pieces(_soften, len(neighbours_PK), rows.ends_N1, rows.values_E)
    return rows


def averaged(rows: Rows, places: Places, nearest_PK: Array) -> Rows:
    """The mean of the rows of each image's nearest images (eq. 11), summed in float32 from the nearest on."""
    return Rows(*joined(in_pieces(_average, len(nearest_PK), *places, nearest_PK, *rows)))


@njit(cache=True, nogil=True)
def _describe(
    first: int,
    last: int,
    images_P: Any,
    places_N: Any,
    neighbours_PK: Any,
    similarities_PK: Any,
    members_PK: Any,
    sizes_P: Any,
    halves_PH: Any,
    half_sizes_P: Any,
) -> Any:
    """Expanded sets and similarities, NaN where these stand in no list."""
    count, neighbours = neighbours_PK.shape
    unknown = np.float32(np.nan)
    words_W, groups_G = empty_set(count)
    inside_P = np.zeros(count, np.bool_)
    known_P = np.full(count, unknown, np.float32)
    found = np.empty(count, np.int32)
    lengths = np.empty(last - first, np.int64)
    columns_E = np.empty(_ENTRIES * (last - first), np.int32)
    values_E = np.empty(_ENTRIES * (last - first), np.float32)
    used = 0
    for p in range(first, last):
        _expand(members_PK[p, : sizes_P[p]], halves_PH, half_sizes_P, images_P, inside_P, words_W, groups_G)
        size = take_all(words_W, groups_G, found)
        if used + size > columns_E.shape[0]:
            columns_E, values_E = longer(columns_E, used + size), longer(values_E, used + size)
        for a in range(neighbours - 1, -1, -1):  # backwards: what a list holds twice counts where it stands first
            known_P[neighbours_PK[p, a]] = similarities_PK[p, a]
        for e in range(size):
            q = places_N[found[e]]
            value = known_P[q]
            if np.isnan(value):
                value = _look_up(neighbours_PK[q], similarities_PK[q], p)
            columns_E[used + e] = q
            values_E[used + e] = value
        for a in range(neighbours):
            known_P[neighbours_PK[p, a]] = unknown
        lengths[p - first] = size
        used += size
    return lengths, columns_E[:used], values_E[:used]


@njit(cache=True, nogil=True)
def _expand(
    members_K: Any,
    halves_PH: Any,
    half_sizes_P: Any,
    images_P: Any,
    inside_P: Any,
    words_W: Any,
    groups_G: Any,
) -> None:
    """Eq. 3 for one image: its expanded set, by index."""
    for a in range(members_K.shape[0]):
        inside_P[members_K[a]] = True
        add(words_W, groups_G, images_P[members_K[a]])
    for a in range(members_K.shape[0]):
        member = members_K[a]
        common = 0
        for b in range(half_sizes_P[member]):
            common += inside_P[halves_PH[member, b]]
        if 3 * common > 2 * half_sizes_P[member]:
            for b in range(half_sizes_P[member]):
                add(words_W, groups_G, images_P[halves_PH[member, b]])
    for a in range(members_K.shape[0]):
        inside_P[members_K[a]] = False


@njit(cache=True, nogil=True)
def _look_up(neighbours_K: Any, similarities_K: Any, place: Any) -> Any:
    """The similarity stored for a place in one neighbour list, or NaN."""
    for b in range(neighbours_K.shape[0]):
        if neighbours_K[b] == place:
            return similarities_K[b]
    return np.float32(np.nan)


@njit(cache=True, nogil=True)
def _soften(first: int, last: int, ends_P1: Any, values_E: Any) -> None:
    """Eq. 7 in place: similarities become weights."""
    powers = np.empty(0, np.float64)
    for p in range(first, last):
        start, stop = ends_P1[p], ends_P1[p + 1]
        if stop - start > powers.shape[0]:
            powers = np.empty(2 * (stop - start), np.float64)
        closest = np.float32(-np.inf)
        for e in range(start, stop):
            closest = max(closest, values_E[e])
        total = 0.0
        for e in range(start, stop):
            powers[e - start] = math.exp(2.0 * (np.float64(values_E[e]) - np.float64(closest)))
            total += powers[e - start]
        for e in range(start, stop):
            values_E[e] = powers[e - start] / total


@njit(cache=True, nogil=True)
def _average(
    first: int, last: int, images_P: Any, places_N: Any, nearest_PK: Any, ends_P1: Any, columns_E: Any, weights_E: Any
) -> Any:
    count, rows = nearest_PK.shape
    zero = np.float32(0.0)
    words_W, groups_G = empty_set(count)
    total_P = np.zeros(count, np.float32)  # weights are positive: 0 means not met yet
    found = np.empty(count + 1, np.int32)
    lengths = np.empty(last - first, np.int64)
    means_E = np.empty(_ENTRIES * (last - first), np.float32)
    places_E = np.empty(_ENTRIES * (last - first), np.int32)
    used = 0
    for p in range(first, last):
        size = 0
        for a in range(rows):
            q = nearest_PK[p, a]
            for e in range(ends_P1[q], ends_P1[q + 1]):
                column = columns_E[e]
                found[size] = column
                size += total_P[column] == zero
                total_P[column] += weights_E[e]
        for e in range(size):
            add(words_W, groups_G, images_P[found[e]])
        size = take_all(words_W, groups_G, found)
        if used + size > places_E.shape[0]:
            places_E, means_E = longer(places_E, used + size), longer(means_E, used + size)
        for e in range(size):
            column = places_N[found[e]]
            places_E[used + e] = column
            means_E[used + e] = total_P[column] / np.float32(rows)
            total_P[column] = zero
        lengths[p - first] = size
        used += size
    return lengths, places_E[:used], means_E[:used]
