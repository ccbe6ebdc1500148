"""The file of a gallery: Parquet, a row an image, with the id of the model that made it.

Columns: name, source (the folder or pack that the name lies in, "" where there is none), camera (its name, null where
unknown), stamp (of the file as it was: another size or time, another stamp; 0 unknown), embedding (unit length,
float32). Any reader of Parquet takes it. The first format, with numbers of cameras, is read too.

A file grows by whole row groups: a new file takes the place of the old one when it is complete. An embedding is a list,
which is what pandas, polars and DuckDB know; the lists of a row group are one page that is not compressed, so that a
search takes them from the memory map (`reidray.gallery.pages`).
"""

# N = images, D = feature width

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reidray.arrays import Floats, Ints
from reidray.gallery.cameras import TYPE as CAMERA_TYPE
from reidray.gallery.cameras import Cameras, read_cameras
from reidray.gallery.pages import place_of

FORMAT = 2
_NUMBERED_CAMERAS = 1  # the first format
ROWS, _MOST_BYTES = 16_384, 1 << 25
"""The most of a row group, which one thread searches at a time."""

_BLOCK_BYTES = 1 << 21
"""Copied at a time: what a core's cache holds."""

_KEY = b"reidray"
_LEAF = "embedding.list.element"


@dataclass(frozen=True)
class Made:
    """How the embeddings of a gallery were made.

    Attributes:
      model: id of the model.
      width: D.
      method: the method that trained it.
      run: where the model was, for people.
    """

    model: str
    width: int
    method: str
    run: str


@dataclass(frozen=True)
class Rows:
    """What is added: N names, their sources, cameras (None: unknown) and stamps, and the embeddings [N, D]."""

    names: Sequence[str]
    sources: Sequence[str]
    cameras: Sequence[str | None]
    features_ND: Floats
    stamps: Sequence[int] | None = None


