"""Micro-batches: what many clients ask for at once is worked on together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol


class Batched(Protocol):
    """Makes a function of one item of a function of many, as `Batcher` does."""

    def __call__(
        self,
        work: Callable[[list[Any]], Sequence[Any]],
        *,
        most: int,
        at_once: int,
        size: Callable[[Any], int],
        executor: Executor,
    ) -> Callable[[Any], Awaitable[Any]]: ...


class Batcher:
    """Calls `work` for the items that wait; nobody waits for a batch to fill up.

    An item that comes while somebody is free to work is worked on at once, alone. What comes meanwhile is the next
    batch, or is shared out among those who are free. So batches grow with the load by themselves. All calls must come
    from one event loop.

    Args:
      work: gives a result for each item, in their order.
      most: of all sizes in a batch; a larger item is a batch of its own.
      at_once: calls of `work` at a time.
      size: of an item.
      executor: calls `work`.

    Raises (a call): what `work` raised for the batch that the item was in.
    """

    def __init__(
        self,
        work: Callable[[list[Any]], Sequence[Any]],
        *,
        most: int,
        at_once: int = 1,
        size: Callable[[Any], int] = lambda _: 1,
        executor: Executor,
    ) -> None:
        assert most >= 1, most
        self._work, self._most, self._size, self._executor = work, most, size, executor
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._at_once, self._tasks, self._busy, self._waiting_size = at_once, 0, 0, 0
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Any) -> Any:
        """The result of an item."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._waiting_size += self._size(item)
        if self._tasks < self._at_once:
            self._tasks += 1
            running = asyncio.create_task(self._run())
            self._running.add(running)  # asyncio itself keeps no task
            running.add_done_callback(self._running.discard)
        return await future

    async def _run(self) -> None:
        try:
            while batch := self._next():
                self._busy += 1
                await self._worked(batch)
                self._busy -= 1
        finally:
            self._tasks -= 1

    def _next(self) -> list[tuple[Any, asyncio.Future[Any]]]:
        batch: list[tuple[Any, asyncio.Future[Any]]] = []
        room = min(self._most, -(-self._waiting_size // (self._at_once - self._busy)))
        while self._waiting:
            item, future = self._waiting[0]
            if not future.done():  # else its client has gone
                room -= self._size(item)
                if room < 0 and batch:
                    break
                batch.append((item, future))
            self._waiting.popleft()
            self._waiting_size -= self._size(item)
        return batch

    async def _worked(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        items = [item for item, _ in batch]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._executor, self._work, items)
            assert len(results) == len(items), (len(results), len(items))
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
