"""Exact nearest neighbours by inner product, in blocks: never an N x N matrix.

A matrix product with a known error bound (`product.py`) proposes candidates (`candidates.py`); their similarities are
taken again from `similarity`, and a row is accepted when nothing outside its candidates can have come closer than its
k-th neighbour. Rows that fail this certificate (many equal or almost equal neighbours) are searched again in full. The
result is thus that of an exhaustive search with exact similarities, whichever product proposed the candidates.

Where the queries are the rows themselves, each pair of blocks is multiplied once for both directions: half the
arithmetic of a full product.
"""

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numba import prange

from reidray.arrays import Array, Doubles, Floats, Ints
from reidray.compiled import njit
from reidray.neighbours.candidates import Candidates, no_candidates, offer_columns, offer_rows, shorten
from reidray.neighbours.product import Product, fastest_product, float32_product, product_error
from reidray.neighbours.similarity import similarity, unit_rows
from reidray.threads import parallel_kernel

# N = images, Q = queries, D = feature width, K = neighbours, M = room for candidates, U = uncertain queries

_SMALLEST_ROOM = 96
_PANEL = 8  # blocks of rows that are kept prepared while columns pass by
_SOME = 8  # candidates by which queries are told to be near each other
_LEAF = 512  # blocks on the diagonal are halved down to this size, because their lower half is not needed


def nearest(
    features_ND: Any,
    k: int,
    *,
    queries_QD: Any | None = None,
    block: int = 2048,
    product: Product | None = None,
) -> tuple[Ints, Floats]:
    """The k rows most similar to each query (or to each row itself), most similar first.

    Similarity is the inner product, computed in float64 in a fixed order and rounded once to float32 (`similarity`);
    equal float32 similarities are ordered by the lower index. The result is the same, bit for bit, for any `block`,
    any `product` and any number of threads.

    Args:
      features_ND: unit rows (length within 1e-3 of 1), N >= 1; used as float32. A memory-mapped file of float32 in C
        order is read block by block.
      k: neighbours per query, >= 1; at most N are returned.
      queries_QD: unit rows of the same width. None: the rows of features_ND, each of which then finds itself too (in
        first place, unless duplicates of lower index stand before it; with more than k duplicates it may be missing).
      block: rows per matrix product; memory is O(Q k + block D + block^2).
      product: what proposes candidates; None: the fastest of this machine.

    Errors:
      ValueError for k < 1, block < 1, no features, different widths, and for rows that are zero, not finite or not of
      length 1, naming the first such index.

    Returns:
      indices_QK int64 and similarities_QK float32, K = min(k, N).
    """
    k = operator.index(k)
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}.")
    if block < 1:
        raise ValueError(f"block must be at least 1; got {block}.")
    features_ND, queries_QD = _checked(features_ND, queries_QD)
    k = min(k, len(features_ND))
    product = product or fastest_product()
    candidates = propose(queries_QD, features_ND, k, block=block, product=product)
    return settle(queries_QD, features_ND, candidates, k, proposed=k, slope=product.slope, block=block)


def _checked(features_ND: Any, queries_QD: Any | None) -> tuple[Floats, Floats]:
    features_ND = unit_rows(features_ND, name="features")
    if len(features_ND) == 0:
        raise ValueError("features must have at least one row; got none.")
    if queries_QD is None:
        return features_ND, features_ND
    queries_QD = unit_rows(queries_QD, name="queries")
    if queries_QD.shape[1] != features_ND.shape[1]:
        raise ValueError(
            f"queries and features must have the same width; got {queries_QD.shape} and {features_ND.shape}."
        )
    return features_ND, queries_QD


def propose(queries_QD: Floats, features_ND: Floats, k: int, *, block: int, product: Product) -> Candidates:
    """Of each query, all images that may be among its k most similar as far as matrix products can tell, or a closed
    list."""
    among_themselves = queries_QD is features_ND
    lost_Q = product.lost(queries_QD)
    lost_N = lost_Q if among_themselves else product.lost(features_ND)
    gap_Q = product.gaps(lost_Q, lost_N, features_ND.shape[1])
    candidates = no_candidates(gap_Q, room_for(k))
    room = product.room(min(block, len(queries_QD)) * min(block, len(features_ND)))

    def offer(rows: torch.Tensor, columns: torch.Tensor, first_row: int, first_column: int, *, both: bool) -> None:
        products_RS = product.multiply(rows, columns, room)
        offer_columns(products_RS, first_row, first_column, candidates, k, product.slope)
        if both:
            offer_rows(products_RS, first_row, first_column, candidates, k, product.slope)

    for first, panel in _prepared(queries_QD, 0, _PANEL * block, product):
        if among_themselves:
            for row, height, column, width in triangle(len(panel), block):
                offer(
                    panel[row : row + height],
                    panel[column : column + width],
                    first + row,
                    first + column,
                    both=row != column,
                )
        start = first + len(panel) if among_themselves else 0
        for column, columns in _prepared(features_ND, start, block, product):
            for row in range(0, len(panel), block):
                offer(panel[row : row + block], columns, first + row, column, both=among_themselves)
    return candidates


def room_for(k: int) -> int:
    """Places in a list of candidates for k neighbours."""
    return max(3 * k, _SMALLEST_ROOM)


def _prepared(rows_ND: Floats, start: int, size: int, product: Product) -> Iterator[tuple[int, torch.Tensor]]:
    for first in range(start, len(rows_ND), size):
        yield first, product.prepare(rows_ND[first : first + size])


def triangle(count: int, block: int) -> Iterator[tuple[int, int, int, int]]:
    """Rectangles (first row, rows, first column, columns) that hold every pair of `count` rows: those on the diagonal
    both ways round, the others once."""
    for row in range(0, count, block):
        height = min(block, count - row)
        yield from _halved(row, height)
        for column in range(row + block, count, block):
            yield row, height, column, min(block, count - column)