class GalleryFile:
    """A gallery's file, opened for reading, memory-mapped. It does not see what is added later: open it anew.

    Raises:
      ValueError: nothing is there, or it is no gallery.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            there = "a folder is" if path.is_dir() else "nothing is"
            raise ValueError(f"{path}: expected a gallery, but {there} there; reidray embed makes one")
        self.path = path
        self._readers = threading.local()
        try:
            with path.open("rb") as opened:
                self.stamp = _stamp(os.fstat(opened.fileno()))
                self._mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            self._buffer = pa.py_buffer(self._mapped)
            self._parquet = self._reader()
        except (pa.ArrowInvalid, OSError, ValueError) as error:  # ValueError: an empty file
            raise ValueError(
                f"{path}: expected a gallery (Parquet), got a file that cannot be read ({error})"
            ) from None
        schema = self._parquet.schema_arrow
        written = (schema.metadata or {}).get(_KEY)
        if written is None or "embedding" not in schema.names:
            raise ValueError(
                f"{path}: expected a gallery that reidray embed wrote, got Parquet with the columns "
                f"{', '.join(schema.names[:8])}"
            )
        told: dict[str, Any] = json.loads(written)
        if told.get("format") not in (FORMAT, _NUMBERED_CAMERAS):
            raise ValueError(
                f"{path}: gallery format {told.get('format')} is of a newer reidray; this one reads up to {FORMAT}"
            )
        self.made = Made(**{name: told[name] for name in ("model", "width", "method", "run")})
        groups = [self._parquet.metadata.row_group(group) for group in range(self._parquet.num_row_groups)]
        self.firsts = np.concatenate([[0], np.cumsum([group.num_rows for group in groups], dtype=np.int64)])
        self._places = [place_of(group, _LEAF, self.made.width, memoryview(self._mapped)) for group in groups]

    def __len__(self) -> int:
        return int(self.firsts[-1])

    @property
    def num_groups(self) -> int:
        """Row groups."""
        return len(self.firsts) - 1

    def features(self, group: int) -> Floats:
        """float32 [rows of the group, D]; the caller's."""
        place = self._places[group]
        if place is not None:
            return self._taken(place.start, place.rows, np.empty((place.rows, self.made.width), np.float32))
        column = self._reader().read_row_group(group, columns=["embedding"], use_threads=False).column(0)
        features_BD: Floats = np.asarray(column.combine_chunks().flatten()).reshape(-1, self.made.width)
        return features_BD

    def blocks(self, group: int) -> Iterator[tuple[int, Floats]]:
        """The group's rows piece by piece: the first one's number in the file, and float32 [rows, D].

        A piece holds until this thread asks for the next one.
        """
        first, place = int(self.firsts[group]), self._places[group]
        if place is None:
            yield first, self.features(group)
            return
        rows = max(1, _BLOCK_BYTES // (4 * self.made.width))
        if not hasattr(self._readers, "room"):
            self._readers.room = np.empty((rows, self.made.width), np.float32)
        for start in range(0, place.rows, rows):
            count = min(rows, place.rows - start)
            at = place.start + 4 * self.made.width * start
            yield first + start, self._taken(at, count, self._readers.room[:count])

    def _taken(self, start: int, rows: int, room_RD: Floats) -> Floats:
        """Rows from the map, copied: they lie there at any byte, and arithmetic wants multiples of four."""
        room_RD.reshape(-1).view(np.uint8)[:] = np.frombuffer(self._mapped, np.uint8, 4 * rows * self.made.width, start)
        return room_RD

    def names(self) -> Any:
        """An Arrow array of N texts."""
        return self._parquet.read(columns=["name"]).column(0).combine_chunks()

    def sources(self) -> Any:
        """An Arrow array of N texts."""
        return self._parquet.read(columns=["source"]).column(0).cast(pa.string()).combine_chunks()

    def stamps(self) -> Ints:
        """[N]."""
        stamps_N: Ints = self._parquet.read(columns=["stamp"]).column(0).to_numpy()
        return stamps_N

    def cameras(self) -> Cameras:
        """Of all images."""
        return read_cameras(self._parquet.read(columns=["camera"]).column(0), self.sources())

    def batches(self) -> Iterator[Any]:
        """All rows, as Arrow batches of a row group each."""
        return self._parquet.iter_batches(rows_of_a_group(self.made.width))

    def close(self) -> None:
        """Lets the file go."""
        self._parquet.close()

    def _reader(self) -> Any:
        """Of this thread: readers are not made for several."""
        if not hasattr(self._readers, "own"):
            self._readers.own = pq.ParquetFile(pa.BufferReader(self._buffer), pre_buffer=False)
        return self._readers.own


def append(
    path: Path, made: Made, rows: Rows, *, without: Sequence[int] = (), cameras: Mapping[int, str] | None = None
) -> None:
    """Adds rows to a gallery, or makes it. Others that add at the same time wait.

    Args:
      path: of the file.
      made: how the embeddings were made.
      rows: to add; may be none.
      without: rows of the gallery that are dropped.
      cameras: of rows of the gallery whose camera is another than it says.

    Raises:
      ValueError: the file is no gallery, or one of another model.
      OSError: the disk is full or cannot be written; the file is as it was.
    """
    told = json.dumps({"format": FORMAT, **made.__dict__})
    size = rows_of_a_group(made.width)
    schema = pa.schema(
        [
            pa.field("name", pa.string(), nullable=False),
            pa.field("source", pa.dictionary(pa.int32(), pa.string()), nullable=False),
            pa.field("camera", CAMERA_TYPE),
            pa.field("stamp", pa.int64(), nullable=False),
            pa.field(
                "embedding", pa.list_(pa.field("element", pa.float32(), nullable=False), made.width), nullable=False
            ),
        ],
        metadata={_KEY: told.encode()},
    )
    flat = pa.array(np.ascontiguousarray(rows.features_ND, np.float32).ravel())
    table = pa.table(
        [
            pa.array(list(rows.names), pa.string()),
            pa.array(list(rows.sources), pa.string()).dictionary_encode(),
            pa.array(list(rows.cameras), pa.string()).dictionary_encode(),
            pa.array(list(rows.stamps or [0] * len(rows.names)), pa.int64()),
            pa.FixedSizeListArray.from_arrays(flat, type=schema.field("embedding").type),
        ],
        schema=schema,
    )
    with locked(path):
        earlier = GalleryFile(path) if path.exists() else None
        if earlier is not None:
            check_model(earlier.made, made.model, path, made.run)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with pq.ParquetWriter(
                beside,
                schema,
                compression={"name": "zstd", "source": "zstd", "camera": "zstd", "stamp": "zstd", _LEAF: "none"},
                use_dictionary=["source", "camera"],
                write_statistics=False,
                data_page_size=2 * _MOST_BYTES,  # a page a row group
            ) as writer:
                if earlier is not None:
                    first, gone = 0, np.array(sorted(without), np.int64)
                    known = earlier.cameras().changed(cameras or {})
                    for batch in earlier.batches():
                        kept = ~np.isin(np.arange(first, first + len(batch)), gone)
                        column = known.column(first, len(batch))
                        old = pa.Table.from_batches([batch])
                        old = old.set_column(old.schema.get_field_index("camera"), "camera", column).cast(schema)
                        first += len(batch)
                        writer.write_table(old if kept.all() else old.filter(pa.array(kept)), row_group_size=size)
                if len(table):
                    writer.write_table(table, row_group_size=size)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
            if earlier is not None:
                earlier.close()


def rows_of_a_group(width: int) -> int:
    """Rows of the row groups that are written, for embeddings of this width."""
    return max(1, min(ROWS, _MOST_BYTES // (4 * width)))


def check_model(made: Made, model: str, path: Path, run: str) -> None:
    """Raises ValueError where a gallery is not this model's."""
    if made.model != model:
        raise ValueError(
            f"{path} was made by another model ({made.method}, {made.run}, id {made.model[:12]}) than {run} "
            f"(id {model[:12]}), and their embeddings cannot be compared: give the run that made it, or embed the "
            "images into another file"
        )


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes when another file takes the place of this one."""
    return _stamp(path.stat())


def _stamp(there: os.stat_result) -> tuple[int, int, int]:
    return there.st_ino, there.st_size, there.st_mtime_ns


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One writer at a time."""
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
