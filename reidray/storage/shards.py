"""Packed images: single ones by index for P x K batches, whole tars in order for extraction.

`<packed>/<split>/` holds the tars, index.parquet and split.json, and for evaluation only truth.parquet and
masks.safetensors, which nothing else opens: training cannot see an identity by accident. Nor what was noted about
persons, which is in attributes.parquet, for labels that say they are weakly supervised.
"""

# N = images, A = attributes, H, W = height and width in pixels

from __future__ import annotations

import os
import threading
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reidray.arrays import Ints
from reidray.data.attributes import Attributes
from reidray.storage import index as indexing
from reidray.storage.cache import open_folder
from reidray.storage.pack import pack

__all__ = ["ShardedImages", "pack", "read_attributes", "read_truth"]

_MAX_OPEN = 128
_BLOCK = 8 * 2**20


class ShardedImages:
    """The images of one packed split, as the bytes they had before packing.

    Safe to use from several threads and processes; pickling keeps the place and opens it anew.

    Attributes:
      count: N.
      cameras_N: int32, 0-based, -1 unknown.
      num_shards: number of tars.
      digest: of all tars; equal digests mean equal images in equal order.
    """

    def __init__(self, folder: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None) -> None:
        """Reads the index and checks that it fits the tars; tars are opened (and fetched) when first read.

        Args:
          folder: <packed>/<split>, a path or an fsspec URL. A path is read in place; to copy from a slow mount, write
            file:///mount/packed/train and give a cache_dir.
          cache_dir: where the tars behind a URL are copied to, once per node.

        Raises:
          ValueError: no packed split, another format, a tar cut short, an index that belongs to other tars.
        """
        self._arguments = (os.fspath(folder), None if cache_dir is None else os.fspath(cache_dir))
        self._folder = open_folder(*self._arguments)
        split = self._folder.read(indexing.SPLIT)
        self._shards = indexing.parse_split(split, folder=self._folder.shown)
        self._of_tracklets = indexing.has_tracklets(split)
        self._index = indexing.parse_index(self._folder.read(indexing.INDEX), self._shards, folder=self._folder.shown)
        for shard in self._shards:
            self._folder.check(shard.file, size=shard.bytes, sha256=shard.sha256)
        self._firsts = [shard.first for shard in self._shards]
        self._open: OrderedDict[int, _Tar] = OrderedDict()
        self._lock = threading.Lock()
        self.count = len(self._index.offsets_N)
        self.num_shards = len(self._shards)
        self.cameras_N = self._index.cameras_N
        self.digest = indexing.digest(self._shards)

    def __getstate__(self) -> tuple[str, str | None]:
        return self._arguments

    def __setstate__(self, arguments: tuple[str, str | None]) -> None:
        self.__init__(arguments[0], cache_dir=arguments[1])  # type: ignore[misc]

    def __len__(self) -> int:
        return self.count

    def tracklets(self) -> indexing.Tracklets | None:
        """Which images are the frames of a tracklet; None where each is a sample of its own.

        Raises:
          ValueError: the list of tracklets is missing, damaged, or does not belong to the tars.
        """
        if not self._of_tracklets:
            return None
        data = self._folder.read(indexing.TRACKLETS)
        return indexing.parse_tracklets(data, self._shards, folder=self._folder.shown)

    @property
    def names(self) -> list[str]:
        """The name of every image, in order; a new list at each call."""
        names: list[str] = self._index.names.to_pylist()
        return names

    def name(self, index: int) -> str:
        """The name of one image."""
        name: str = self._index.names[index].as_py()
        return name

    def shard_range(self, shard: int) -> tuple[int, int]:
        """The index of a shard's first image, and how many images it holds."""
        return self._shards[shard].first, self._shards[shard].count

    def read(self, index: int) -> bytes:
        """Reads one image.

        Args:
          index: in [0, count).

        Returns:
          The bytes of the image file; their checksum was compared.

        Raises:
          IndexError: there is no such image.
          ValueError: the tar changed since it was packed.
        """
        index = int(index)
        if not 0 <= index < self.count:
            raise IndexError(f"{self._folder.shown}: expected an index from 0 to {self.count - 1}, got {index}.")
        shard = bisect_right(self._firsts, index) - 1
        size = int(self._index.sizes_N[index])
        data = self._tar(shard).read(int(self._index.offsets_N[index]), size)
        self._check(shard, index, data)
        return data

    def stream(self, shard: int) -> Iterator[tuple[int, bytes]]:
        """Reads a whole tar in order, some megabytes at a time.

        Args:
          shard: in [0, num_shards).

        Yields:
          Index and bytes of each image, checksums compared.

        Raises:
          ValueError: the tar changed since it was packed.
        """
        first, count = self.shard_range(shard)
        offsets = self._index.offsets_N[first : first + count].tolist()
        sizes = self._index.sizes_N[first : first + count].tolist()
        tar, start, block = self._tar(shard), 0, b""
        for place, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
            if offset < start or offset + size > start + len(block):
                start, block = offset, tar.read(offset, max(size, _BLOCK))
            data = block[offset - start : offset - start + size]
            self._check(shard, first + place, data)
            yield first + place, data

    def close(self) -> None:
        """Closes the tars; a later read opens them again."""
        with self._lock:
            self._open.clear()

    def _tar(self, number: int) -> _Tar:
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number]
        shard = self._shards[number]
        tar = _Tar(self._folder.path(shard.file, size=shard.bytes, sha256=shard.sha256))
        with self._lock:
            self._open[number] = tar
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        return tar

    def _check(self, shard: int, index: int, data: bytes) -> None:
        size, crc32 = int(self._index.sizes_N[index]), int(self._index.crcs_N[index])
        if len(data) == size and zlib.crc32(data) == crc32:
            return
        got = f"{len(data)} bytes" if len(data) != size else f"checksum {zlib.crc32(data):08x}"
        raise ValueError(
            f"{self._tar(shard).path}: expected {size} bytes with checksum {crc32:08x} for image {index} "
            f"({self._index.names[index].as_py()}), got {got}; the tar changed, {indexing.PACK_AGAIN}."
        )


