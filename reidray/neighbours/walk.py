"""An order of all images in which neighbours follow each other, so that short stretches of it are graphs of neighbours.

N = images, K = neighbours.
"""

from __future__ import annotations

import numpy as np

from reidray.arrays import Array, Ints
from reidray.compiled import njit


def neighbour_walk(indices_NK: Array, starts_N: Ints) -> Ints:
    """A walk over the nearest neighbours: from each image to its nearest one that was not visited yet.

    Where all neighbours of an image were visited, the walk goes on from the next image of `starts_N`. These should be
    shuffled: data sets are sorted by person, so images that are left over would else meet others of their person.

    Args:
      indices_NK: the nearest images of each, most similar first; the image itself may be among them.
      starts_N: every image once.

    Returns:
      int64 [N], every image once.
    """
    return _walked(np.ascontiguousarray(indices_NK), np.ascontiguousarray(starts_N, dtype=np.int64))


@njit(cache=True, nogil=True)
def _walked(indices_NK: Array, starts_N: Array) -> Array:
    count = len(starts_N)
    order_N = np.empty(count, np.int64)
    visited_N = np.zeros(count, np.bool_)
    here, start = -1, 0
    for place in range(count):
        found = -1
        if here >= 0:
            for other in indices_NK[here]:
                if not visited_N[other]:
                    found = other
                    break
        while found < 0:
            if not visited_N[starts_N[start]]:
                found = starts_N[start]
            start += 1
        order_N[place] = found
        visited_N[found] = True
        here = found
    return order_N
