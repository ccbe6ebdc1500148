"""The memory bank: all state that is about images or clusters, spread over shards.

N = images, R = rows of a memory, S = vectors of a feature, D = their width.

Rows of images live in blocks, one for each shard of the data set; block b is kept by member b mod M, row r of a memory
by member r mod M. The facade knows who keeps what and is all that workers and labellers see.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from reidray.arrays import Array, Floats, Ints
from reidray.bank.members import Member, Pending

_PENDING_WRITES = 64


@final
class Snapshot:
    """What the bank held when it was marked; each shard writes its own part, while the bank goes on."""

    def __init__(self, members: Sequence[Member], ticket: str, marked: Sequence[Pending]) -> None:
        self._members, self._ticket, self._marked = members, ticket, marked

    def write(self, folder: Path) -> dict[str, str]:
        """Have the shards write their files into a folder that all of them see; waits; name -> SHA-256."""
        for pending in self._marked:
            pending.result()
        names = [f"bank-{place}.safetensors" for place in range(len(self._members))]
        asked = [
            member.submit("write", self._ticket, str(folder / name))
            for member, name in zip(self._members, names, strict=True)
        ]
        return {name: pending.result() for name, pending in zip(names, asked, strict=True)}


class MemoryBank:
    """Facade over the shards.

    Args:
      members: the shards.
      layouts: for each split the first index and the number of images of each block.

    """

    def __init__(self, members: Sequence[Member], layouts: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        self._members = list(members)
        self._layouts = {split: list(blocks) for split, blocks in layouts.items()}
        self._pending: list[tuple[Pending, int]] = []  # writes on their way, and the step that sent them or -1
        self._sent = -1
        self._marks = 0
        self._generation = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pending": []}  # writes are waited for by whoever submitted them

    @property
    def generation(self) -> int:
        """Of the group of workers that this facade writes for; `restore` says it. With a new one, writes that are still
        on their way for the one before are forgotten, and so are their errors."""
        return self._generation

    @generation.setter
    def generation(self, generation: int) -> None:
        if generation != self._generation:
            self._generation, self._pending, self._sent = generation, [], -1

    def layout(self, split: str) -> list[tuple[int, int]]:
        """First index and number of images of each block of a split."""
        return self._layouts[split]

    # ---- rows of images

    def put(self, table: str, version: int, block: int, rows: Array | Pending) -> None:
        """Write a block of `split/name`; returns at once, errors surface at `flush` or a later write."""
        self._write(self._keeper(block).submit("put", table, version, block, rows, self.generation))

    def put_tables(
        self,
        split: str,
        version: int,
        block: int,
        tables: Mapping[str, Array] | Pending,
        averages: Mapping[str, tuple[str, int, float]],
        *,
        kept: Sequence[str] = (),
    ) -> None:
        """Write a block in several tables of a split, which may still be on their way, and moving averages of them.

        averages: name -> (table, number of classes, momentum), see `reidray.bank.shard.BankShard.put_tables`.
        kept: tables of which the version before stays.
        """
        arguments = (split, version, block, tables, dict(averages), self.generation, list(kept))
        self._write(self._keeper(block).submit("put_tables", *arguments))

    def put_rows(self, table: str, version: int, indices: Ints, rows: Array) -> None:
        """Write some rows of `split/name`, wherever they lie; returns at once, errors surface at `flush`.

        A block has its whole size from the first of its rows on; whoever writes sees that all of them come.
        """
        layout = self._layouts[table.split("/")[0]]
        for member, places in self._by_member(layout, indices):
            parts = {
                block: (layout[block][1], indices[own] - layout[block][0], rows[own]) for block, own in places.items()
            }
            self._write(member.submit("put_rows", table, version, parts, self.generation))

    def read(self, table: str, version: int, column: int | None = None, blocks: range | None = None) -> Array:
        """A table in index order: all of it, or some blocks that follow each other; of each row only `column` of its
        second axis unless that is None."""
        if blocks is None:
            blocks = range(len(self._layouts[table.split("/")[0]]))
        found: dict[int, Array] = {}
        asked = []
        for place, member in enumerate(self._members):
            own = [block for block in blocks if block % len(self._members) == place]
            if own:
                asked.append((own, member.submit("get", table, version, own, column, self.generation)))
        for own, pending in asked:
            found.update(zip(own, pending.result(), strict=True))
        return np.concatenate([found[block] for block in blocks])

    def blocks(self, table: str, version: int) -> set[int]:
        """The blocks of a table that are there."""
        asked = [member.submit("blocks", table, version, self.generation) for member in self._members]
        return {block for pending in asked for block in pending.result()}

    def take(self, table: str, version: int, indices: Ints, column: int | None = None) -> Array:
        """Some rows of a table, in the order of `indices`; of each only `column` unless that is None."""
        layout = self._layouts[table.split("/")[0]]
        asked: list[tuple[dict[int, Ints], Pending]] = []
        for member, places in self._by_member(layout, indices):
            wanted = {block: indices[own] - layout[block][0] for block, own in places.items()}
            asked.append((places, member.submit("take", table, version, wanted, column, self.generation)))
        rows: Array | None = None
        for places, pending in asked:
            for block, values in pending.result().items():
                if rows is None:
                    rows = np.empty((len(indices), *values.shape[1:]), values.dtype)
                rows[places[block]] = values
        if rows is None:
            raise ValueError(f"no rows of {table} were asked for")
        return rows

    # ---- rows of memories

    def put_memory(self, name: str, version: int, rows_RSD: Floats) -> None:
        """Write all rows of a memory of an epoch and wait until every shard has them."""
        places = np.arange(len(rows_RSD))
        for place, member in enumerate(self._members):
            own = places[place :: len(self._members)]
            self._write(member.submit("put_memory", name, version, own, rows_RSD[own], self.generation))
        self.flush()

    def move_memory(self, name: str, version: int, step: int, places: Ints, rows_RSD: Floats) -> None:
        """Send the rows that a step moved; does not wait, drops nothing."""
        for place, member in enumerate(self._members):
            own = places % len(self._members) == place
            if own.any():
                rows = rows_RSD[own]
                self._sent = step
                self._write(member.submit("move_memory", name, version, step, places[own], rows, self.generation))

    def memory(self, name: str, version: int) -> Floats:
        """All rows of a memory of an epoch, float32 [R, S, D]."""
        asked = [member.submit("get_memory", name, version, self.generation) for member in self._members]
        found = [pending.result() for pending in asked]
        rows = [rows for places, rows in found if len(places)]
        rows_RSD = np.empty((sum(len(part) for part in rows), *found[0][1].shape[1:]), np.float32)
        for places, part in found:
            rows_RSD[places] = part
        return rows_RSD

    def memory_shape(self, name: str, version: int) -> tuple[int, int, int]:
        """R, S and D of a memory of an epoch, of which no row is moved."""
        asked = [member.submit("memory_shape", name, version, self.generation) for member in self._members]
        shapes = [pending.result() for pending in asked]
        _, vectors, width = shapes[0]
        return sum(count for count, _, _ in shapes), vectors, width

    def take_memory(self, name: str, version: int, places: Ints) -> Floats:
        """Some rows of a memory of an epoch, in the order of `places`: float32 [len(places), S, D]."""
        taken = np.empty((len(places), *self.memory_shape(name, version)[1:]), np.float32)
        asked = []
        for place, member in enumerate(self._members):
            own = np.flatnonzero(places % len(self._members) == place)
            if len(own):
                asked.append((own, member.submit("take_memory", name, version, places[own], self.generation)))
        for own, pending in asked:
            taken[own] = pending.result()
        return taken

    # ---- the whole bank

    def flush(self) -> None:
        """Wait until every write of this caller has arrived; raises what went wrong."""
        pending, self._pending, self._sent = self._pending, [], -1
        for write, _ in pending:
            write.result()

    def queue(self) -> tuple[int, int]:
        """Writes of this caller that have not arrived, and how many steps of the epoch that leaves the shards behind.

        May be asked from another thread.
        """
        waiting = [step for write, step in list(self._pending) if not write.done()]
        steps = [step for step in waiting if step >= 0]
        return len(waiting), steps[-1] - steps[0] + 1 if steps else 0

    def trace(self, epoch: int) -> list[Pending]:
        """Have every shard keep its spans."""
        return [member.submit("trace", epoch) for member in self._members]

    def traced(self) -> list[Pending]:
        """A `Recording` of each."""
        return [member.submit("traced") for member in self._members]

    def mark(self, tables: Sequence[str], version: int, *, memories: Sequence[str]) -> Snapshot:
        """What tables and memories hold at a version, as of the writes of this caller so far.

        Does not wait; the snapshot is written by whoever has the time, in any thread.
        """
        self._marks += 1
        ticket = f"{self.generation}/{self._marks}"
        arguments = (ticket, list(tables), version, list(memories), self.generation)
        return Snapshot(self._members, ticket, [member.submit("mark", *arguments) for member in self._members])

    def restore(self, version: int, files: Sequence[Path]) -> int:
        """Make the bank what it was when the shards wrote `files`; without files it is empty.

        Begins a new generation, which it returns: facades of other processes must be given it, and what comes for
        older ones is dropped from now on. It is a time in microseconds, so that it is a new one also where every shard
        was started again and none remembers, and later than those that are remembered.
        """
        self.generation = max(self._latest() + 1, time.time_ns() // 1000)
        count, names = len(self._members), [str(file) for file in files]
        for place, member in enumerate(self._members):
            self._write(member.submit("restore", version, names, place, count, self.generation))
        self.flush()
        return self.generation

    def refuse_if_gone(self) -> None:
        """For whoever works long without the bank.

        Raises:
          RuntimeError: the bank has begun a later generation than this caller's: nobody waits for it any more.
        """
        if (latest := self._latest()) > self.generation:
            raise RuntimeError(f"the memory bank serves generation {latest}, and generation {self.generation} is gone")

    def sizes(self) -> list[dict[str, int]]:
        """Bytes by table, shard by shard."""
        return [member.submit("sizes").result() for member in self._members]

    def _latest(self) -> int:
        """The latest generation that the shards or this caller know of."""
        asked = [member.submit("generation") for member in self._members]
        return max([self.generation, *(pending.result() for pending in asked)])

    def _by_member(self, layout: Sequence[tuple[int, int]], indices: Ints) -> Iterator[tuple[Member, dict[int, Ints]]]:
        """Who keeps some rows of images: each member with the places in `indices` of each of its blocks."""
        blocks = np.searchsorted(np.array([first for first, _ in layout]), indices, side="right") - 1
        for place, member in enumerate(self._members):
            own = np.unique(blocks[blocks % len(self._members) == place]).tolist()
            if own:
                yield member, {block: np.flatnonzero(blocks == block) for block in own}

    def _keeper(self, block: int) -> Member:
        return self._members[block % len(self._members)]

    def _write(self, pending: Pending) -> None:
        self._pending.append((pending, self._sent))
        if len(self._pending) > _PENDING_WRITES:
            self._pending.pop(0)[0].result()
