"""What describes an image: weights on its k-reciprocal neighbours (Zhong et al., CVPR 2017, eq. 3, 7 and 11)."""

import math
from typing import Any

import numpy as np
from numba import njit

from reidray.arrays import Array, Floats
from reidray.neighbours.places import Places
from reidray.neighbours.reciprocal import Reciprocal
from reidray.neighbours.rows import Rows, add, empty_set, in_pieces, joined, longer, take_all
from reidray.neighbours.similarity import UNIT_TOLERANCE, similarity, unit_rows

# N = images by index, P = images by place, D = feature width, K = neighbours (the image itself is one of them),
# H = columns of the half lists, E = stored entries; ends_P1: row p lies at ends[p] .. ends[p + 1]

_ENTRIES = 48  # room for so many entries a row at first
_CERTAINLY_UNIT = 1.9 * UNIT_TOLERANCE  # of the squared length in float32, whose error is below the tenth left over
_NOT_YET, _UNIT, _DOUBTFUL = 0, 1, 2


def described(
    features_ND: Floats, places: Places, neighbours_PK: Array, similarities_PK: Array, sets: Reciprocal
) -> Rows:
    """Weights of each image on its expanded k-reciprocal neighbours.

    To R(i, K) are added the sets R(j, H) of those of its members j that have more than two thirds of R(j, H) in R(i, K)
    (eq. 3). Their weights are the softmax of -|x_i - x_j|^2 = -(2 - 2 s) (eq. 7), in float64, rounded to float32. A
    similarity that stands in neither of the two lists is computed.

    Args:
      features_ND: float32 rows by image.
      places, neighbours_PK, similarities_PK, sets: all by place.

    Errors:
      ValueError as `unit_rows`, if one of the rows that were needed has not length 1.

    Returns:
      rows by place; the columns are places too, in the order of their images' indices. A row is empty when no neighbour
      is reciprocal.
    """
    looked_at_N = np.full(len(features_ND), _NOT_YET, np.uint8)
    arguments = (features_ND, *places, neighbours_PK, similarities_PK, *sets, looked_at_N)
    rows = Rows(*joined(in_pieces(_describe, len(neighbours_PK), *arguments)))
    if (looked_at_N == _DOUBTFUL).any():
        unit_rows(features_ND, name="features")
    return rows


def averaged(rows: Rows, places: Places, nearest_PK: Array) -> Rows:
    """The mean of the rows of each image's nearest images (eq. 11), summed in float32 from the nearest on."""
    return Rows(*joined(in_pieces(_average, len(nearest_PK), *places, nearest_PK, *rows)))


@njit(cache=True, nogil=True)
def _describe(
    first: int,
    last: int,
    features_ND: Any,
    images_P: Any,
    places_N: Any,
    neighbours_PK: Any,
    similarities_PK: Any,
    members_PK: Any,
    sizes_P: Any,
    halves_PH: Any,
    half_sizes_P: Any,
    looked_at_N: Any,
) -> Any:
    count, neighbours = neighbours_PK.shape
    unknown = np.float32(np.nan)
    words_W, groups_G = empty_set(count)
    inside_P = np.zeros(count, np.bool_)
    known_P = np.full(count, unknown, np.float32)
    found = np.empty(count, np.int32)
    powers = np.empty(count, np.float64)
    lengths = np.empty(last - first, np.int64)
    columns_E = np.empty(_ENTRIES * (last - first), np.int32)
    weights_E = np.empty(_ENTRIES * (last - first), np.float32)
    used = 0
    for p in range(first, last):
        _expand(members_PK[p, : sizes_P[p]], halves_PH, half_sizes_P, images_P, inside_P, words_W, groups_G)
        size = take_all(words_W, groups_G, found)
        if used + size > columns_E.shape[0]:
            columns_E, weights_E = longer(columns_E, used + size), longer(weights_E, used + size)
        for a in range(neighbours - 1, -1, -1):  # backwards: what a list holds twice counts where it stands first
            known_P[neighbours_PK[p, a]] = similarities_PK[p, a]
        for e in range(size):
            q = places_N[found[e]]
            value = known_P[q]
            if np.isnan(value):
                value = _look_up(neighbours_PK[q], similarities_PK[q], p)
            if np.isnan(value):
                value = similarity(features_ND[images_P[p]], features_ND[found[e]])
                _look_at(features_ND, images_P[p], looked_at_N)
                _look_at(features_ND, found[e], looked_at_N)
            columns_E[used + e] = q
            weights_E[used + e] = value
        for a in range(neighbours):
            known_P[neighbours_PK[p, a]] = unknown
        _soften(weights_E[used : used + size], powers)
        lengths[p - first] = size
        used += size
    return lengths, columns_E[:used], weights_E[:used]


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
def _look_at(features_ND: Any, image: Any, looked_at_N: Any) -> None:
    """Notes whether a row has length 1 for certain. Pieces that look at one row at a time note the same."""
    if looked_at_N[image] == _NOT_YET:
        away = abs(_squared_length(features_ND[image]) - np.float32(1.0))
        looked_at_N[image] = _UNIT if away <= _CERTAINLY_UNIT else _DOUBTFUL


@njit(cache=True, nogil=True, fastmath={"reassoc"})  # only decides which rows are measured exactly
def _squared_length(row_D: Any) -> Any:
    total = np.float32(0.0)
    for c in range(row_D.shape[0]):
        total += row_D[c] * row_D[c]
    return total


@njit(cache=True, nogil=True)
def _soften(values: Any, powers: Any) -> None:
    """Eq. 7 for one image: similarities become weights."""
    closest = np.float32(-np.inf)
    for e in range(values.shape[0]):
        closest = max(closest, values[e])
    total = 0.0
    for e in range(values.shape[0]):
        powers[e] = math.exp(2.0 * (np.float64(values[e]) - np.float64(closest)))
        total += powers[e]
    for e in range(values.shape[0]):
        values[e] = powers[e] / total


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
