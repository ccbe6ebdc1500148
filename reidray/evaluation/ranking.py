"""Retrieval by Market-1501's protocol: mean average precision, CMC and mINP.

L. Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015; mINP: M. Ye et al., "Deep Learning for
Person Re-identification: A Survey and Outlook", 2021 (arXiv:2001.04193), eq. 6. Nothing is sorted but the true matches,
and memory holds one block of queries a thread against a part of the gallery (`counting.py`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reidray.arrays import Array, Doubles, Floats, Ints
from reidray.compiled import njit
from reidray.evaluation.counting import Images, Matches, count_before, ordered_matches
from reidray.neighbours.product import float32_product, product_error
from reidray.neighbours.similarity import unit_rows
from reidray.threads import libraries_at_one_thread, num_threads, side_by_side

# Q = queries, B = queries of one block, V = valid queries, G = gallery, K = gallery images that count, S = those of one
# block, D = feature width, P = true matches of a query

RANKS = 50
"""Length of the CMC curve."""

_COLUMNS = 1024  # gallery images per matrix product: their features stay in the last cache until they are compared
_MOST_MATCHES = 2**21  # true matches held at once: bounds the memory where a query has thousands


@dataclass(frozen=True, eq=False)
class Ranking:
    """Figures of one evaluation: fractions, means over the valid queries (those with at least one true match).

    `mAP` takes each hit's precision (the step rule of most code); `mAP_trapezoid` is Market-1501's own, the mean of the
    precisions at and before each hit, never above the step. `cmc[r]`, r = 0 .. 49, is the share of queries with a hit
    among the first r + 1 images; `mINP` the matches divided by the rank of the last one. `precisions_Q` is the average
    precision (step) of each query, NaN for one without a match.
    """

    mAP: float
    mAP_trapezoid: float
    cmc: Doubles
    mINP: float
    num_valid_queries: int
    precisions_Q: Doubles

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
    block: int = 2048,
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
      block: queries that a thread ranks at once, at most; 2,048 take 8 MB a thread.

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

    counted_K = np.flatnonzero(gallery_persons >= 0)
    persons_K = gallery_persons[counted_K]
    by_person_K = np.argsort(persons_K, kind="stable")
    first_Q = np.searchsorted(persons_K[by_person_K], query_persons, side="left")
    last_Q = np.searchsorted(persons_K[by_person_K], query_persons, side="right")
    error = product_error(query_QD.shape[1])
    scores_Q4 = np.zeros((len(query_QD), 4))

    def rank_some(some: slice) -> None:
        images = Images(counted_K, by_person_K, first_Q[some], last_Q[some])
        matches = ordered_matches(query_QD[some], gallery_GD, query_cameras[some], gallery_cameras, images)
        _count_all(query_QD[some], gallery_GD, error, images, matches)
        _score(matches, scores_Q4[some])

    with libraries_at_one_thread():
        side_by_side(rank_some, _blocks(last_Q - first_Q, block))
    return _summary(scores_Q4)


def _count_all(queries_BD: Floats, gallery_GD: Floats, error: float, images: Images, matches: Matches) -> None:
    """Counts, for each match of the queries, the images of the whole gallery that stand before it."""
    count = len(images.rows_K)
    room = np.empty(len(queries_BD) * min(_COLUMNS, count), np.float32)
    for first in range(0, count, _COLUMNS):
        columns_SD = _rows(gallery_GD, images.rows_K[first : first + _COLUMNS])
        products_BS = room[: len(queries_BD) * len(columns_SD)].reshape(len(queries_BD), len(columns_SD))
        float32_product(queries_BD, columns_SD, products_BS)
        count_before(products_BS, error, queries_BD, columns_SD, first, images, matches)


def _blocks(matches_Q: Ints, block: int) -> Iterator[slice]:
    """Consecutive queries: the same number for each thread, at most `block`, and fewer where they have too many images
    of their person to hold."""
    rounds = max(1, math.ceil(len(matches_Q) / (block * num_threads())))
    size = max(1, math.ceil(len(matches_Q) / (rounds * num_threads())))
    ends_Q = np.cumsum(matches_Q)
    start = 0
    while start < len(matches_Q):
        held = ends_Q[start] - matches_Q[start] + _MOST_MATCHES
        stop = min(start + size, max(start + 1, int(np.searchsorted(ends_Q, held, side="right"))), len(matches_Q))
        yield slice(start, stop)
        start = stop


def _rows(gallery_GD: Floats, rows_S: Ints) -> Floats:
    """These rows, copied only where junk lies between them."""
    start, stop = int(rows_S[0]), int(rows_S[-1]) + 1
    return gallery_GD[start:stop] if stop - start == len(rows_S) else gallery_GD[rows_S]


def num_answerable(query_persons: Array, gallery_persons: Array, query_cameras: Array, gallery_cameras: Array) -> int:
    """Queries whose person is in the gallery under another camera, or under an unknown one (-1): those that count.

    Args:
      query_persons, gallery_persons: int64 [Q] and [G]; 0 is a distractor.
      query_cameras, gallery_cameras: int [Q] and [G].
    """
    if len(gallery_persons) == 0:
        return 0
    pairs = np.unique(np.stack([np.asarray(gallery_persons, np.int64), np.asarray(gallery_cameras, np.int64)]), axis=1)
    persons_U, first_U, cameras_U = np.unique(pairs[0], return_index=True, return_counts=True)
    places_Q = np.searchsorted(persons_U, query_persons).clip(max=len(persons_U) - 1)
    there_Q = (persons_U[places_Q] == query_persons) & (np.asarray(query_persons) != 0)
    only_camera_Q = pairs[1][first_U][places_Q]
    same_Q = (cameras_U[places_Q] == 1) & (only_camera_Q == query_cameras) & (only_camera_Q >= 0)
    return int((there_Q & ~same_Q).sum())


def _integers(values: Any, count: int, name: str) -> Ints:
    array = np.asarray(values)
    if array.shape != (count,) or not (np.issubdtype(array.dtype, np.integer) or count == 0):
        raise ValueError(f"{name} must be {count} integers, one per row; got {array.dtype} of shape {array.shape}.")
    return array.astype(np.int64)


def _summary(scores_Q4: Doubles) -> Ranking:
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
        precisions_Q=np.where(scores_Q4[:, 2] > 0, scores_Q4[:, 0], np.nan),
    )


@njit(cache=True, nogil=True)
def _score(matches: Matches, scores_B4: Any) -> None:
    """Fills the rows of the queries that have a match; columns as in `_summary`."""
    for b in range(scores_B4.shape[0]):
        count = matches.counts_B[b]
        if count == 0:
            continue
        ranks_P = matches.before_M[matches.starts_B[b] :][:count] + np.arange(1, count + 1)
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
