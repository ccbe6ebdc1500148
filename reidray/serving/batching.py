"""Micro-batches: what many clients ask for at once is worked on together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple, Protocol

_QUIET_ROUNDS = 2
"""Of the event loop, in which nothing comes: so many there are from a connection to here."""

_FEW_SECONDS = 0.001
"""That fewer than half as many items as others work on wait for more."""


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

    An item that comes while nobody works is worked on at once, with what came in the same moment. What comes meanwhile
    is the next batch, or is shared out among those who are free. So batches grow with the load by themselves. Where one
    is free and others work on many items, a few wait a moment for more: clients ask again as soon as they are answered,
    and of ten the first would go alone. All calls must come from one event loop.

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
        self._at_once, self._busy, self._looking = at_once, 0, False
        self._waiting: deque[_Waiting] = deque()
        self._come, self._waiting_size, self._busy_size = 0, 0, 0

    async def __call__(self, item: Any) -> Any:
        """The result of an item."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(item, self._size(item), loop.create_future())
        self._waiting.append(waiting)
        self._waiting_size += waiting.size
        self._come += 1
        self._look_soon(loop)
        return await waiting.result

    def _look_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting and self._busy < self._at_once and not self._looking:
            self._looking = True
            loop.call_soon(self._look, loop, 0, 0)

    def _look(self, loop: asyncio.AbstractEventLoop, come: int, quiet: int) -> None:
        """Begins when the event loop has brought all that is there."""
        if quiet < _QUIET_ROUNDS:
            loop.call_soon(self._look, loop, self._come, quiet + 1 if come == self._come else 0)
        elif 2 * self._waiting_size * self._busy < self._busy_size:
            loop.call_later(_FEW_SECONDS, self._begin, loop)
        else:
            self._begin(loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._looking = False
        while self._busy < self._at_once and (batch := self._next()):
            self._busy += 1
            self._busy_size += sum(waiting.size for waiting in batch)
            working = loop.run_in_executor(self._executor, self._results, [waiting.item for waiting in batch])
            working.add_done_callback(partial(self._done, loop, batch))

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        room = min(self._most, -(-self._waiting_size // (self._at_once - self._busy)))
        while self._waiting:
            waiting = self._waiting[0]
            if not waiting.result.done():  # else its client has gone
                room -= waiting.size
                if room < 0 and batch:
                    break
                batch.append(waiting)
            self._waiting.popleft()
            self._waiting_size -= waiting.size
        return batch

    def _results(self, items: list[Any]) -> Sequence[Any]:
        results = self._work(items)
        assert len(results) == len(items), (len(results), len(items))
        return results

    def _done(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], working: asyncio.Future[Any]) -> None:
        self._busy -= 1
        self._busy_size -= sum(waiting.size for waiting in batch)
        self._look_soon(loop)
        error = asyncio.CancelledError() if working.cancelled() else working.exception()
        results = [] if error else working.result()
        for place, waiting in enumerate(batch):
            if waiting.result.done():
                continue
            if error:
                waiting.result.set_exception(error)
            else:
                waiting.result.set_result(results[place])


class _Waiting(NamedTuple):
    item: Any
    size: int
    result: asyncio.Future[Any]
