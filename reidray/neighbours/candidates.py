"""Running lists of the best candidates of each query, filled from blocks of products.

A list has room for M candidates, in no order, and a bar that a product must be above to be taken. When a list is full,
its k-th product says what can still matter: with `gap` and `slope` of the product's error bound, an image whose product
is below `kth - slope |kth| - gap` is certainly not among the k most similar. That becomes the bar, and what is below
leaves the list. If everything in a full list can still matter, it is closed and the query must be searched again.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import prange, types
from numba.extending import overload

from reidray.arrays import Array, Doubles, Floats
from reidray.compiled import njit
from reidray.threads import parallel_kernel

# Q = queries, M = room in a list, R, S = rows and columns of a block of products

_STRIP = 128  # columns that a thread looks through at once
_STRETCH = 64  # entries compared with the bar at once; a constant, or the loop is not vectorised
_GROUP = 16  # entries, at most, whose largest stands for them in the first bar

_MARGIN = 1e-6  # covers the rounding of the cut itself


class Candidates(NamedTuple):
    """The lists of all queries.

    Attributes:
      scores_QM: products of the candidates. indices_QM: int32, which images they are. sizes_Q: int32, how many.
      bars_Q: a product must be above it to be taken.
      closed_Q: whether images that may matter were turned away.
      gap_Q: see `Product`.
    """

    scores_QM: Floats
    indices_QM: Array
    sizes_Q: Array
    bars_Q: Floats
    closed_Q: Array
    gap_Q: Doubles


def no_candidates(gap_Q: Doubles, room: int) -> Candidates:
    """Empty lists with `room` places, at least k, for queries with these gaps."""
    count = len(gap_Q)
    return Candidates(
        scores_QM=np.empty((count, room), np.float32),
        indices_QM=np.empty((count, room), np.int32),
        sizes_Q=np.zeros(count, np.int32),
        bars_Q=np.full(count, -np.inf, np.float32),
        closed_Q=np.zeros(count, np.bool_),
        gap_Q=gap_Q,
    )


@parallel_kernel
def offer_columns(products_RS: Any, first_row: int, first_column: int, candidates: Any, k: int, slope: float) -> None:
    """Offers every column of the block to the query of each row."""
    rows, columns = products_RS.shape
    for r in prange(rows):
        query = first_row + r
        products_S = products_RS[r]
        if candidates.bars_Q[query] == -np.inf:
            _set_first_bar(candidates, query, _largest_of_each(products_S, k), k, slope)
        bar = _bar(products_S, candidates.bars_Q[query])
        places = np.empty(_STRETCH, np.int64)
        for start in range(0, columns, _STRETCH):
            some_S = products_S[start : start + _STRETCH]
            if _none_above(some_S, bar):
                continue
            for c in places[: _find_above(some_S, bar, places)]:
                if some_S[c] > bar:  # it may have risen
                    _add(candidates, query, _value(some_S[c]), first_column + start + c, k, slope)
                    bar = _bar(products_S, candidates.bars_Q[query])


@parallel_kernel
def offer_rows(products_RS: Any, first_row: int, first_column: int, candidates: Any, k: int, slope: float) -> None:
    """Offers every row of the block to the query of each column."""
    rows, columns = products_RS.shape
    for strip in prange((columns + _STRIP - 1) // _STRIP):
        start = strip * _STRIP
        stop = min(start + _STRIP, columns)
        if candidates.bars_Q[first_column + start] == -np.inf:
            _set_first_bars(products_RS[:, start:stop], first_column + start, candidates, k, slope)
        bars = np.empty(stop - start, products_RS.dtype)
        for c in range(stop - start):
            bars[c] = _bar(bars, candidates.bars_Q[first_column + start + c])
        places = np.empty(_STRETCH, np.int64)
        for r in range(rows):
            for stretch in range(start, stop, _STRETCH):
                some_S = products_RS[r, stretch : min(stretch + _STRETCH, stop)]
                bars_S = bars[stretch - start : stretch - start + _STRETCH]
                if _none_above_its_own(some_S, bars_S):
                    continue
                for c in places[: _find_above_its_own(some_S, bars_S, places)]:
                    if some_S[c] > bars_S[c]:
                        query = first_column + stretch + c
                        _add(candidates, query, _value(some_S[c]), first_row + r, k, slope)
                        bars_S[c] = _bar(bars, candidates.bars_Q[query])


@njit(cache=True, nogil=True)
def _none_above(some_S: Any, bar: Any) -> Any:
    """Whether this is a whole stretch in which no product is above the bar."""
    if some_S.shape[0] != _STRETCH:
        return False
    above = 0
    for c in range(_STRETCH):
        above += some_S[c] > bar
    return above == 0


@njit(cache=True, nogil=True)
def _none_above_its_own(some_S: Any, bars_S: Any) -> Any:
    """The same where each product has a bar of its own."""
    if some_S.shape[0] != _STRETCH:
        return False
    above = 0
    for c in range(_STRETCH):
        above += some_S[c] > bars_S[c]
    return above == 0


# Written without a branch: which product is above is not to be foreseen, and a wrong guess costs more than a store.


@njit(cache=True, nogil=True)
def _find_above(some_S: Any, bar: Any, places: Any) -> int:
    """How many products of a stretch are above the bar; `places` begins with where they are."""
    found = 0
    for c in range(some_S.shape[0]):
        places[found] = c
        found += some_S[c] > bar
    return found


@njit(cache=True, nogil=True)
def _find_above_its_own(some_S: Any, bars_S: Any, places: Any) -> int:
    """The same where each product has a bar of its own."""
    found = 0
    for c in range(some_S.shape[0]):
        places[found] = c
        found += some_S[c] > bars_S[c]
    return found


# A list that meets its first block would take most of it. The largest products of short groups are as many products,
# so the k-th largest of them is not above the k-th largest of all: a bar to begin with.


@njit(cache=True, nogil=True)
def _group_size(count: int, k: int) -> int:
    """So small that there are several times k groups where that is possible."""
    return max(1, min(_GROUP, count // (4 * k)))


@njit(cache=True, nogil=True)
def _largest_of_each(products_S: Any, k: int) -> Any:
    """The largest product of each whole group: every G-th product, so that groups are compared side by side."""
    size = _group_size(products_S.shape[0], k)
    groups = products_S.shape[0] // size
    largest_G = products_S[:groups].copy()
    for member in range(1, size):
        others_G = products_S[member * groups : (member + 1) * groups]
        for g in range(groups):
            largest_G[g] = max(largest_G[g], others_G[g])
    return largest_G


@njit(cache=True, nogil=True)
def _set_first_bars(products_RS: Any, first_column: int, candidates: Any, k: int, slope: float) -> None:
    """As `_set_first_bar` for the query of each column."""
    rows, columns = products_RS.shape
    size = _group_size(rows, k)
    largest_GS = np.empty((rows // size, columns), products_RS.dtype)
    for g in range(largest_GS.shape[0]):
        largest_GS[g] = products_RS[g * size]
        for r in range(g * size + 1, (g + 1) * size):
            for c in range(columns):
                largest_GS[g, c] = max(largest_GS[g, c], products_RS[r, c])
    for c in range(columns):
        _set_first_bar(candidates, first_column + c, largest_GS[:, c].copy(), k, slope)


@njit(cache=True, nogil=True)
def _set_first_bar(candidates: Any, query: int, largest_G: Any, k: int, slope: float) -> None:
    """Raises the bar of a list that has none yet; in a strip of columns some lists have, and may be closed."""
    if candidates.bars_Q[query] == -np.inf and largest_G.shape[0] >= k:
        kth = _value(_kth_largest(largest_G, k))
        if kth > 0:
            candidates.bars_Q[query] = _below(kth, candidates.gap_Q[query], slope)


@njit(cache=True, nogil=True)
def _add(candidates: Any, query: int, score: Any, index: int, k: int, slope: float) -> None:
    size = candidates.sizes_Q[query]
    assert size < candidates.scores_QM.shape[1]
    candidates.scores_QM[query, size] = score
    candidates.indices_QM[query, size] = index
    candidates.sizes_Q[query] = size + 1
    if size + 1 == candidates.scores_QM.shape[1]:
        shorten(candidates, query, k, slope)
        if candidates.sizes_Q[query] == size + 1:
            candidates.closed_Q[query] = True
            candidates.bars_Q[query] = np.inf


@njit(cache=True, nogil=True)
def shorten(candidates: Any, query: int, k: int, slope: float) -> None:
    """Raises the bar of a list to what can still matter, and drops the candidates that are not above it."""
    size = candidates.sizes_Q[query]
    if size < k:
        return
    scores_M, indices_M = candidates.scores_QM[query], candidates.indices_QM[query]
    bar = _below(_kth_largest(scores_M[:size].copy(), k), candidates.gap_Q[query], slope)
    kept = 0
    for m in range(size):
        if scores_M[m] > bar:
            scores_M[kept] = scores_M[m]
            indices_M[kept] = indices_M[m]
            kept += 1
    candidates.sizes_Q[query] = kept
    candidates.bars_Q[query] = bar


@njit(cache=True, nogil=True)
def _below(kth: Any, gap: float, slope: float) -> Any:
    """The bar: nothing that is not above it can be among the k most similar when k products are at least `kth`."""
    return np.float32(np.float64(kth) - slope * abs(np.float64(kth)) - gap - _MARGIN)


@njit(cache=True, nogil=True)
def _kth_largest(scores: Any, k: int) -> Any:
    """The k-th largest score; leaves them in another order (Hoare's selection)."""
    low, high, place = 0, scores.shape[0] - 1, k - 1
    while low < high:
        pivot = scores[place]
        i, j = low, high
        while i <= j:
            while scores[i] > pivot:
                i += 1
            while scores[j] < pivot:
                j -= 1
            if i <= j:
                scores[i], scores[j] = scores[j], scores[i]
                i += 1
                j -= 1
        if j < place:
            low = i
        if place < i:
            high = j
    return scores[place]


# Products come as float32, or as the bits of bfloat16 (int16), which order like numbers from 0 on: those below 0 are
# never candidates, and a query that would need them is searched again in float32.


def _value(product: Any) -> Any:
    """A product as float32."""


@overload(_value)
def _value_of(product: Any) -> Any:
    def of_bits(product: Any) -> Any:
        return np.uint32(np.uint32(np.uint16(product)) << np.uint32(16)).view(np.float32)

    def of_number(product: Any) -> Any:
        return product

    return of_bits if isinstance(product, types.Integer) else of_number


def _bar(products: Any, score: Any) -> Any:
    """What a product must be above, as a product of this kind, to have a score above this one."""


@overload(_bar)
def _bar_for(products: Any, score: Any) -> Any:  # noqa: ARG001
    def as_bits(products: Any, score: Any) -> Any:  # noqa: ARG001
        return np.int16(np.float32(max(score, np.float32(0.0))).view(np.uint32) >> np.uint32(16))

    def as_number(products: Any, score: Any) -> Any:  # noqa: ARG001
        return score

    return as_bits if isinstance(products.dtype, types.Integer) else as_number
