"""How many gallery images stand before each true match of a query.

The true matches are put in order by exact similarity first. Blocks of a float32 matrix product are then compared with
them: a product further from a match's similarity than a product can be wrong decides, one that is closer is replaced by
the exact similarity. So the counts are those of exact similarities, whatever the product, the blocks and the threads.
"""

from typing import Any, NamedTuple

import numpy as np

from reidray.arrays import Floats, Ints
from reidray.compiled import njit
from reidray.neighbours.similarity import similarity

# B = queries of one block, G = gallery, K = gallery images that count, S = those of one block, D = feature width,
# M = places for the matches of all queries of a block, P = matches of one query, T = products of one stretch

_STRETCH = 256  # products that stay in the first cache while all matches are compared with them
_FEW = 96  # of so many matches each is compared with each product; among more, the product's place is searched


class Images(NamedTuple):
    """The gallery images that count, and where each query's person is among them.

    Attributes:
      rows_K: their rows in the gallery's features, rising. Elsewhere here an image is named by its place in this list.
      by_person_K: images by person, those of one person rising.
      first_B, last_B: by_person_K[first_B[b] : last_B[b]] are the images of query b's person.
    """

    rows_K: Ints
    by_person_K: Ints
    first_B: Ints
    last_B: Ints


class Matches(NamedTuple):
    """The true matches of a block of queries, best first; those of query b are the counts_B[b] from starts_B[b] on.

    Attributes:
      starts_B, counts_B: as said.
      similarities_M, images_M: of each match.
      before_M: images of other people that stand before it, as far as counted.
    """

    starts_B: Ints
    counts_B: Ints
    similarities_M: Floats
    images_M: Ints
    before_M: Ints


def ordered_matches(
    queries_BD: Floats, gallery_GD: Floats, cameras_B: Ints, cameras_G: Ints, images: Images
) -> Matches:
    """The true matches of each query by falling similarity, equal ones by rising image; nothing counted yet.

    Args:
      queries_BD, gallery_GD: unit rows.
      cameras_B, cameras_G: an image of the person in the query's camera is no match, unless that is negative: unknown.
      images: of the gallery.
    """
    rooms_B = images.last_B - images.first_B
    room = int(rooms_B.sum())
    matches = Matches(
        starts_B=np.cumsum(rooms_B) - rooms_B,
        counts_B=np.zeros(len(queries_BD), np.int64),
        similarities_M=np.empty(room, np.float32),
        images_M=np.empty(room, np.int64),
        before_M=np.zeros(room, np.int64),
    )
    _order(queries_BD, gallery_GD, cameras_B, cameras_G, images, matches)
    return matches


@njit(cache=True, nogil=True)
def _order(queries_BD: Any, gallery_GD: Any, cameras_B: Any, cameras_G: Any, images: Images, matches: Matches) -> None:
    for b in range(queries_BD.shape[0]):
        own_P = images.by_person_K[images.first_B[b] : images.last_B[b]]
        room = slice(matches.starts_B[b], matches.starts_B[b] + own_P.shape[0])
        matches.counts_B[b] = _order_one(
            queries_BD[b],
            gallery_GD,
            cameras_B[b],
            cameras_G,
            images.rows_K,
            own_P,
            matches.similarities_M[room],
            matches.images_M[room],
        )


@njit(cache=True, nogil=True)
def _order_one(
    query_D: Any,
    gallery_GD: Any,
    camera: int,
    cameras_G: Any,
    rows_K: Any,
    own_P: Any,
    similarities_P: Any,
    images_P: Any,
) -> int:
    """Fills the matches among the images of the query's person; returns how many there are."""
    count = 0
    for image in own_P:
        row = rows_K[image]
        if camera < 0 or camera != cameras_G[row]:
            similarities_P[count] = similarity(query_D, gallery_GD[row])
            images_P[count] = image
            count += 1
    order_P = np.argsort(-similarities_P[:count], kind="mergesort")  # stable: equal ones stay in order
    similarities_P[:count] = similarities_P[:count][order_P]
    images_P[:count] = images_P[:count][order_P]
    return count


