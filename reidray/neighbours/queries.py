"""The k most similar rows of a gallery to a few queries, exactly, from blocks of rows that come in any order."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from reidray.arrays import Array, Floats, Ints
from reidray.compiled import njit
from reidray.neighbours.product import float32_product, product_error
from reidray.neighbours.similarity import read_only, similarity

# Q = queries, B = rows of a block, D = feature width, k = results of a query


class NearestRows:
    """Keeps the k most similar rows to each query while blocks of rows are offered.

    A float32 product only excludes what is certainly too far away. What is left is compared by `similarity`, which is
    correctly rounded; equally similar rows are in the order of their numbers. So the result does not depend on the
    blocks, their order or the number of threads that offer them. A query costs about one pass over the rows.

    Args:
      queries_QD: unit rows, float32, C-contiguous.
      k: how many to keep, at least 1.
    """

    def __init__(self, queries_QD: Floats, k: int) -> None:
        assert queries_QD.ndim == 2, queries_QD.shape
        assert k >= 1, k
        self._queries_QD, self._k = read_only(queries_QD), k
        self._error = product_error(queries_QD.shape[1])
        self._rows: list[Ints] = [np.empty(0, np.int64) for _ in queries_QD]
        self._similarities: list[Floats] = [np.empty(0, np.float32) for _ in queries_QD]
        self._lock = threading.Lock()

    def offer(self, first: int, rows_BD: Floats, allowed_B: Array | None = None) -> None:
        """Compares a block of rows with all queries. Several threads may offer at once.

        Args:
          first: number of the block's first row.
          rows_BD: unit rows, float32, C-contiguous.
          allowed_B: False for rows that no query may find; None: all may be found.
        """
        if len(rows_BD) == 0:
            return
        rows_BD = read_only(rows_BD)
        products_QB = np.empty((len(self._queries_QD), len(rows_BD)), np.float32)
        float32_product(self._queries_QD, rows_BD, products_QB)
        if allowed_B is not None:
            products_QB[:, ~allowed_B] = -np.inf
        for query, products_B in enumerate(products_QB):
            self._offer_to(query, first, rows_BD, products_B)

    def _offer_to(self, query: int, first: int, rows_BD: Floats, products_B: Floats) -> None:
        kept = self._similarities[query]
        bar = kept[-1] - self._error if len(kept) == self._k else np.float32(-2.0)
        if len(products_B) > self._k:
            bar = max(bar, np.partition(products_B, -self._k)[-self._k] - 2.0 * self._error)
        near = np.flatnonzero(products_B >= bar)
        if len(near) == 0:
            return
        found = _similarities(self._queries_QD[query], rows_BD, near)
        with self._lock:
            rows = np.concatenate([self._rows[query], near + first])
            similarities = np.concatenate([self._similarities[query], found])
            best = np.lexsort((rows, -similarities))[: self._k]
            self._rows[query], self._similarities[query] = rows[best], similarities[best]

    def best(self) -> list[tuple[Ints, Floats]]:
        """For each query the numbers of its rows, the most similar first, and their similarities; k at most."""
        return list(zip(self._rows, self._similarities, strict=True))


@njit(cache=True, nogil=True)
def _similarities(query_D: Any, rows_BD: Any, near: Any) -> Any:
    found = np.empty(near.shape[0], np.float32)
    for place in range(near.shape[0]):
        found[place] = similarity(query_D, rows_BD[near[place]])
    return found
