"""The index beside a split's tars: where each image lies, and the checks that they belong together.

    split.json         {"format": 1, "split", "count", "created_by",
                        "shards": [{"file", "bytes", "sha256", "first", "count"}, ...]}
    index.parquet      a row per image: shard, offset, size, crc32, name, camera, width, height, extension
    tracklets.parquet  only where samples are tracklets; a row each: name, camera, first, frames (rows of the index)

Index and tracklets carry a digest of the tars' sha256 sums, so that those of other tars are found out when they are
opened. A tar holds whole samples: NNNNNNNNN.jpg and NNNNNNNNN.json of an image, NNNNNNNNN.0000.jpg and so on and
NNNNNNNNN.json of a tracklet.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reidray.arrays import Ints
from reidray.version import __version__

FORMAT = 1
OF_TRACKLETS = 2  # the format of a split whose samples are tracklets
INDEX, SPLIT, TRUTH, MASKS = "index.parquet", "split.json", "truth.parquet", "masks.safetensors"
ATTRIBUTES, TRACKLETS = "attributes.parquet", "tracklets.parquet"
EXTENSIONS = ("jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "gif")
MAX_MEMBER_BYTES = 256 * 2**20
MAX_FRAMES = 10_000
PACK_AGAIN = "pack it again with reidray prepare"

_DIGEST = b"reidray.shards"
_SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("crc32", pa.int64()),
        ("name", pa.string()),
        ("camera", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("extension", pa.string()),
    ]
)
_TRACKLETS_SCHEMA = pa.schema(
    [("name", pa.string()), ("camera", pa.int32()), ("first", pa.int64()), ("frames", pa.int32())]
)
_CONTROL = r"\p{Cc}"
_TAR_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.tar", re.ASCII)


@dataclass(frozen=True)
class Shard:
    """One tar: its file name, size, sha256, the index of its first image and how many it holds."""

    file: str
    bytes: int
    sha256: str
    first: int
    count: int


class Row(NamedTuple):
    """One row of index.parquet."""

    shard: int
    offset: int
    size: int
    crc32: int
    name: str
    camera: int
    width: int
    height: int
    extension: str


class TrackletRow(NamedTuple):
    """One row of tracklets.parquet: its frames are rows of the index from `first` on."""

    name: str
    camera: int
    first: int
    frames: int


@dataclass(frozen=True)
class Index:
    """What a reader needs for every image; `names` stay in Arrow's memory until somebody asks for them."""

    offsets_N: Ints
    sizes_N: Ints
    crcs_N: Ints
    cameras_N: np.ndarray[Any, np.dtype[np.int32]]
    names: Any


@dataclass(frozen=True)
class Tracklets:
    """The tracklets of a split: first row of the index, frames and camera of each."""

    firsts_N: Ints
    frames_N: np.ndarray[Any, np.dtype[np.int32]]
    cameras_N: np.ndarray[Any, np.dtype[np.int32]]
    names: Any


def digest(shards: Sequence[Shard]) -> str:
    """One sha256 for all tars of a split, in order."""
    return hashlib.sha256("\n".join(shard.sha256 for shard in shards).encode()).hexdigest()


def write(
    folder: Path,
    split: str,
    shards: Sequence[Shard],
    images: Sequence[pa.RecordBatch],
    tracklets: Sequence[TrackletRow] | None = None,
) -> None:
    """Writes index.parquet, split.json and, where samples are tracklets, tracklets.parquet into a split's folder.

    Args:
      images: the rows of all images, from `rows_of`.
    """
    table = pa.Table.from_batches(images, _SCHEMA)
    _write_table(folder / INDEX, table, shards)
    if tracklets is not None:
        of_tracklets = pa.Table.from_batches([_columns(tracklets, _TRACKLETS_SCHEMA)], _TRACKLETS_SCHEMA)
        _write_table(folder / TRACKLETS, of_tracklets, shards)
    text = {
        "format": FORMAT if tracklets is None else OF_TRACKLETS,
        "split": split,
        "count": table.num_rows,
        "shards": [asdict(shard) for shard in shards],
        "created_by": __version__,
    }
    (folder / SPLIT).write_text(json.dumps(text, indent=1) + "\n")


def rows_of(rows: Sequence[Row]) -> pa.RecordBatch:
    """Rows of index.parquet, in Arrow's memory: Python's objects take several times as much."""
    return _columns(rows, _SCHEMA)


def _columns(rows: Sequence[Any], schema: pa.Schema) -> pa.RecordBatch:
    assert list(rows[0]._fields) == schema.names
    arrays = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _write_table(path: Path, table: pa.Table, shards: Sequence[Shard]) -> None:
    marked = table.replace_schema_metadata({_DIGEST: digest(shards).encode()})
    pq.write_table(marked.combine_chunks(), path, write_page_checksum=True)


