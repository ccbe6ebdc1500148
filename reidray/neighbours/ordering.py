"""A numbering in which similar images are close together.

Everything after the neighbour search visits an image and then its neighbours. In an arbitrary numbering these are
spread over the memory; in this one most are next to each other and still in the processor's cache. Results do not
depend on it: where an order of images matters, it is that of their indices.
"""

from typing import Any, NamedTuple

import numpy as np

from reidray.arrays import Array
from reidray.compiled import njit
from reidray.neighbours.sparse_rows import in_pieces

_COLUMNS = 12  # of the lists, for the walk; more are no better

# N = images by index, P = images by place (as many), K = neighbours


class Places(NamedTuple):
    """images_P: the image at each place; places_N: the place of each image. int32."""

    images_P: Array
    places_N: Array


def near_places(neighbours_NK: Array) -> Places:
    """Each image is followed by its nearest neighbour that has no place yet, and so on; where there is none, by that of
    the image before it (a depth-first walk)."""
    images_P, places_N = _walk(neighbours_NK[:, :_COLUMNS])
    return Places(images_P, places_N)


def by_place(places: Places, neighbours_NK: Array, similarities_NK: Array) -> tuple[Array, Array]:
    """The lists at each place: places of the neighbours, int32 [P, K], and their similarities, float32 [P, K]."""
    neighbours_PK = np.empty(neighbours_NK.shape, np.int32)
    similarities_PK = np.empty(neighbours_NK.shape, np.float32)
    in_pieces(_move, len(neighbours_NK), *places, neighbours_NK, similarities_NK, neighbours_PK, similarities_PK)
    return neighbours_PK, similarities_PK


@njit(cache=True, nogil=True)
def _walk(neighbours_NK: Any) -> Any:
    count, columns = neighbours_NK.shape
    images_P = np.empty(count, np.int32)
    places_N = np.full(count, -1, np.int32)
    path = np.empty(count, np.int32)
    next_column = np.empty(count, np.int32)
    taken = 0
    for start in range(count):
        if places_N[start] >= 0:
            continue
        depth = 0
        path[0], next_column[0] = start, 0
        places_N[start] = taken
        images_P[taken] = start
        taken += 1
        while depth >= 0:
            column = next_column[depth]
            if column == columns:
                depth -= 1
                continue
            next_column[depth] = column + 1
            image = neighbours_NK[path[depth], column]
            if places_N[image] < 0:
                places_N[image] = taken
                images_P[taken] = image
                taken += 1
                depth += 1
                path[depth], next_column[depth] = image, 0
    return images_P, places_N


@njit(cache=True, nogil=True)
def _move(
    first: int,
    last: int,
    images_P: Any,
    places_N: Any,
    neighbours_NK: Any,
    similarities_NK: Any,
    neighbours_PK: Any,
    similarities_PK: Any,
) -> None:
    for p in range(first, last):
        i = images_P[p]
        for a in range(neighbours_PK.shape[1]):
            neighbours_PK[p, a] = places_N[neighbours_NK[i, a]]
            similarities_PK[p, a] = similarities_NK[i, a]
