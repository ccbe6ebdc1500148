"""Exact neighbour lists from pairs of blocks of rows, searched in any order, by any process.

The lists of all images begin empty (`no_lists`). A task (`search_strip`) takes a block and some others, each with the
similarities that its lists hold so far. It finds which images belong into these lists, in both directions, from the
same products; `merged` enters them. After every pair of blocks was searched, the lists are those of
`reidray.neighbours.nearest`, bit for bit. The blocks, the order of the tasks, the similarities known to each task, and
repetitions of a task before its result was entered do not change them: similarities are exact, equal ones are ordered
by the lower index, and what is entered twice counts once. A pair whose result was entered must not be searched again: a
task knows similarities, and not which images they belong to.

The known similarities matter for speed alone. A task without any fills lists of its own for each pair; a task with many
measures exactly only what is closer than everything found before.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import prange

from reidray.arrays import Doubles, Floats, Ints
from reidray.compiled import njit
from reidray.neighbours.candidates import Candidates, no_candidates, offer_columns, offer_rows, shorten
from reidray.neighbours.product import Product, product_error
from reidray.neighbours.search import insert_neighbour, room_for, search_again, together, triangle
from reidray.neighbours.similarity import read_only, similarity, unit_rows
from reidray.threads import parallel_kernel

# R, S = rows of a block, D = feature width, K = neighbours, E = entries of ragged lists, U = uncertain rows

_NOBODY = np.iinfo(np.int64).max  # stands for an image that is in the lists already: at equal similarity, new ones win
_KNOWN = -1  # likewise, among the candidates


class Block(NamedTuple):
    """Rows that are ready to be searched; made by `ready_block`.

    first: index of the first row; the others follow. rows_RD: float32, unit length. prepared_RD, lost_R: the rows as
    the product takes them, and what it does not see of each.
    """

    first: int
    rows_RD: Floats
    prepared_RD: torch.Tensor
    lost_R: Doubles

    @property
    def nbytes(self) -> int:
        """Memory that it takes; in float32 the product takes the rows themselves."""
        own = self.prepared_RD.data_ptr() != self.rows_RD.ctypes.data
        return int(self.rows_RD.nbytes + own * self.prepared_RD.nbytes)


class Lists(NamedTuple):
    """The nearest images known so far of each image of a block, most similar first, then by lower index.

    indices_RK: int64, -1 where a list is shorter than K. similarities_RK: float32, -inf there.
    """

    indices_RK: Ints
    similarities_RK: Floats


class Found(NamedTuple):
    """What a task adds to the lists of a block: counts_R entries for each image, one image after the other."""

    counts_R: Ints
    indices_E: Ints
    similarities_E: Floats


def ready_block(features_RD: Any, first: int, *, product: Product) -> Block:
    """The images first, first + 1, .. with these features.

    Errors:
      ValueError for rows that are zero, not finite or not of length 1, naming the first such index.
    """
    rows_RD = unit_rows(features_RD, name="features", first=first)
    return Block(first, rows_RD, product.prepare(rows_RD), product.lost(rows_RD))


def no_lists(rows: int, k: int) -> Lists:
    """The lists of a block before anything is known. k >= 1: no more than there are images in all."""
    return Lists(np.full((rows, k), -1, np.int64), np.full((rows, k), -np.inf, np.float32))


def merged(lists: Lists, found: Found) -> Lists:
    """The lists with what a task found; entries that they hold already change nothing."""
    assert len(found.counts_R) == len(lists.indices_RK)
    together = Lists(lists.indices_RK.copy(), lists.similarities_RK.copy())
    _enter_found(*together, *(read_only(array) for array in found))
    return together


def search_strip(
    rows: Block,
    known_RK: Floats,
    columns: Iterable[tuple[Block, Floats]],
    *,
    product: Product,
    tile: int = 2048,
) -> tuple[Found, list[Found]]:
    """What is among the K nearest of the images of one block in some others, and the other way round.

    Each pair of images is multiplied once. Memory: O((R + S) (D + K) + tile^2) for the block and one of the others at a
    time.

    Args:
      rows: the block.
      known_RK: similarities of its lists so far, falling, -inf where they are shorter; K >= 1.
      columns: other blocks with what is known of theirs, or the block itself (with anything: known_RK counts); each
        once, and none whose pair with the block is in the lists already.
      product: what the blocks were made ready for.
      tile: rows and columns of a matrix product.

    Errors:
      ValueError for blocks of different widths.

    Returns:
      what is new to the lists of the block, and of each of the others; for the block itself nothing.
    """
    mine = begun(known_RK)
    theirs: list[Found] = []
    for other, known_SK in columns:
        if (other.first, len(other.rows_RD)) == (rows.first, len(rows.rows_RD)):
            _search_itself(rows, mine, product, tile)
            theirs.append(news(begun(known_SK)))
        else:
            its = begun(known_SK)
            _search_pair(rows, mine, other, its, product, tile)
            theirs.append(news(its))
    return news(mine), theirs


def begun(known_RK: Floats) -> Lists:
    """Lists that a task fills: of what is known they have the similarities and not the images."""
    return Lists(np.full(known_RK.shape, _NOBODY, np.int64), np.array(known_RK, np.float32))


def news(lists: Lists) -> Found:
    """What came into lists since they were `begun`."""
    new_RK = lists.indices_RK != _NOBODY
    return Found(new_RK.sum(axis=1), lists.indices_RK[new_RK], lists.similarities_RK[new_RK])


def _search_itself(block: Block, lists: Lists, product: Product, tile: int) -> None:
    if len(block.rows_RD) == 0:
        return
    candidates, k = _candidates(block, block, lists, product), lists.indices_RK.shape[1]
    room = product.room(min(tile, len(block.rows_RD)) ** 2)
    for row, height, column, width in triangle(len(block.rows_RD), tile):
        products = product.multiply(
            block.prepared_RD[row : row + height], block.prepared_RD[column : column + width], room
        )
        offer_columns(products, row, column, candidates, k, product.slope)
        if row != column:
            offer_rows(products, row, column, candidates, k, product.slope)
    _settle(block, block, candidates, lists, product.slope, tile)


def _search_pair(rows: Block, mine: Lists, columns: Block, theirs: Lists, product: Product, tile: int) -> None:
    if rows.rows_RD.shape[1] != columns.rows_RD.shape[1]:
        raise ValueError(
            f"blocks must have the same width; got {rows.rows_RD.shape} and {columns.rows_RD.shape}: are they of "
            "the same features?"
        )
    if len(rows.rows_RD) == 0 or len(columns.rows_RD) == 0:
        return
    k = mine.indices_RK.shape[1]
    by_row, by_column = _candidates(rows, columns, mine, product), _candidates(columns, rows, theirs, product)
    room = product.room(min(tile, len(rows.rows_RD)) * min(tile, len(columns.rows_RD)))
    for row in range(0, len(rows.rows_RD), tile):
        for column in range(0, len(columns.rows_RD), tile):
            products = product.multiply(
                rows.prepared_RD[row : row + tile], columns.prepared_RD[column : column + tile], room
            )
            offer_columns(products, row, column, by_row, k, product.slope)
            offer_rows(products, row, column, by_column, k, product.slope)
    _settle(rows, columns, by_row, mine, product.slope, tile)
    _settle(columns, rows, by_column, theirs, product.slope, tile)


def _candidates(block: Block, other: Block, lists: Lists, product: Product) -> Candidates:
    """Lists of candidates that begin with what is known."""
    k = lists.indices_RK.shape[1]
    gap_R = product.gaps(block.lost_R, other.lost_R, block.rows_RD.shape[1])
    candidates = no_candidates(gap_R, room_for(k))
    _enter_known(lists.similarities_RK, candidates, product.slope)
    return candidates


def _settle(block: Block, other: Block, candidates: Candidates, lists: Lists, slope: float, tile: int) -> None:
    """Enters the candidates by exact similarity; where they may be incomplete, all of the other block is looked at."""
    before = Lists(lists.indices_RK.copy(), lists.similarities_RK.copy())
    certain_R = np.empty(len(block.rows_RD), np.bool_)
    new_RM = np.arange(candidates.indices_QM.shape[1]) < candidates.sizes_Q[:, None]
    new_RM &= candidates.indices_QM != _KNOWN
    order_R = together(candidates.indices_QM, new_RM)
    _measure_news(block.rows_RD, other.rows_RD, other.first, candidates, order_R, slope, *lists, certain_R)
    uncertain = np.flatnonzero(~certain_R)
    error = product_error(block.rows_RD.shape[1])
    for start in range(0, len(uncertain), tile):
        rows_U = uncertain[start : start + tile]
        good_enough_U = lists.similarities_RK[rows_U, -1].astype(np.float64) - error
        lists.indices_RK[rows_U] = before.indices_RK[rows_U]
        lists.similarities_RK[rows_U] = before.similarities_RK[rows_U]
        search_again(rows_U, good_enough_U, block.rows_RD, other.rows_RD, *lists, block=tile, index=other.first)


@parallel_kernel
def _enter_known(similarities_RK: Any, candidates: Any, slope: float) -> None:
    """An exact similarity is a product without error."""
    for r in prange(similarities_RK.shape[0]):
        _enter_one(similarities_RK[r], candidates, r, slope)


@njit(cache=True, nogil=True)
def _enter_one(similarities_K: Any, candidates: Any, r: int, slope: float) -> None:
    """A function of its own: numba takes what is counted up within a prange for a sum over all of it."""
    k = similarities_K.shape[0]
    size = 0
    while size < k and similarities_K[size] > -np.inf:
        candidates.scores_QM[r, size] = similarities_K[size]
        candidates.indices_QM[r, size] = _KNOWN
        size += 1
    candidates.sizes_Q[r] = size
    shorten(candidates, r, k, slope)


@parallel_kernel
def _measure_news(
    rows_RD: Any,
    columns_SD: Any,
    first_column: int,
    candidates: Any,
    order_R: Any,
    slope: float,
    indices_RK: Any,
    similarities_RK: Any,
    certain_R: Any,
) -> None:
    """Enters the candidates that are not known into their lists; and whether these hold all that they should."""
    k = indices_RK.shape[1]
    for place in prange(order_R.shape[0]):
        r = order_R[place]
        shorten(candidates, r, k, slope)
        for m in range(candidates.sizes_Q[r]):
            column = np.int64(candidates.indices_QM[r, m])
            if column != _KNOWN:
                value = similarity(rows_RD[r], columns_SD[column])
                insert_neighbour(similarities_RK[r], indices_RK[r], value, first_column + column)
        # A bfloat16 below 0 is never offered. With a bar above 0 that is no loss: what is not above it does not matter.
        certain_R[r] = (slope == 0.0 or candidates.bars_Q[r] > 0.0) and not candidates.closed_Q[r]


@njit(cache=True, nogil=True)
def _enter_found(indices_RK: Any, similarities_RK: Any, counts_R: Any, indices_E: Any, similarities_E: Any) -> None:
    e = 0
    for r in range(indices_RK.shape[0]):
        for _ in range(counts_R[r]):
            if not _holds(indices_RK[r], indices_E[e]):
                insert_neighbour(similarities_RK[r], indices_RK[r], similarities_E[e], indices_E[e])
            e += 1


@njit(cache=True, nogil=True)
def _holds(indices_K: Any, index: Any) -> bool:
    found = False
    for place in range(indices_K.shape[0]):
        found |= indices_K[place] == index
    return found