def parse_split(data: bytes | None, *, folder: str) -> list[Shard]:
    """Reads and checks split.json; the format 2 is that of tracklets (`has_tracklets`).

    Args:
      data: its bytes, None when there is no such file.
      folder: shown in errors.

    Returns:
      The shards in order; their ranges follow each other from 0.

    Raises:
      ValueError: missing, of another format, or at odds with itself.
    """
    if data is None:
        raise ValueError(f"{folder}: expected a packed split with {SPLIT}, found none; pack with reidray prepare.")
    try:
        text = json.loads(data)
        if text["format"] not in (FORMAT, OF_TRACKLETS):
            raise ValueError(
                f"{folder}/{SPLIT}: expected format {FORMAT}, got {text['format']!r}; {PACK_AGAIN}, or update reidray."
            )
        shards = [
            Shard(str(s["file"]), int(s["bytes"]), str(s["sha256"]), int(s["first"]), int(s["count"]))
            for s in text["shards"]
        ]
        count = int(text["count"])
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{folder}/{SPLIT}: expected reidray's list of shards, got {error!r}; {PACK_AGAIN}."
        ) from error
    first = 0
    for shard in shards:
        if _TAR_NAME.fullmatch(shard.file) is None:
            raise ValueError(f"{folder}/{SPLIT}: expected plain names of .tar files, got {shard.file!r}; {PACK_AGAIN}.")
        if shard.first != first or shard.count < 1:
            raise ValueError(f"{folder}/{SPLIT}: {shard.file} does not continue at image {first}; {PACK_AGAIN}.")
        first += shard.count
    if first != count:
        raise ValueError(f"{folder}/{SPLIT}: expected {count} images in the shards, got {first}; {PACK_AGAIN}.")
    return shards


def has_tracklets(data: bytes | None) -> bool:
    """Whether the samples of a split are tracklets, from its split.json, which `parse_split` has found good."""
    return data is not None and json.loads(data)["format"] == OF_TRACKLETS


def parse_index(data: bytes | None, shards: Sequence[Shard], *, folder: str) -> Index:
    """Reads index.parquet and checks it against the shards.

    Args:
      data: the file's bytes, None when there is no such file.
      shards: from split.json.
      folder: shown in errors.

    Returns:
      The columns a reader needs.

    Raises:
      ValueError: missing, damaged, or made for other tars.
    """
    where = f"{folder}/{INDEX}"
    if data is None:
        raise ValueError(f"{where}: expected the index of the shards, found none; {PACK_AGAIN}.")
    table = _parse_table(data, _SCHEMA, shards, where, "index", sum(shard.count for shard in shards))
    shard_N, offsets_N, sizes_N, crcs_N, cameras_N = (
        table.column(name).to_numpy() for name in ("shard", "offset", "size", "crc32", "camera")
    )
    counts = [shard.count for shard in shards]
    ends_N = np.repeat([shard.bytes for shard in shards], counts)
    inside_N = (offsets_N >= 0) & (sizes_N >= 0) & (sizes_N <= MAX_MEMBER_BYTES) & (offsets_N <= ends_N - sizes_N)
    if not (inside_N & (shard_N == np.repeat(np.arange(len(shards)), counts))).all():
        raise ValueError(f"{where}: some images lie outside their tars; {PACK_AGAIN}.")
    _check_names_column(table, where)
    return Index(offsets_N, sizes_N, crcs_N, cameras_N, table.column("name"))


def parse_tracklets(data: bytes | None, shards: Sequence[Shard], *, folder: str) -> Tracklets:
    """Reads tracklets.parquet and checks it against the shards: each tracklet lies in one of them.

    Args:
      data: the file's bytes, None when there is no such file.
      shards: from split.json.
      folder: shown in errors.

    Raises:
      ValueError: missing, damaged, or made for other tars.
    """
    where = f"{folder}/{TRACKLETS}"
    if data is None:
        raise ValueError(f"{where}: expected the list of tracklets, found none; {PACK_AGAIN}.")
    table = _parse_table(data, _TRACKLETS_SCHEMA, shards, where, "list of tracklets", None)
    cameras_N, firsts_N, frames_N = (table.column(name).to_numpy() for name in ("camera", "first", "frames"))
    ends_N = np.cumsum(frames_N, dtype=np.int64)
    shard_ends = [shard.first + shard.count for shard in shards]
    whole = len(ends_N) and (frames_N >= 1).all() and np.array_equal(firsts_N, ends_N - frames_N)
    if not whole or ends_N[-1] != shard_ends[-1] or not np.isin(shard_ends, ends_N).all():
        raise ValueError(f"{where}: its tracklets are not those of the shards; {PACK_AGAIN}.")
    _check_names_column(table, where)
    return Tracklets(firsts_N, frames_N, cameras_N, table.column("name"))


def _parse_table(
    data: bytes, schema: pa.Schema, shards: Sequence[Shard], where: str, what: str, count: int | None
) -> pa.Table:
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{where}: expected a whole {what}, got a damaged one ({error}); {PACK_AGAIN}.") from error
    if not table.schema.equals(schema, check_metadata=False):
        raise ValueError(f"{where}: expected columns {', '.join(schema.names)}, got others; {PACK_AGAIN}.")
    if any(column.null_count for column in table.columns):
        raise ValueError(f"{where}: expected a value in every place, got empty ones; {PACK_AGAIN}.")
    if count is not None and table.num_rows != count:
        raise ValueError(f"{where}: expected {count} rows as in {SPLIT}, got {table.num_rows}; {PACK_AGAIN}.")
    if (table.schema.metadata or {}).get(_DIGEST) != digest(shards).encode():
        raise ValueError(f"{where}: the {what} is stale, it was made for other tars than {SPLIT} names; {PACK_AGAIN}.")
    return table


def _check_names_column(table: pa.Table, where: str) -> None:
    if pc.any(pc.match_substring_regex(table.column("name"), _CONTROL)).as_py():
        raise ValueError(f"{where}: some names have control characters, which a terminal would obey; {PACK_AGAIN}.")
