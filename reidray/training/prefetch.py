"""Prepares the next items in background threads while the current one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def prefetch(prepare: Callable[[int], T], count: int, *, depth: int, threads: int) -> Iterator[T]:
    """Yields prepare(0), prepare(1), ..., prepare(count - 1), in this order, made by other threads.

    At most `depth` results are there or in the making before they are asked for. An error of `prepare` is raised where
    its result would have been yielded. When the iterator ends, is closed or let go, what was not begun is dropped and
    the threads are waited for.

    Args:
      prepare: called with each number once, several at a time where there are several threads.
      count: how many results.
      depth: how many are prepared ahead, at least 1.
      threads: how many are prepared at a time, at least 1.
    """
    # OpenMP counts threads for each calling thread: without the initializer these would start teams of their own size.
    pool = ThreadPoolExecutor(threads, "ahead", initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),))
    waiting: deque[Future[T]] = deque()
    try:
        for number in range(count + depth):
            if number < count:
                waiting.append(pool.submit(prepare, number))
            if number >= depth:
                yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
