"""The k most similar rows, against a plain sort of float64 products."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray.neighbours.queries import NearestRows
from reidray.neighbours.similarity import similarity


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def sorted_by_similarity(query: np.ndarray, rows: np.ndarray, k: int, allowed: np.ndarray) -> list[int]:
    """Every row compared by the package's similarity, ties in the order of rows."""
    order = sorted(np.flatnonzero(allowed), key=lambda row: (-similarity(query, rows[row]), row))
    return [int(row) for row in order[:k]]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 80),
    width=st.sampled_from([1, 3, 8, 33]),
    k=st.integers(1, 20),
    block=st.integers(1, 30),
)
def test_the_nearest_rows_are_those_of_a_full_sort(seed: int, count: int, width: int, k: int, block: int) -> None:
    random = np.random.default_rng(seed)
    rows = unit(np.round(random.standard_normal((count, width)), 1) + 0.01)
    rows = rows[random.integers(0, count, count)]  # equal rows are common
    queries = unit(random.standard_normal((3, width)) + 1e-3)
    allowed = random.random(count) < 0.8
    nearest = NearestRows(queries, k)
    for first in random.permutation(range(0, count, block)):
        nearest.offer(int(first), rows[first : first + block], allowed[first : first + block])
    for query, (found, similarities) in zip(queries, nearest.best(), strict=True):
        assert found.tolist() == sorted_by_similarity(query, rows, k, allowed)
        assert similarities.tolist() == [similarity(query, rows[row]) for row in found]


def test_threads_and_the_order_of_blocks_change_nothing() -> None:
    random = np.random.default_rng(3)
    rows, queries = unit(random.standard_normal((4000, 32))), unit(random.standard_normal((2, 32)))
    results = []
    for threads, order in ((1, range(0, 4000, 100)), (4, range(3900, -1, -100))):
        nearest = NearestRows(queries, 10)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda first, into=nearest: into.offer(first, rows[first : first + 100]), order))
        results.append([(found.tolist(), similarities.tolist()) for found, similarities in nearest.best()])
    assert results[0] == results[1]


@pytest.mark.parametrize("allowed", [None, np.zeros(5, bool)])
def test_fewer_rows_than_asked_for_are_all_that_is_found(allowed: np.ndarray | None) -> None:
    rows = np.eye(5, dtype=np.float32)
    nearest = NearestRows(rows[:1].copy(), 10)
    nearest.offer(0, rows, allowed)
    found = nearest.best()[0][0].tolist()
    assert found == ([] if allowed is not None else [0, 1, 2, 3, 4])
