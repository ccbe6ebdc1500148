"""The memory bank: all state that is about images or clusters, spread over shards.

N = images, C = clusters, S = spaces, D = feature width.

Rows of images live in blocks, one for each shard of the data set; block b is kept by member b mod M, cluster c by
member c mod M. The facade knows who keeps what and is all that workers and labellers see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reidray.arrays import Array, Floats, Ints
from reidray.bank.members import Member, Pending

_PENDING_WRITES = 64


class MemoryBank:
    """Facade over the shards.

    Args:
      members: the shards.
      layouts: for each split the first index and the number of images of each block.

    Attributes:
      generation: of the group of workers that this facade writes for; `restore` says it.
    """

    def __init__(self, members: Sequence[Member], layouts: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        self._members = list(members)
        self._layouts = {split: list(blocks) for split, blocks in layouts.items()}
        self._pending: list[Pending] = []
        self.generation = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pending": []}  # writes are waited for by whoever submitted them

    def layout(self, split: str) -> list[tuple[int, int]]:
        """First index and number of images of each block of a split."""
        return self._layouts[split]

    # ---- rows of images

    def put(self, table: str, version: int, block: int, rows: Array | Pending) -> None:
        """Write a block of `split/name`; returns at once, errors surface at `flush` or a later write."""
        self._write(self._keeper(block).submit("put", table, version, block, rows, self.generation))

    def put_smoothed(
        self, table: str, version: int, block: int, parts: Array | Pending, num_parts: int, momentum: float
    ) -> None:
        """Write a block of soft masks (SCWM eq. 3) from hard parts, which may still be on their way."""
        keeper = self._keeper(block)
        write = keeper.submit("put_smoothed", table, version, block, parts, num_parts, momentum, self.generation)
        self._write(write)

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
                asked.append((own, member.submit("get", table, version, own, column)))
        for own, pending in asked:
            found.update(zip(own, pending.result(), strict=True))
        return np.concatenate([found[block] for block in blocks])

    def blocks(self, table: str, version: int) -> set[int]:
        """The blocks of a table that are there."""
        asked = [member.submit("blocks", table, version) for member in self._members]
        return {block for pending in asked for block in pending.result()}

    def take(self, table: str, version: int, indices: Ints, column: int | None = None) -> Array:
        """Some rows of a table, in the order of `indices`; of each only `column` unless that is None."""
        layout = self._layouts[table.split("/")[0]]
        firsts = np.array([first for first, _ in layout])
        blocks = np.searchsorted(firsts, indices, side="right") - 1
        asked: list[tuple[dict[int, Array], Pending]] = []
        for place, member in enumerate(self._members):
            own = [int(block) for block in np.unique(blocks) if block % len(self._members) == place]
            if own:
                places = {block: np.flatnonzero(blocks == block) for block in own}
                wanted = {block: indices[places[block]] - firsts[block] for block in own}
                asked.append((places, member.submit("take", table, version, wanted, column)))
        rows: Array | None = None
        for places, pending in asked:
            for block, values in pending.result().items():
                if rows is None:
                    rows = np.empty((len(indices), *values.shape[1:]), values.dtype)
                rows[places[block]] = values
        if rows is None:
            raise ValueError(f"no rows of {table} were asked for")
        return rows

    # ---- rows of clusters

    def put_centroids(self, version: int, centroids_CSD: Floats) -> None:
        """Write all centroids of an epoch and wait until every shard has them."""
        clusters = np.arange(len(centroids_CSD))
        for place, member in enumerate(self._members):
            own = clusters[place :: len(self._members)]
            self._write(member.submit("put_centroids", version, own, centroids_CSD[own], self.generation))
        self.flush()

    def update_centroids(self, version: int, step: int, clusters: Ints, rows_CSD: Floats) -> None:
        """Send the rows that a step moved; does not wait, drops nothing."""
        for place, member in enumerate(self._members):
            own = clusters % len(self._members) == place
            if own.any():
                rows = rows_CSD[own]
                self._write(member.submit("update_centroids", version, step, clusters[own], rows, self.generation))

    def centroids(self, version: int) -> Floats:
        """All centroids of an epoch, float32 [C, S, D]."""
        found = [pending.result() for pending in [m.submit("get_centroids", version) for m in self._members]]
        rows = [rows for clusters, rows in found if len(clusters)]
        centroids_CSD = np.empty((sum(len(part) for part in rows), *rows[0].shape[1:]), np.float32)
        for clusters, part in found:
            centroids_CSD[clusters] = part
        return centroids_CSD

    # ---- the whole bank

    def flush(self) -> None:
        """Wait until every write of this caller has arrived; raises what went wrong."""
        pending, self._pending = self._pending, []
        for write in pending:
            write.result()

    def snapshot(self, tables: list[str], version: int) -> dict[str, Array]:
        """Tables as a checkpoint keeps them: "table/block" -> rows."""
        asked = [member.submit("snapshot", tables, version) for member in self._members]
        return {
            f"{table}/{block}": rows
            for pending in asked
            for table, blocks in pending.result().items()
            for block, rows in blocks.items()
        }

    def restore(self, version: int, snapshot: Mapping[str, Array]) -> int:
        """Make the bank what it was when `snapshot` was taken; an empty snapshot empties it.

        Begins a new generation, which it returns: facades of other processes must be given it, and what comes for
        older ones is dropped from now on.
        """
        self.flush()
        asked = [member.submit("generation") for member in self._members]
        self.generation = 1 + max((pending.result() for pending in asked), default=0)
        parts: list[dict[str, dict[int, Array]]] = [{} for _ in self._members]
        for key, rows in snapshot.items():
            table, block = key.rsplit("/", 1)
            parts[int(block) % len(parts)].setdefault(table, {})[int(block)] = rows
        for member, part in zip(self._members, parts, strict=True):
            self._write(member.submit("restore", version, part, self.generation))
        self.flush()
        return self.generation

    def sizes(self) -> list[dict[str, int]]:
        """Bytes by table, shard by shard."""
        return [member.submit("sizes").result() for member in self._members]

    def _keeper(self, block: int) -> Member:
        return self._members[block % len(self._members)]

    def _write(self, pending: Pending) -> None:
        self._pending.append(pending)
        if len(self._pending) > _PENDING_WRITES:
            self._pending.pop(0).result()
