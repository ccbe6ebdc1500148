"""One shard of the memory bank: rows of images and of clusters, by version.

A version is an epoch that labelled. A block of rows replaces that of older versions, so that features are held once.
Of moving averages, and of tables that are `kept` (labels), the version before stays: what an epoch needs of the last
one is there, and an epoch that is repeated after a crash finds the same state and writes the same rows. A write of an
older version than the newest is refused; a repeated one is harmless.

A generation is a group of workers. `restore` begins a new one; what a group that is gone still had on its way, or had a
labeller do, comes with an older generation and is dropped. A shard whose process died is started again, empty and of
generation 0: whatever comes for a later one is refused with `LostRowsError`, so that a run never goes on from a mixture
of old and missing rows but from its newest checkpoint, to which it puts all shards back.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from reidray.arrays import Array, Floats, Ints
from reidray.bank.smoothing import smoothed_masks
from reidray.disk import disk_errors
from reidray.spans import Recording, Spans, spanned

_MEMORY = re.compile(r"memory/(?P<name>[^/]+)/(?P<what>places|rows)")


class LostRowsError(RuntimeError):
    """A shard of the memory bank was started again and holds nothing: only a checkpoint has what it held."""


_making = threading.Lock()
"""Labellers in threads of one process may write the first rows of a block at once."""


@dataclass
class _Memory:
    """The rows of a memory that this shard owns, of one version: their places, and the last step that moved them."""

    version: int
    places: Ints
    rows_RSD: Floats
    step: int = -1


@dataclass
class _Table:
    blocks: dict[int, dict[int, Array]] = field(default_factory=dict)  # version -> block -> rows
    newest: int = -1


class BankShard:
    """Plain object; `reidray.actors` makes an actor of it, `--workers 0` calls it directly."""

    def __init__(self, name: str = "bank shard 0") -> None:
        self.spans = Spans(name)
        self._tables: dict[str, _Table] = {}
        self._memories: dict[str, _Memory] = {}
        self._generation = 0
        self._marked: dict[str, dict[str, Array]] = {}  # entries come and go in one step each: threads share it

    # ---- rows of images, in the blocks of the data set's shards

    @spanned
    def put(
        self, table: str, version: int, block: int, rows: Array, generation: int = 0, *, kept: bool = False
    ) -> None:
        """Write the rows of one block of images. kept: the version before stays as well, of all blocks."""
        if self._from_a_group_that_is_gone(generation):
            return
        entry = self._tables.setdefault(table, _Table())
        if version < entry.newest:
            raise ValueError(
                f"the memory bank holds {table} of epoch {entry.newest} and was sent epoch {version}: a write of an "
                "older epoch comes from a worker that should be gone"
            )
        entry.newest = version
        entry.blocks.setdefault(version, {})[block] = np.array(rows)
        for old in sorted(entry.blocks)[: -2 if kept else -1]:
            if not kept:
                entry.blocks[old].pop(block, None)
            if kept or not entry.blocks[old]:
                del entry.blocks[old]

    @spanned
    def put_rows(
        self, table: str, version: int, parts: Mapping[int, tuple[int, Ints, Array]], generation: int = 0
    ) -> None:
        """Write some rows of some blocks: block -> (its number of images, offsets in it, rows)."""
        if self._from_a_group_that_is_gone(generation):
            return
        for block, (count, offsets, rows) in parts.items():
            with _making:
                held = self._tables.get(table, _Table()).blocks.get(version, {}).get(block)
                if held is None:
                    self.put(table, version, block, np.zeros((count, *rows.shape[1:]), rows.dtype), generation)
                    held = self._tables[table].blocks[version][block]
            held[offsets] = rows

    @spanned
    def put_tables(
        self,
        split: str,
        version: int,
        block: int,
        tables: Mapping[str, Array],
        averages: Mapping[str, tuple[str, int, float]],
        generation: int = 0,
        kept: Sequence[str] = (),
    ) -> None:
        """Write the rows of one block of images in several tables at once.

        Args:
          tables: rows by the table's name in the split.
          averages: moving averages to write as well: name -> (table of class numbers, number of classes, momentum),
            see `reidray.bank.smoothing`.
          kept: tables of which the version before stays.
        """
        for name, rows in tables.items():
            self.put(f"{split}/{name}", version, block, rows, generation, kept=name in kept)
        for name, (of, num_classes, momentum) in averages.items():
            earlier = self._tables.get(f"{split}/{name}", _Table()).blocks
            before = max((known for known in earlier if known < version), default=None)
            previous = None if before is None else earlier[before].get(block)
            averaged = smoothed_masks(previous, tables[of], num_classes=num_classes, momentum=momentum)
            self.put(f"{split}/{name}", version, block, averaged, generation, kept=True)

    @spanned
    def get(self, table: str, version: int, blocks: list[int], column: int | None, generation: int = 0) -> list[Array]:
        """The rows of some blocks; of each row only `column` of its second axis unless that is None."""
        self._refuse_a_group_that_is_gone(generation)
        entry = self._tables.get(table, _Table()).blocks.get(version, {})
        missing = [block for block in blocks if block not in entry]
        if missing:
            raise ValueError(f"the memory bank has no {table} of epoch {version} for block {missing[0]}")
        return [entry[block] if column is None else np.ascontiguousarray(entry[block][:, column]) for block in blocks]

    @spanned
    def blocks(self, table: str, version: int, generation: int = 0) -> list[int]:
        """The blocks of a table that are here."""
        self._refuse_a_group_that_is_gone(generation)
        return list(self._tables.get(table, _Table()).blocks.get(version, {}))

    @spanned
    def take(
        self, table: str, version: int, wanted: dict[int, Ints], column: int | None, generation: int = 0
    ) -> dict[int, Array]:
        """Some rows of some blocks: block -> offsets in it -> rows; of each only `column` unless that is None."""
        blocks = self.get(table, version, list(wanted), None, generation)
        if column is not None:
            blocks = [rows[:, column] for rows in blocks]
        return {block: rows[wanted[block]] for block, rows in zip(wanted, blocks, strict=True)}

    # ---- rows of memories

    @spanned
    def put_memory(self, name: str, version: int, places: Ints, rows_RSD: Floats, generation: int = 0) -> None:
        """Write all the rows of a memory that this shard owns, as labelling made them; forgets older versions."""
        if self._from_a_group_that_is_gone(generation):
            return
        held = self._memories.get(name)
        if held is not None and version < held.version:
            raise ValueError(f"the memory bank holds memory {name} of epoch {held.version} and was sent {version}")
        self._memories[name] = _Memory(version, np.array(places), np.array(rows_RSD))

    @spanned
    def move_memory(
        self, name: str, version: int, step: int, places: Ints, rows_RSD: Floats, generation: int = 0
    ) -> None:
        """Write the rows that a step moved. Steps come in order; one that came already is written again."""
        if self._from_a_group_that_is_gone(generation):
            return
        entry = self._memory(name, version)
        if step < entry.step:
            raise ValueError(
                f"the memory bank was sent step {step} of memory {name} of epoch {version} after step {entry.step}"
            )
        entry.rows_RSD[np.searchsorted(entry.places, places)] = rows_RSD
        entry.step = step

    @spanned
    def get_memory(self, name: str, version: int, generation: int = 0) -> tuple[Ints, Floats]:
        """The places in a memory that this shard owns and their rows."""
        self._refuse_a_group_that_is_gone(generation)
        entry = self._memory(name, version)
        return entry.places, entry.rows_RSD.copy()

    @spanned
    def memory_shape(self, name: str, version: int, generation: int = 0) -> tuple[int, ...]:
        """How many rows of a memory this shard owns, and the shape of a row."""
        self._refuse_a_group_that_is_gone(generation)
        return self._memory(name, version).rows_RSD.shape

    @spanned
    def take_memory(self, name: str, version: int, places: Ints, generation: int = 0) -> Floats:
        """Some rows of a memory, all of which this shard must own."""
        self._refuse_a_group_that_is_gone(generation)
        entry = self._memory(name, version)
        if not np.isin(places, entry.places).all():
            raise ValueError(
                f"a shard of the memory bank was asked for rows of memory {name} of epoch {version} that it does not "
                "own"
            )
        return entry.rows_RSD[np.searchsorted(entry.places, places)]

    def _memory(self, name: str, version: int) -> _Memory:
        entry = self._memories.get(name)
        if entry is None or entry.version != version:
            has = {known: memory.version for known, memory in self._memories.items()}
            raise ValueError(f"the memory bank has no memory {name} of epoch {version}; it has {has}")
        return entry

    # ---- the whole shard

    def trace(self, epoch: int) -> None:
        """Keep every span from now on."""
        self.spans.trace(epoch)

    def traced(self) -> Recording:
        """The spans since `trace`."""
        return self.spans.traced()

    @spanned
    def mark(
        self, ticket: str, tables: Sequence[str], version: int, memories: Sequence[str], generation: int = 0
    ) -> None:
        """Keep what tables and memories hold at a version until `write` is called; copies little.

        Rows of the tables of a checkpoint are never changed once they are here, only replaced; memories move in place
        and are copied.
        """
        self._refuse_a_group_that_is_gone(generation)
        rows = {}
        for table in tables:
            entry = self._tables.get(table, _Table())
            held = entry.blocks.get(version, {})
            if entry.newest > version and set(entry.blocks[entry.newest]) - set(held):
                raise ValueError(
                    f"the memory bank was asked to keep {table} of epoch {version}, of which rows are gone"
                )
            rows.update({f"{table}/{block}": own for block, own in held.items()})
        for name in memories:
            memory = self._memory(name, version)
            rows.update({f"memory/{name}/places": memory.places, f"memory/{name}/rows": memory.rows_RSD.copy()})
        self._marked[ticket] = rows

    @spanned
    def write(self, ticket: str, path: str) -> str:
        """Write what was marked to a safetensors file and forget the mark; the file's SHA-256.

        May run in another thread than everything else: training goes on meanwhile.
        """
        rows = self._marked.pop(ticket, None)
        if rows is None:
            raise LostRowsError("a shard of the memory bank was started again before it had written its checkpoint")
        with disk_errors():
            save_file({key: np.ascontiguousarray(values) for key, values in rows.items()}, path)
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def generation(self) -> int:
        """The group of workers whose writes are taken."""
        return self._generation

    @spanned
    def restore(self, version: int, files: Sequence[str], place: int, count: int, generation: int = 0) -> None:
        """Forget everything, and take writes of `generation` from now on.

        Args:
          version: of what is in the files.
          files: that shards wrote, however many they were; none: start empty.
          place, count: this is shard `place` of `count`: it takes block b where b mod count = place, and likewise the
            rows of memories.

        Raises:
          RuntimeError: an older generation than the one that it serves.
        """
        if generation < self._generation:
            self._refuse_a_group_that_is_gone(generation)
        self._generation = generation
        self._tables, self._memories = {}, {}
        self._marked = {}
        moved: dict[str, dict[str, list[Array]]] = {}
        for file in files:
            with safe_open(file, framework="numpy") as stored:
                for key in list(stored.keys()):
                    if found := _MEMORY.fullmatch(key):
                        parts = moved.setdefault(found["name"], {"places": [], "rows": []})
                        parts[found["what"]].append(stored.get_tensor(key))
                        continue
                    table, _, block = key.rpartition("/")
                    if int(block) % count == place:
                        blocks = self._tables.setdefault(table, _Table({version: {}}, version)).blocks[version]
                        blocks[int(block)] = stored.get_tensor(key)
        for name, parts in moved.items():
            places, rows_RSD = np.concatenate(parts["places"]), np.concatenate(parts["rows"])
            own = np.flatnonzero(places % count == place)
            own = own[np.argsort(places[own])]
            self._memories[name] = _Memory(version, places[own], rows_RSD[own])

    def sizes(self) -> dict[str, Any]:
        """Bytes held, by table; for inspection."""
        sizes = {
            table: sum(rows.nbytes for blocks in entry.blocks.values() for rows in blocks.values())
            for table, entry in self._tables.items()
        }
        sizes.update({f"memory/{name}": entry.rows_RSD.nbytes for name, entry in self._memories.items()})
        return sizes

    def _from_a_group_that_is_gone(self, generation: int) -> bool:
        if generation > self._generation:
            raise LostRowsError(
                f"a shard of the memory bank was started again and holds nothing of generation {generation}; the run "
                "goes on from its newest checkpoint"
            )
        return generation < self._generation

    def _refuse_a_group_that_is_gone(self, generation: int) -> None:
        if self._from_a_group_that_is_gone(generation):
            raise RuntimeError(
                f"the memory bank serves generation {self._generation} and was asked by generation {generation}, a "
                "group of workers that should be gone"
            )


def read_snapshot(files: Sequence[Path]) -> dict[str, Array]:
    """All that shards wrote: "table/block" -> rows, "memory/<name>/places" and "/rows" joined; to look at.

    Raises:
      OSError: a file is not there. safetensors.SafetensorError: it is damaged.
    """
    found: dict[str, Array] = {}
    for file in files:
        with safe_open(file, framework="numpy") as stored:
            for key in stored.keys():  # noqa: SIM118 (it is no dict)
                rows = stored.get_tensor(key)
                found[key] = np.concatenate([found[key], rows]) if key in found else rows
    return found
