"""The index beside a split's tars: where each image lies, and the checks that they belong together.

    split.json      {"format": 1, "split", "count", "created_by",
                     "shards": [{"file", "bytes", "sha256", "first", "count"}, ...]}
    index.parquet   a row per image: shard, offset, size, crc32, name, camera, width, height, extension

The index carries a digest of the tars' sha256 sums, so one that was made for other tars is found out when it is opened.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reidray.arrays import Ints
from reidray.version import __version__

FORMAT = 1
INDEX, SPLIT, TRUTH, MASKS = "index.parquet", "split.json", "truth.parquet", "masks.safetensors"
ATTRIBUTES = "attributes.parquet"
EXTENSIONS = ("jpg", "jpeg", "png", "bmp", "webp")
MAX_MEMBER_BYTES = 256 * 2**20
MAX_JSON_BYTES = 64 * 2**10
PACK_AGAIN = "pack it again with jobs/prepare.py"

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
_MEMBER = re.compile(rf"(\d{{9}})\.({'|'.join(EXTENSIONS)}|json)", re.ASCII)
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


@dataclass(frozen=True)
class Member:
    """One image inside a tar: where its bytes lie, their checksum, and what its JSON says."""

    extension: str
    offset: int
    size: int
    crc32: int
    name: str
    camera: int


@dataclass(frozen=True)
class Row:
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


@dataclass(frozen=True)
class Index:
    """What a reader needs for every image; `names` stay in Arrow's memory until somebody asks for them."""

    offsets_N: Ints
    sizes_N: Ints
    crcs_N: Ints
    cameras_N: np.ndarray[Any, np.dtype[np.int32]]
    names: Any


def scan(path: Path, *, first: int) -> list[Member]:
    """Lists the images of a tar in one pass over it.

    Refused are members other than regular files called <9 digits>.<jpg|jpeg|png|bmp|webp|json> (so no paths, no links,
    no pickles), images without their JSON, keys out of order, and members beyond MAX_MEMBER_BYTES.

    Args:
      path: of the tar, uncompressed.
      first: the key its first image must have.

    Returns:
      One Member per image, in the order of the keys.

    Raises:
      ValueError: the tar is cut short, or holds something that is refused.
    """
    members: list[Member] = []
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            parts: dict[str, tuple[int, bytes]] = {}
            for position, member in enumerate(tar):
                key, extension = _check_member(path, member)
                if int(key) != first + len(members):
                    raise ValueError(
                        f"{path}: expected key {first + len(members):09d} at member {position}, got {member.name}; "
                        f"{PACK_AGAIN}."
                    )
                content = tar.extractfile(member)
                assert content is not None
                data = content.read()
                if len(data) != member.size:
                    raise tarfile.ReadError("unexpected end of data")
                parts[extension] = (member.offset_data, data)
                if len(parts) == 2:
                    members.append(_pair(path, key, parts))
                    parts = {}
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path}: expected a whole tar, got one that is cut short ({error}); {PACK_AGAIN}.") from error
    if parts:
        raise ValueError(f"{path}: expected an image and its .json per key, the last has only one; {PACK_AGAIN}.")
    return members


def _check_member(path: Path, member: tarfile.TarInfo) -> tuple[str, str]:
    match = _MEMBER.fullmatch(member.name)
    if match is None or not member.isreg():
        raise ValueError(
            f"{path}: expected only files like 000000000.jpg and 000000000.json, got {member.name!r}; do not use this "
            f"tar, {PACK_AGAIN}."
        )
    limit = MAX_JSON_BYTES if match[2] == "json" else MAX_MEMBER_BYTES
    if member.size > limit:
        raise ValueError(f"{path}: expected at most {limit} bytes in {member.name}, got {member.size}; {PACK_AGAIN}.")
    return match[1], match[2]


def _pair(path: Path, key: str, parts: dict[str, tuple[int, bytes]]) -> Member:
    if "json" not in parts:
        raise ValueError(f"{path}: expected an image and a .json for key {key}, got two images; {PACK_AGAIN}.")
    (extension,) = parts.keys() - {"json"}
    offset, data = parts[extension]
    try:
        meta = json.loads(parts["json"][1])
        name, camera = str(meta["name"]), int(meta["camera"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected name and camera in {key}.json, got {error!r}; {PACK_AGAIN}.") from error
    return Member(extension, offset, len(data), zlib.crc32(data), name, camera)


def digest(shards: Sequence[Shard]) -> str:
    """One sha256 for all tars of a split, in order."""
    return hashlib.sha256("\n".join(shard.sha256 for shard in shards).encode()).hexdigest()


def write(folder: Path, split: str, shards: Sequence[Shard], rows: Sequence[Row]) -> None:
    """Writes index.parquet and split.json into a split's folder."""
    columns = list(zip(*map(astuple, rows), strict=True))
    assert [field.name for field in fields(Row)] == _SCHEMA.names
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=_SCHEMA.with_metadata({_DIGEST: digest(shards).encode()}))
    pq.write_table(table, folder / INDEX, write_page_checksum=True)
    text = {
        "format": FORMAT,
        "split": split,
        "count": len(rows),
        "shards": [asdict(shard) for shard in shards],
        "created_by": __version__,
    }
    (folder / SPLIT).write_text(json.dumps(text, indent=1) + "\n")


def parse_split(data: bytes | None, *, folder: str) -> list[Shard]:
    """Reads and checks split.json.

    Args:
      data: its bytes, None when there is no such file.
      folder: shown in errors.

    Returns:
      The shards in order; their ranges follow each other from 0.

    Raises:
      ValueError: missing, of another format, or at odds with itself.
    """
    if data is None:
        raise ValueError(f"{folder}: expected a packed split with {SPLIT}, found none; pack with jobs/prepare.py.")
    try:
        text = json.loads(data)
        if text["format"] != FORMAT:
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
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{where}: expected a whole index, got a damaged one ({error}); {PACK_AGAIN}.") from error
    if not table.schema.equals(_SCHEMA, check_metadata=False):
        raise ValueError(f"{where}: expected columns {', '.join(_SCHEMA.names)}, got others; {PACK_AGAIN}.")
    count = sum(shard.count for shard in shards)
    if table.num_rows != count:
        raise ValueError(f"{where}: expected {count} rows as in {SPLIT}, got {table.num_rows}; {PACK_AGAIN}.")
    if (table.schema.metadata or {}).get(_DIGEST) != digest(shards).encode():
        raise ValueError(f"{where}: the index is stale, it was made for other tars than {SPLIT} names; {PACK_AGAIN}.")
    shard_N, offsets_N, sizes_N, crcs_N, cameras_N = (
        table.column(name).to_numpy() for name in ("shard", "offset", "size", "crc32", "camera")
    )
    counts = [shard.count for shard in shards]
    ends_N = np.repeat([shard.bytes for shard in shards], counts)
    inside_N = (offsets_N >= 0) & (sizes_N >= 0) & (sizes_N <= MAX_MEMBER_BYTES) & (offsets_N <= ends_N - sizes_N)
    if not (inside_N & (shard_N == np.repeat(np.arange(len(shards)), counts))).all():
        raise ValueError(f"{where}: some images lie outside their tars; {PACK_AGAIN}.")
    if pc.any(pc.match_substring_regex(table.column("name"), _CONTROL)).as_py():
        raise ValueError(f"{where}: some names have control characters, which a terminal would obey; {PACK_AGAIN}.")
    return Index(offsets_N, sizes_N, crcs_N, cameras_N, table.column("name"))
