"""One shard of the memory bank: rows of images and of clusters, by version.

A version is an epoch. Of every table the shard keeps the newest version and the one before it: what an epoch needs
of the last one (the momentum of masks) is there, and an epoch that is repeated after a crash finds the same state and
writes the same rows. A write of an older version than the newest is refused; a repeated one is harmless.

A generation is a group of workers. `restore` begins a new one; what a group that is gone still had on its way, or had a
labeller do, comes with an older generation and is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reidray.arrays import Array, Floats, Ints
from reidray.bank.smoothing import smoothed_masks


@dataclass
class _ClusterRows:
    """The rows of one version of the clusters that this shard owns, and the last step that moved them."""

    clusters: Ints
    rows_CSD: Floats
    step: int = -1


@dataclass
class _Table:
    blocks: dict[int, dict[int, Array]] = field(default_factory=dict)  # version -> block -> rows
    newest: int = -1


class BankShard:
    """Plain object; `reidray.actors` makes an actor of it, `--workers 0` calls it directly."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}
        self._centroids: dict[int, _ClusterRows] = {}
        self._generation = 0

    # ---- rows of images, in the blocks of the data set's shards

    def put(self, table: str, version: int, block: int, rows: Array, generation: int = 0) -> None:
        """Write the rows of one block of images."""
        if generation < self._generation:
            return
        entry = self._tables.setdefault(table, _Table())
        if version < entry.newest:
            raise ValueError(
                f"the memory bank holds {table} of epoch {entry.newest} and was sent epoch {version}: a write of an "
                "older epoch comes from a worker that should be gone"
            )
        entry.newest = version
        entry.blocks.setdefault(version, {})[block] = np.array(rows)
        for old in [known for known in entry.blocks if known < version - 1]:
            del entry.blocks[old]

    def put_smoothed(
        self,
        table: str,
        version: int,
        block: int,
        parts_BHW: Array,
        num_parts: int,
        momentum: float,
        generation: int = 0,
    ) -> None:
        """Write soft masks: gamma times those of the epoch before plus (1 - gamma) times the new ones (SCWM eq. 3)."""
        previous = self._tables.get(table, _Table()).blocks.get(version - 1, {}).get(block)
        masks = smoothed_masks(previous, parts_BHW, num_parts=num_parts, momentum=momentum)
        self.put(table, version, block, masks, generation)

    def get(self, table: str, version: int, blocks: list[int], column: int | None) -> list[Array]:
        """The rows of some blocks; of each row only `column` of its second axis unless that is None."""
        entry = self._tables.get(table, _Table()).blocks.get(version, {})
        missing = [block for block in blocks if block not in entry]
        if missing:
            raise ValueError(f"the memory bank has no {table} of epoch {version} for block {missing[0]}")
        return [entry[block] if column is None else np.ascontiguousarray(entry[block][:, column]) for block in blocks]

    def blocks(self, table: str, version: int) -> list[int]:
        """The blocks of a table that are here."""
        return list(self._tables.get(table, _Table()).blocks.get(version, {}))

    def take(self, table: str, version: int, wanted: dict[int, Ints], column: int | None = None) -> dict[int, Array]:
        """Some rows of some blocks: block -> offsets in it -> rows, of each only `column` unless that is None."""
        blocks = self.get(table, version, list(wanted), None)
        if column is not None:
            blocks = [rows[:, column] for rows in blocks]
        return {block: rows[wanted[block]] for block, rows in zip(wanted, blocks, strict=True)}

    # ---- rows of clusters

    def put_centroids(self, version: int, clusters: Ints, rows_CSD: Floats, generation: int = 0) -> None:
        """Write all the clusters that this shard owns, as labelling made them; forgets older versions."""
        if generation < self._generation:
            return
        if self._centroids and version < max(self._centroids):
            raise ValueError(f"the memory bank holds centroids of epoch {max(self._centroids)} and was sent {version}")
        self._centroids = {version: _ClusterRows(np.array(clusters), np.array(rows_CSD))}

    def update_centroids(self, version: int, step: int, clusters: Ints, rows_CSD: Floats, generation: int = 0) -> None:
        """Write the rows that a step moved. Steps come in order; one that came already is written again."""
        if generation < self._generation:
            return
        entry = self._entry(version)
        if step < entry.step:
            raise ValueError(f"the memory bank was sent step {step} of epoch {version} after step {entry.step}")
        entry.rows_CSD[np.searchsorted(entry.clusters, clusters)] = rows_CSD
        entry.step = step

    def get_centroids(self, version: int) -> tuple[Ints, Floats]:
        """The clusters that this shard owns and their rows."""
        entry = self._entry(version)
        return entry.clusters, entry.rows_CSD.copy()

    def _entry(self, version: int) -> _ClusterRows:
        if version not in self._centroids:
            raise ValueError(f"the memory bank has no centroids of epoch {version}; it has {sorted(self._centroids)}")
        return self._centroids[version]

    # ---- the whole shard

    def snapshot(self, tables: list[str], version: int) -> dict[str, dict[int, Array]]:
        """The blocks of some tables at a version: table -> block -> rows."""
        return {table: dict(self._tables.get(table, _Table()).blocks.get(version, {})) for table in tables}

    def generation(self) -> int:
        """The group of workers whose writes are taken."""
        return self._generation

    def restore(self, version: int, snapshot: dict[str, dict[int, Array]], generation: int = 0) -> None:
        """Forget everything, take a snapshot's blocks as those of `version`, and writes of `generation` from now on."""
        self._generation = generation
        self._tables = {table: _Table({version: dict(blocks)}, version) for table, blocks in snapshot.items()}
        self._centroids = {}

    def sizes(self) -> dict[str, Any]:
        """Bytes held, by table; for inspection."""
        sizes = {
            table: sum(rows.nbytes for blocks in entry.blocks.values() for rows in blocks.values())
            for table, entry in self._tables.items()
        }
        sizes["centroids"] = sum(entry.rows_CSD.nbytes for entry in self._centroids.values())
        return sizes
