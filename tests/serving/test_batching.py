"""Micro-batches: together what waits, in order, and errors only to those whom they concern."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from reidray.serving import batching
from reidray.serving.batching import Batcher


class Held:
    """Work that doubles numbers, and waits while it is held."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.free = threading.Event()
        self.begun = threading.Event()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.begun.set()
        assert self.free.wait(20)
        if -1 in items:
            raise ValueError("a bad one")
        return [2 * item for item in items]


def _run(test: Callable[[Held, ThreadPoolExecutor], Any], *, threads: int = 1) -> Held:
    held = Held()
    with ThreadPoolExecutor(threads) as pool:
        asyncio.run(test(held, pool))
    return held


def test_the_first_is_worked_on_at_once_and_those_that_come_meanwhile_together() -> None:
    async def test(held: Held, pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(held, most=4, executor=pool)
        first = asyncio.create_task(batcher(0))
        await asyncio.to_thread(held.begun.wait, 20)
        others = [asyncio.create_task(batcher(item)) for item in range(1, 7)]
        await asyncio.sleep(0)
        held.free.set()
        assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10, 12]
        assert await batcher(9) == 18, "it works on after a rest"

    assert _run(test).batches == [[0], [1, 2, 3, 4], [5, 6], [9]]


def test_those_who_are_free_share_what_comes_at_once() -> None:
    async def test(held: Held, pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(held, most=100, at_once=3, executor=pool)
        held.free.set()
        assert await asyncio.gather(*(batcher(item) for item in range(9))) == [2 * item for item in range(9)]

    held = _run(test)
    assert sorted(item for batch in held.batches for item in batch) == list(range(9))
    assert [len(batch) for batch in held.batches] == [3, 3, 3]


def test_sizes_count_and_one_that_is_too_large_goes_alone() -> None:
    async def test(held: Held, pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(held, most=10, size=lambda item: item, executor=pool)
        held.free.set()
        assert await asyncio.gather(*(batcher(item) for item in (4, 6, 1, 50, 10))) == [8, 12, 2, 100, 20]

    assert _run(test).batches == [[4, 6], [1], [50], [10]]


def test_a_few_beside_a_large_batch_wait_a_moment_and_not_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_FEW_SECONDS", 0.3)

    async def test(held: Held, pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(held, most=16, at_once=2, size=lambda item: item, executor=pool)
        large = asyncio.create_task(batcher(10))
        await asyncio.to_thread(held.begun.wait, 20)
        held.begun.clear()
        first = asyncio.create_task(batcher(1))
        await asyncio.sleep(0.05)
        assert held.batches == [[10]]
        second = asyncio.create_task(batcher(2))
        await asyncio.to_thread(held.begun.wait, 20)
        assert not large.done()
        held.free.set()
        assert await asyncio.gather(large, first, second) == [20, 2, 4]

    assert _run(test, threads=2).batches == [[10], [1, 2]]


def test_beside_a_batch_of_about_the_same_size_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_FEW_SECONDS", 600.0)

    async def test(held: Held, pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(held, most=16, at_once=2, size=lambda item: item, executor=pool)
        first = asyncio.create_task(batcher(10))
        await asyncio.to_thread(held.begun.wait, 20)
        held.begun.clear()
        second = asyncio.create_task(batcher(5))
        await asyncio.to_thread(held.begun.wait, 20)
        assert not first.done()
        held.free.set()
        assert await asyncio.gather(first, second) == [20, 10]

    assert _run(test, threads=2).batches == [[10], [5]]


def test_an_error_goes_to_those_in_the_batch_and_to_nobody_else() -> None:
    async def test(held: Held, pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(held, most=2, executor=pool)
        held.free.set()
        results = await asyncio.gather(*(batcher(item) for item in (1, 2, -1, 3, 4)), return_exceptions=True)
        assert results[:2] == [2, 4]
        assert [type(result) for result in results[2:4]] == [ValueError, ValueError]
        assert results[4] == 8

    _run(test)


def test_one_who_has_gone_is_not_worked_for() -> None:
    async def test(held: Held, pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(held, most=4, executor=pool)
        first = asyncio.create_task(batcher(0))
        await asyncio.to_thread(held.begun.wait, 20)
        gone, stays = asyncio.create_task(batcher(1)), asyncio.create_task(batcher(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        held.free.set()
        assert (await first, await stays) == (0, 4)
        with pytest.raises(asyncio.CancelledError):
            await gone

    assert _run(test).batches == [[0], [2]]
