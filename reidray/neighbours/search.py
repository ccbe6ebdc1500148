"""Exact nearest neighbours by inner product, in blocks: never an N x N matrix.

A float32 matrix product proposes candidates (k and a margin); their similarities are taken again from `similarity`, and
a row is accepted when nothing outside its candidates can have come closer than its k-th neighbour. Rows that fail this
certificate (many equal or almost equal neighbours) are searched again in full. The answer is thus that of an exhaustive
search with exact similarities, whatever proposed the candidates: a coarser and faster product only needs its own error
bound.
"""

import operator
from typing import Any

import numpy as np
from numba import njit, prange

from reidray.neighbours.similarity import product_error, similarity, unit_rows

# N = images, Q = queries, D = feature width, K = neighbours, M = candidates (K and a margin), R, S = rows and columns
# of one block

_SMALLEST_MARGIN = 16
_STRIP = 256  # columns that one thread looks through at a time
_STRETCH = 64  # entries compared with the threshold at once


def nearest(
    features_ND: Any, k: int, *, queries_QD: Any | None = None, block: int = 2048
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows most similar to each query (or to each row itself), most similar first.

    Similarity is the inner product, computed in float64 in a fixed order and rounded once to float32 (`similarity`);
    equal float32 similarities are ordered by the lower index. The result is the same, bit for bit, for any `block` and
    any number of threads.

    Args:
      features_ND: unit rows (length within 1e-3 of 1), N >= 1; used as float32.
      k: neighbours per query, >= 1; at most N are returned.
      queries_QD: unit rows of the same width. None: the rows of features_ND, each of which then finds itself too (in
        first place, unless duplicates of lower index stand before it; with more than k duplicates it may be missing).
      block: rows per matrix product; memory is O(Q (k + margin) + block^2).

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
    features_ND = unit_rows(features_ND, name="features")
    if len(features_ND) == 0:
        raise ValueError("features must have at least one row; got none.")
    if queries_QD is None:
        queries_QD = features_ND
    else:
        queries_QD = unit_rows(queries_QD, name="queries")
        if queries_QD.shape[1] != features_ND.shape[1]:
            raise ValueError(
                f"queries and features must have the same width; got {queries_QD.shape} and {features_ND.shape}."
            )
    k = min(k, len(features_ND))
    width = min(k + max(k, _SMALLEST_MARGIN), len(features_ND))
    scores_QM, candidates_QM = _propose(queries_QD, features_ND, width, block)
    return _settle(queries_QD, features_ND, scores_QM, candidates_QM, k, block)


def _propose(queries_QD: np.ndarray, features_ND: np.ndarray, width: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The `width` best candidates of each query by float32 matrix products: products and indices, best first.

    A search of the features among themselves takes each pair of blocks once and offers it by row and by column.
    """
    among_themselves = queries_QD is features_ND
    scores_QM = np.full((len(queries_QD), width), -np.inf, np.float32)
    candidates_QM = np.full((len(queries_QD), width), -1, np.int32)
    buffer = np.empty(min(block, len(queries_QD)) * min(block, len(features_ND)), np.float32)
    for row in range(0, len(queries_QD), block):
        rows_RD = queries_QD[row : row + block]
        for column in range(row if among_themselves else 0, len(features_ND), block):
            columns_SD = features_ND[column : column + block]
            products_RS = buffer[: len(rows_RD) * len(columns_SD)].reshape(len(rows_RD), len(columns_SD))
            np.matmul(rows_RD, columns_SD.T, out=products_RS)
            _offer_by_row(products_RS, row, column, scores_QM, candidates_QM)
            if among_themselves and column > row:
                _offer_by_column(products_RS, row, column, scores_QM, candidates_QM)
    return scores_QM, candidates_QM


def _settle(
    queries_QD: np.ndarray,
    features_ND: np.ndarray,
    scores_QM: np.ndarray,
    candidates_QM: np.ndarray,
    k: int,
    block: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Orders the candidates by exact similarity and searches again the queries whose candidates may be incomplete."""
    error = product_error(features_ND.shape[1])
    indices_QK = np.full((len(queries_QD), k), len(features_ND), np.int64)
    similarities_QK = np.full((len(queries_QD), k), -np.inf, np.float32)
    _order_candidates(queries_QD, features_ND, candidates_QM, indices_QK, similarities_QK)
    if candidates_QM.shape[1] < len(features_ND):
        uncertain = np.flatnonzero(similarities_QK[:, -1] <= scores_QM[:, -1] + error)
        rows_at_once = max(1, block * block // len(features_ND))
        for start in range(0, len(uncertain), rows_at_once):
            rows_U = uncertain[start : start + rows_at_once]
            products_UN = np.matmul(queries_QD[rows_U], features_ND.T)
            _search_in_full(products_UN, rows_U, error, queries_QD, features_ND, indices_QK, similarities_QK)
    return indices_QK, similarities_QK


@njit(cache=True, nogil=True)
def _insert_score(scores_M: Any, candidates_M: Any, score: Any, index: Any) -> None:
    """Puts a candidate in its place by score; the last one falls out."""
    place = scores_M.shape[0] - 1
    while place > 0 and scores_M[place - 1] < score:
        scores_M[place] = scores_M[place - 1]
        candidates_M[place] = candidates_M[place - 1]
        place -= 1
    scores_M[place] = score
    candidates_M[place] = index


@njit(cache=True, nogil=True)
def _insert_neighbour(similarities_K: Any, indices_K: Any, value: Any, index: Any) -> None:
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


@njit(cache=True, nogil=True, parallel=True)
def _offer_by_row(products_RS: Any, first_row: int, first_column: int, scores_QM: Any, candidates_QM: Any) -> None:
    """Offers every column of the block to the query of each row."""
    rows, columns = products_RS.shape
    for r in prange(rows):
        scores_M = scores_QM[first_row + r]
        candidates_M = candidates_QM[first_row + r]
        products_S = products_RS[r]
        for start in range(0, columns, _STRETCH):
            stop = min(start + _STRETCH, columns)
            best = products_S[start]
            for c in range(start + 1, stop):
                best = max(best, products_S[c])
            if best > scores_M[-1]:
                for c in range(start, stop):
                    if products_S[c] > scores_M[-1]:
                        _insert_score(scores_M, candidates_M, products_S[c], first_column + c)


@njit(cache=True, nogil=True, parallel=True)
def _offer_by_column(products_RS: Any, first_row: int, first_column: int, scores_QM: Any, candidates_QM: Any) -> None:
    """Offers every row of the block to the query of each column."""
    rows, columns = products_RS.shape
    for strip in prange((columns + _STRIP - 1) // _STRIP):
        start = strip * _STRIP
        stop = min(start + _STRIP, columns)
        lowest_kept = scores_QM[first_column + start : first_column + stop, -1].copy()
        for r in range(rows):
            products_S = products_RS[r, start:stop]
            found = False
            for c in range(stop - start):
                found |= products_S[c] > lowest_kept[c]
            if found:
                for c in range(stop - start):
                    if products_S[c] > lowest_kept[c]:
                        query = first_column + start + c
                        _insert_score(scores_QM[query], candidates_QM[query], products_S[c], first_row + r)
                        lowest_kept[c] = scores_QM[query, -1]


@njit(cache=True, nogil=True, parallel=True)
def _order_candidates(
    queries_QD: Any, features_ND: Any, candidates_QM: Any, indices_QK: Any, similarities_QK: Any
) -> None:
    """Keeps the K best candidates of each query by exact similarity, then lower index."""
    for q in prange(queries_QD.shape[0]):
        for m in range(candidates_QM.shape[1]):
            index = np.int64(candidates_QM[q, m])
            value = similarity(queries_QD[q], features_ND[index])
            _insert_neighbour(similarities_QK[q], indices_QK[q], value, index)


@njit(cache=True, nogil=True, parallel=True)
def _search_in_full(
    products_UN: Any,
    rows_U: Any,
    error: float,
    queries_QD: Any,
    features_ND: Any,
    indices_QK: Any,
    similarities_QK: Any,
) -> None:
    """Fills the rows again from all images that can be as close as the K-th neighbour found so far."""
    for u in prange(rows_U.shape[0]):
        q = rows_U[u]
        good_enough = similarities_QK[q, -1] - error
        indices_QK[q] = features_ND.shape[0]
        similarities_QK[q] = -np.inf
        for index in range(features_ND.shape[0]):
            if products_UN[u, index] >= good_enough:
                value = similarity(queries_QD[q], features_ND[index])
                _insert_neighbour(similarities_QK[q], indices_QK[q], value, np.int64(index))