@njit(cache=True, nogil=True)
def count_before(
    products_BS: Any, error: float, queries_BD: Any, columns_SD: Any, first: int, images: Images, matches: Matches
) -> None:
    """Adds to `matches.before_M` the images first .. first + S - 1 that stand before each match.

    Args:
      products_BS: inner products of queries and images, each within `error` of the similarity; overwritten in part.
      queries_BD, columns_SD: their features.
    """
    for b in range(products_BS.shape[0]):
        products_S = products_BS[b]
        for image in images.by_person_K[images.first_B[b] : images.last_B[b]]:  # their order is known already
            if first <= image < first + products_S.shape[0]:
                products_S[image - first] = -np.inf
        count = matches.counts_B[b]
        own = slice(matches.starts_B[b], matches.starts_B[b] + count)
        similarities_P, images_P, before_P = matches.similarities_M[own], matches.images_M[own], matches.before_M[own]
        if count <= _FEW:
            _compare(products_S, error, queries_BD[b], columns_SD, first, similarities_P, images_P, before_P)
        else:
            _search(products_S, error, queries_BD[b], columns_SD, first, similarities_P, images_P, before_P)


@njit(cache=True, nogil=True)
def _compare(
    products_S: Any,
    error: float,
    query_D: Any,
    columns_SD: Any,
    first: int,
    similarities_P: Any,
    images_P: Any,
    before_P: Any,
) -> None:
    """Compares each product with each match. Counters are as wide as products: one instruction counts several."""
    close_T = np.empty(_STRETCH, np.bool_)
    for start in range(0, products_S.shape[0], _STRETCH):
        products_T = products_S[start : start + _STRETCH]
        some_close = False
        for p in range(similarities_P.shape[0] - 1, -1, -1):
            above = np.float32(similarities_P[p] + error)
            below = np.float32(similarities_P[p] - error)
            surely = maybe = np.int32(0)
            for t in range(products_T.shape[0]):
                surely = np.int32(surely + np.int32(products_T[t] > above))
                maybe = np.int32(maybe + np.int32(products_T[t] >= below))
            if maybe == 0:
                break  # what is below this match is below all better ones
            before_P[p] += surely
            if maybe > surely:
                if not some_close:
                    close_T[:] = False
                    some_close = True
                for t in range(products_T.shape[0]):
                    close_T[t] |= (products_T[t] >= below) & (products_T[t] <= above)
        if some_close:
            for t in range(products_T.shape[0]):
                if close_T[t]:
                    column = start + t
                    value = similarity(query_D, columns_SD[column])
                    for p in range(similarities_P.shape[0]):
                        above = np.float32(similarities_P[p] + error)
                        below = np.float32(similarities_P[p] - error)
                        if products_T[t] >= below and products_T[t] <= above:
                            before_P[p] += _stands_before(value, first + column, similarities_P[p], images_P[p])


@njit(cache=True, nogil=True)
def _search(
    products_S: Any,
    error: float,
    query_D: Any,
    columns_SD: Any,
    first: int,
    similarities_P: Any,
    images_P: Any,
    before_P: Any,
) -> None:
    """Finds the first match that each image stands before, by halving, for the products of a stretch together.

    It sums instead of branching, because the processor cannot predict the branches. Places are unsigned, because numba
    would test signed ones for negative indices.
    """
    count = similarities_P.shape[0]
    above_P = (similarities_P + error).astype(np.float32)
    below_P = (similarities_P - error).astype(np.float32)
    places_T = np.empty(_STRETCH, np.uint64)
    arrivals_P = np.zeros(count + 1, np.int64)
    one = np.uint64(1)
    for start in range(0, products_S.shape[0], _STRETCH):
        products_T = products_S[start : start + _STRETCH]
        places_T[:] = 0
        length = np.uint64(count)
        while length > one:
            half = length >> one
            for t in range(products_T.shape[0]):
                places_T[t] += half * np.uint64(below_P[places_T[t] + half - one] > products_T[t])
            length -= half
        for t in range(products_T.shape[0]):
            place = np.int64(places_T[t])
            place += below_P[place] > products_T[t]
            if place < count and products_T[t] <= above_P[place]:
                column = start + t
                value = similarity(query_D, columns_SD[column])
                end = count
                while place < end:
                    middle = (place + end) // 2
                    if _stands_before(value, first + column, similarities_P[middle], images_P[middle]):
                        end = middle
                    else:
                        place = middle + 1
            arrivals_P[place] += 1
    arrived = 0
    for p in range(count):
        arrived += arrivals_P[p]
        before_P[p] += arrived


@njit(cache=True, nogil=True)
def _stands_before(value: Any, image: Any, other: Any, other_image: Any) -> Any:
    return value > other or (value == other and image < other_image)
