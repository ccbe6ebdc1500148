"""Retrieval by Market-1501's protocol: mean average precision, CMC and mINP.

L. Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015; mINP: M. Ye et al., "Deep Learning for
Person Re-identification: A Survey and Outlook", 2021 (arXiv:2001.04193), eq. 6. Memory holds one block of queries
against the gallery.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, prange

from reidray.neighbours.similarity import product_error, similarity, unit_rows

# Q = queries, B = queries of one block, V = valid queries, G = gallery, D = feature width, P = true matches of a query

RANKS = 50
"""Length of the CMC curve."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Figures of one evaluation: fractions, means over the valid queries (those with at least one true match).

    `mAP` takes each hit's precision (the step rule of most code); `mAP_trapezoid` is Market-1501's own, the mean of the
    precisions at and before each hit, never above the step. `cmc[r]`, r = 0 .. 49, is the share of queries with a hit
    among the first r + 1 images; `mINP` the matches divided by the rank of the last one.
    """

    mAP: float
    mAP_trapezoid: float
    cmc: np.ndarray
    mINP: float
    num_valid_queries: int

    def percent(self) -> dict[str, float]:
        """The usual row of a table, in percent."""
        return {
            "mAP": 100.0 * self.mAP,
            "mAP_trapezoid": 100.0 * self.mAP_trapezoid,
            "rank1": 100.0 * float(self.cmc[0]),
            "rank5": 100.0 * float(self.cmc[4]),
            "rank10": 100.0 * float(self.cmc[9]),
            "mINP": 100.0 * self.mINP,
        }


def rank(
    query_QD: Any,
    gallery_GD: Any,
    query_persons: Any,
    gallery_persons: Any,
    query_cameras: Any,
    gallery_cameras: Any,
    *,
    block: int = 256,
) -> Ranking:
    """Ranks the gallery for each query by inner product and scores the ranking.

    For each query, gallery images of the same person under the same camera are left out, and so is junk (gallery person
    < 0); person 0 in the gallery (distractors) counts as a wrong answer. An unknown camera (negative) equals no other:
    with unknown cameras nothing of the same person is left out. Queries without a match are left out of all means.

    Similarities are `reidray.neighbours.similarity`: the inner product rounded once to float32; equal ones are ordered
    by gallery index. Average precision of hits at ranks r_1 < .. < r_P (from 1): step, mean of i / r_i; trapezoid, mean
    of (i / r_i + (i - 1) / (r_i - 1)) / 2 with 1 for 0 / 0. The figures are the same, bit for bit, for any block and
    number of threads.

    Args:
      query_QD, gallery_GD: unit rows of the same width, used as float32.
      query_persons, gallery_persons: integers; > 0 for queries.
      query_cameras, gallery_cameras: integers, negative where unknown.
      block: queries per matrix product.

    Errors:
      ValueError for different widths or lengths, rows that are not unit or not finite (naming the first), a query
      without a person, and when no query has a match.
    """
    query_QD = unit_rows(query_QD, name="query features")
    gallery_GD = unit_rows(gallery_GD, name="gallery features")
    if query_QD.shape[1] != gallery_GD.shape[1]:
        raise ValueError(
            f"query and gallery features must have the same width; got {query_QD.shape} and {gallery_GD.shape}. "
            "Were they made by different models?"
        )
    query_persons = _integers(query_persons, len(query_QD), "query persons")
    gallery_persons = _integers(gallery_persons, len(gallery_GD), "gallery persons")
    query_cameras = _integers(query_cameras, len(query_QD), "query cameras")
    gallery_cameras = _integers(gallery_cameras, len(gallery_GD), "gallery cameras")
    if block < 1:
        raise ValueError(f"block must be at least 1; got {block}.")
    nobody = np.flatnonzero(query_persons <= 0)
    if len(nobody):
        raise ValueError(
            f"each query must show a person with a number above 0; query {nobody[0]} has {query_persons[nobody[0]]}."
        )

    by_person_G = np.argsort(gallery_persons, kind="stable")
    first_Q = np.searchsorted(gallery_persons[by_person_G], query_persons, side="left")
    last_Q = np.searchsorted(gallery_persons[by_person_G], query_persons, side="right")
    junk = np.flatnonzero(gallery_persons < 0)
    error = product_error(query_QD.shape[1])
    scores_Q4 = np.zeros((len(query_QD), 4))
    for start in range(0, len(query_QD), block):
        some = slice(start, start + block)
        products_BG = np.matmul(query_QD[some], gallery_GD.T)
        products_BG[:, junk] = -np.inf
        _score(
            products_BG, error, query_QD[some], gallery_GD, query_cameras[some], gallery_cameras,
            by_person_G, first_Q[some], last_Q[some], scores_Q4[some],
        )  # fmt: skip
    return _summary(scores_Q4)


def _integers(values: Any, count: int, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (count,) or not (np.issubdtype(array.dtype, np.integer) or count == 0):
        raise ValueError(f"{name} must be {count} integers, one per row; got {array.dtype} of shape {array.shape}.")
    return array.astype(np.int64)


def _summary(scores_Q4: np.ndarray) -> Ranking:
    """Means over the valid queries; columns: AP by step, AP by trapezoid, rank of the first hit, INP."""
    scores_V4 = scores_Q4[scores_Q4[:, 2] > 0]
    if len(scores_V4) == 0:
        raise ValueError(
            f"no query has a true match in the gallery ({len(scores_Q4)} queries); a match is the same person under "
            "another camera. Are query and gallery of the same data set?"
        )
    first_hits_V = np.minimum(scores_V4[:, 2].astype(np.int64) - 1, RANKS)
    cmc = np.cumsum(np.bincount(first_hits_V, minlength=RANKS + 1)[:RANKS]) / len(scores_V4)
    return Ranking(
        mAP=float(scores_V4[:, 0].mean()),
        mAP_trapezoid=float(scores_V4[:, 1].mean()),
        cmc=cmc,
        mINP=float(scores_V4[:, 3].mean()),
        num_valid_queries=len(scores_V4),
    )


@njit(cache=True, nogil=True)
def _better(value: Any, index: int, products_G: Any, error: float, query_D: Any, gallery_GD: Any) -> Any:
    """How many gallery images stand before this one; those too close to call by their products are compared exactly."""
    above = np.float32(value + error)
    below = np.float32(value - error)
    clear = 0
    close = 0
    for g in range(products_G.shape[0]):
        clear += products_G[g] > above
        close += products_G[g] >= below
    if close - clear > 1:  # more than the image itself
        for g in range(products_G.shape[0]):
            if products_G[g] >= below and products_G[g] <= above and g != index:
                other = similarity(query_D, gallery_GD[g])
                clear += other > value or (other == value and g < index)
    return clear


@njit(cache=True, nogil=True, parallel=True)
def _score(
    products_BG: Any,
    error: float,
    query_BD: Any,
    gallery_GD: Any,
    query_cameras_B: Any,
    gallery_cameras_G: Any,
    by_person_G: Any,
    first_B: Any,
    last_B: Any,
    scores_B4: Any,
) -> None:
    """Fills the rows of the queries that have a match. Images that do not count have product -infinity, before or in
    here."""
    for b in prange(products_BG.shape[0]):
        matches_P = np.empty(last_B[b] - first_B[b], np.int64)
        count = 0
        for p in range(first_B[b], last_B[b]):
            g = by_person_G[p]
            if query_cameras_B[b] >= 0 and query_cameras_B[b] == gallery_cameras_G[g]:
                products_BG[b, g] = -np.inf
            else:
                matches_P[count] = g
                count += 1
        if count == 0:
            continue
        ranks_P = np.empty(count, np.int64)
        for p in range(count):
            value = similarity(query_BD[b], gallery_GD[matches_P[p]])
            ranks_P[p] = 1 + _better(value, matches_P[p], products_BG[b], error, query_BD[b], gallery_GD)
        ranks_P.sort()
        step = trapezoid = 0.0
        for p in range(count):
            precision = (p + 1) / ranks_P[p]
            before = p / (ranks_P[p] - 1) if ranks_P[p] > 1 else 1.0
            step += precision
            trapezoid += (precision + before) / 2.0
        scores_B4[b, 0] = step / count
        scores_B4[b, 1] = trapezoid / count
        scores_B4[b, 2] = ranks_P[0]
        scores_B4[b, 3] = count / ranks_P[-1]