def _halved(first: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    if size <= _LEAF:
        yield first, size, first, size
        return
    half = size // 2
    yield from _halved(first, half)
    yield first, half, first + half, size - half
    yield from _halved(first + half, size - half)


def settle(
    queries_QD: Floats,
    features_ND: Floats,
    candidates: Candidates,
    k: int,
    *,
    proposed: int,
    slope: float,
    block: int,
) -> tuple[Ints, Floats]:
    """Orders the candidates by exact similarity and searches again the queries whose candidates may be incomplete.

    `proposed` is the k that `propose` was given.
    """
    indices_QK = np.full((len(queries_QD), k), len(features_ND), np.int64)
    similarities_QK = np.full((len(queries_QD), k), -np.inf, np.float32)
    certain_Q = np.empty(len(queries_QD), np.bool_)
    first_QM = candidates.indices_QM[:, :_SOME]
    order_Q = together(first_QM, np.arange(first_QM.shape[1]) < candidates.sizes_Q[:, None])
    _order_candidates(
        queries_QD, features_ND, candidates, order_Q, proposed, slope, indices_QK, similarities_QK, certain_Q
    )
    uncertain = np.flatnonzero(~certain_Q)
    error = product_error(features_ND.shape[1])
    for start in range(0, len(uncertain), block):
        rows_U = uncertain[start : start + block]
        good_enough_U = similarities_QK[rows_U, -1].astype(np.float64) - error
        indices_QK[rows_U] = len(features_ND)
        similarities_QK[rows_U] = -np.inf
        search_again(rows_U, good_enough_U, queries_QD, features_ND, indices_QK, similarities_QK, block=block, index=0)
    return indices_QK, similarities_QK


def together(indices_QM: Ints, held_QM: Array) -> Ints:
    """An order of queries in which those that share a candidate come one after another, so that what both are compared
    with is in the cache."""
    nobody = np.iinfo(indices_QM.dtype).max
    return np.argsort(np.where(held_QM, indices_QM, nobody).min(axis=1, initial=nobody), kind="stable")


def search_again(
    rows_U: Ints,
    good_enough_U: Doubles,
    queries_QD: Floats,
    features_ND: Floats,
    indices_QK: Ints,
    similarities_QK: Floats,
    *,
    block: int,
    index: int,
) -> None:
    """Offers these queries' lists all rows whose product is good enough, by exact similarity.

    `index` is that of the first row of features_ND.
    """
    error = product_error(features_ND.shape[1])
    queries_UD = np.ascontiguousarray(queries_QD[rows_U])
    room = np.empty(len(rows_U) * min(block, len(features_ND)), np.float32)
    for first in range(0, len(features_ND), block):
        columns_SD = features_ND[first : first + block]
        products_US = room[: len(rows_U) * len(columns_SD)].reshape(len(rows_U), len(columns_SD))
        float32_product(queries_UD, columns_SD, products_US)
        _take_all(
            products_US,
            error,
            good_enough_U,
            index + first,
            rows_U,
            queries_UD,
            columns_SD,
            indices_QK,
            similarities_QK,
        )


@njit(cache=True, nogil=True)
def insert_neighbour(similarities_K: Any, indices_K: Any, value: Any, index: Any) -> None:
    """Puts a neighbour in its place by similarity, then lower index, if it is good enough to have one."""
    last = similarities_K.shape[0] - 1
    if value < similarities_K[last] or (value == similarities_K[last] and index > indices_K[last]):
        return
    place = last
    while place > 0 and (
        similarities_K[place - 1] < value or (similarities_K[place - 1] == value and indices_K[place - 1] > index)
    ):
        similarities_K[place] = similarities_K[place - 1]
        indices_K[place] = indices_K[place - 1]
        place -= 1
    similarities_K[place] = value
    indices_K[place] = index


@parallel_kernel
def _order_candidates(
    queries_QD: Any,
    features_ND: Any,
    candidates: Any,
    order_Q: Any,
    proposed: int,
    slope: float,
    indices_QK: Any,
    similarities_QK: Any,
    certain_Q: Any,
) -> None:
    """Keeps the K best candidates of each query by exact similarity, then lower index; and whether they are certain."""
    for place in prange(order_Q.shape[0]):
        q = order_Q[place]
        shorten(candidates, q, proposed, slope)
        for m in range(candidates.sizes_Q[q]):
            index = np.int64(candidates.indices_QM[q, m])
            value = similarity(queries_QD[q], features_ND[index])
            insert_neighbour(similarities_QK[q], indices_QK[q], value, index)
        # A bfloat16 below 0 is never offered. With a bar above 0 that is no loss: what is not above it does not matter.
        complete = candidates.sizes_Q[q] >= indices_QK.shape[1] and (slope == 0.0 or candidates.bars_Q[q] > 0.0)
        certain_Q[q] = complete and not candidates.closed_Q[q]


@parallel_kernel
def _take_all(
    products_US: Any,
    error: float,
    good_enough_U: Any,
    first: int,
    rows_U: Any,
    queries_UD: Any,
    columns_SD: Any,
    indices_QK: Any,
    similarities_QK: Any,
) -> None:
    """Offers the columns that are good enough by their product to each of these queries, by exact similarity."""
    for u in prange(rows_U.shape[0]):
        q = rows_U[u]
        for s in range(products_US.shape[1]):
            if products_US[u, s] >= max(good_enough_U[u], np.float64(similarities_QK[q, -1]) - error):
                value = similarity(queries_UD[u], columns_SD[s])
                insert_neighbour(similarities_QK[q], indices_QK[q], value, np.int64(first + s))