class _Tar:
    """An open tar; closed when the last reader lets go of it, so that no reader ever meets a reused descriptor."""

    def __init__(self, path: os.PathLike[str]) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


def read_truth(folder: str | os.PathLike[str]) -> Ints | None:
    """Reads the identities of a packed split; for evaluation only.

    Args:
      folder: <packed>/<split>, path or URL.

    Returns:
      int64 [N] in the order of the images, or of the tracklets; None when they are unknown.

    Raises:
      ValueError: the list does not belong to the images.
    """
    found = _table_of_images(folder, indexing.TRUTH, "names and persons")
    if found is None:
        return None
    where, table = found
    if "person" not in table.column_names:
        raise ValueError(f"{where}: expected names and persons, got no persons; {indexing.PACK_AGAIN}.")
    persons_N: Ints = table.column("person").to_numpy().astype(np.int64)
    return persons_N


def read_attributes(folder: str | os.PathLike[str]) -> Attributes | None:
    """Reads what was noted of the persons in a packed split: annotations, for weakly supervised labels only.

    Args:
      folder: <packed>/<split>, path or URL.

    Returns:
      Rows in the order of the images, or of the tracklets, -1 where nothing was noted; None where no attributes were
      packed.

    Raises:
      ValueError: the file is damaged, has other columns, or does not belong to the images.
    """
    found = _table_of_images(folder, indexing.ATTRIBUTES, "names and attributes")
    if found is None:
        return None
    where, table = found
    table = table.drop_columns("name")
    columns = table.columns
    if not columns or any(column.type != pa.int32() or column.null_count for column in columns):
        raise ValueError(
            f"{where}: expected whole columns of int32 beside the names, got others; {indexing.PACK_AGAIN}."
        )
    try:
        return Attributes(tuple(table.column_names), np.stack([column.to_numpy() for column in columns], axis=1))
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).rstrip('.')}; {indexing.PACK_AGAIN}.") from error


def _table_of_images(folder: str | os.PathLike[str], file: str, expected: str) -> tuple[str, pa.Table] | None:
    """A table with a row a sample in the order of their list, and where it lies; None where there is no such file."""
    place = open_folder(folder, None)
    data = place.read(file)
    if data is None:
        return None
    where = f"{place.shown}/{file}"
    split = place.read(indexing.SPLIT)
    shards = indexing.parse_split(split, folder=place.shown)
    if indexing.has_tracklets(split):
        names = indexing.parse_tracklets(place.read(indexing.TRACKLETS), shards, folder=place.shown).names
    else:
        names = indexing.parse_index(place.read(indexing.INDEX), shards, folder=place.shown).names
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{where}: expected {expected}, got a damaged file ({error}); {indexing.PACK_AGAIN}."
        ) from error
    if table.column_names.count("name") != 1 or not table.column("name").equals(names):
        raise ValueError(f"{where}: expected the {len(names)} names of the index, got others; {indexing.PACK_AGAIN}.")
    return where, table
