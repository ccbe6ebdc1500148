"""What a pack was made from: names, sizes and times of the image files, so that a later run sees what has changed.

No image is opened for it, but for those whose time alone has changed: they are compared with the checksums of the pack.
dataset.json has a digest of the files and one of what is known of them; source.parquet has a row a file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reidray.data.image_files import in_words
from reidray.data.left_out import shown
from reidray.data.records import Dataset
from reidray.disk import write_whole
from reidray.storage import index as indexing
from reidray.storage.destination import DATASET, SOURCE

_SCHEMA = pa.schema([("split", pa.string()), ("name", pa.string()), ("bytes", pa.int64()), ("time_ns", pa.int64())])
_THREADS = 4

_Key = tuple[str, str]
"""split and name"""


@dataclass(frozen=True)
class Source:
    """The state of the files of a data set.

    Attributes:
      table: a row a file: split, name, bytes and time_ns (-1 where there is none), as the reader has them.
      paths: where they lie, in the same order.
      labels: digest of persons, cameras, tracklets and attributes.
    """

    table: pa.Table
    paths: Sequence[Path]
    labels: str

    def described(self) -> dict[str, Any]:
        """What dataset.json says of it."""
        digest = hashlib.sha256()
        for column in self.table.columns:
            values = column.combine_chunks()
            digest.update("\n".join(values.to_pylist()).encode() if values.type == pa.string() else values.to_numpy())
        sizes = self.table["bytes"].to_numpy()
        return {
            "count": len(sizes),
            "bytes": int(sizes[sizes >= 0].sum()),
            "digest": digest.hexdigest(),
            "labels": self.labels,
        }

    def write(self, folder: Path) -> None:
        """Writes source.parquet into the folder of a pack."""
        pq.write_table(self.table, folder / SOURCE)


@dataclass
class Changes:
    """Names of files that came, changed and went since a data set was packed."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    labels: bool = False

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.labels)

    def in_words(self) -> str:
        """How many of each, and the first names."""
        named = {"added": self.added, "changed": self.changed, "removed": self.removed}
        parts = [f"{len(names):,} {what}" for what, names in named.items() if names]
        if not parts:
            return "other persons, cameras, tracklets or attributes of the same images"
        names = [shown(name) for names in named.values() for name in names]
        return f"{', '.join(parts)}, such as {in_words(names)}"


def source_of(dataset: Dataset) -> Source:
    """The state of a data set's files as it is now."""
    images = [(name, image) for name, split in dataset.splits.items() for image in split.images]
    states = [_state(image.path) for _, image in images]
    columns = [
        pa.array([split for split, _ in images], pa.string()),
        pa.array([image.name for _, image in images], pa.string()),
        pa.array([size for size, _ in states], pa.int64()),
        pa.array([time for _, time in states], pa.int64()),
    ]
    return Source(pa.table(columns, schema=_SCHEMA), [image.path for _, image in images], _labels(dataset))


def _state(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 (a hundred thousand files)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _labels(dataset: Dataset) -> str:
    digest = hashlib.sha256(json.dumps([dataset.name, dataset.camera_names, dataset.person_names]).encode())
    for name, split in dataset.splits.items():
        tracklets = None if split.tracklets is None else [[one.name, one.frames] for one in split.tracklets]
        attributes = None if split.attributes is None else list(split.attributes.names)
        digest.update(json.dumps([name, tracklets, attributes]).encode())
        for numbers in (split.persons, split.cameras):
            digest.update(b"none" if numbers is None else np.array(numbers, np.int64).tobytes())
        if split.attributes is not None:
            digest.update(np.ascontiguousarray(split.attributes.values_NA).tobytes())
    return digest.hexdigest()


def changes(packed: Path, described: Mapping[str, Any], now: Source) -> Changes:
    """What has changed since a data set was packed.

    Where nothing but times has, they are noted in the pack, so that the next comparison is quick.

    Args:
      packed: folder of the pack.
      described: its dataset.json, which has "files".
      now: the state of the same data set as it is now.

    Raises:
      ValueError: the list of files in the pack is damaged.
    """
    before, current = described["files"], now.described()
    if before == current:
        return Changes()
    was, is_now = _rows(_table(packed)), _rows(now.table)
    found = Changes(labels=before["labels"] != current["labels"])
    found.added = sorted({name for _, name in is_now.keys() - was.keys()})
    found.removed = sorted({name for _, name in was.keys() - is_now.keys()})
    both = [key for key in is_now if key in was]
    changed = {key for key in both if is_now[key][0] != was[key][0]}
    other_time = [key for key in both if key not in changed and is_now[key] != was[key]]
    changed |= _other_content(packed, other_time, dict(zip(is_now, now.paths, strict=True)))
    found.changed = sorted({name for _, name in changed})
    if not found:
        with suppress(OSError):  # a pack that cannot be written is compared again
            _note(packed, described, now, current)
    return found


def _rows(table: pa.Table) -> dict[_Key, tuple[int, int]]:
    splits, names, sizes, times = (column.to_pylist() for column in table.columns)
    return dict(zip(zip(splits, names, strict=True), zip(sizes, times, strict=True), strict=True))


def _table(packed: Path) -> pa.Table:
    try:
        table = pq.read_table(packed / SOURCE)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{packed / SOURCE}: expected the list of the files that were packed, found none that can be read "
            f"({error}); pack into another place with data.packed=DIR."
        ) from error
    if not table.schema.equals(_SCHEMA, check_metadata=False):
        raise ValueError(
            f"{packed / SOURCE}: expected columns {', '.join(_SCHEMA.names)}, got others; pack into another place with "
            "data.packed=DIR."
        )
    return table


def _other_content(packed: Path, keys: Iterable[_Key], paths: Mapping[_Key, Path]) -> set[_Key]:
    """Those of some files whose bytes are not the packed ones."""
    keys = list(keys)
    sums: dict[_Key, int] = {}
    for split in {split for split, _ in keys}:
        table = pq.read_table(packed / split / indexing.INDEX, columns=["name", "crc32"])
        names, crcs = (table[name].to_pylist() for name in ("name", "crc32"))
        sums |= {(split, name): crc for name, crc in zip(names, crcs, strict=True)}

    def differs(key: _Key) -> bool:
        try:
            return key not in sums or zlib.crc32(paths[key].read_bytes()) != sums[key]
        except OSError:
            return True

    with ThreadPoolExecutor(_THREADS) as threads:
        return {key for key, other in zip(keys, threads.map(differs, keys), strict=True) if other}


def _note(packed: Path, described: Mapping[str, Any], now: Source, current: Mapping[str, Any]) -> None:
    buffer = io.BytesIO()
    pq.write_table(now.table, buffer)
    partial = packed / f"{SOURCE}.{os.getpid()}.partial"
    try:
        partial.write_bytes(buffer.getvalue())
        partial.replace(packed / SOURCE)
    finally:
        partial.unlink(missing_ok=True)
    write_whole(packed / DATASET, json.dumps({**described, "files": current}, indent=1) + "\n")
