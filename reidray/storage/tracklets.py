"""Packed tracklets: a table of them above the images of a split.

N = tracklets
"""

from __future__ import annotations

import os

import numpy as np

from reidray.storage import index as indexing
from reidray.storage.shards import ShardedImages


class ShardedTracklets:
    """The tracklets of one packed split; their frames are images of it.

    What is numbered from 0 to N - 1 here is a tracklet; a frame is an image of `frames`.

    Attributes:
      frames: all images.
      firsts_N, counts_N: which of them are a tracklet's: from the first on, so many.
      count: N.
      cameras_N: int32, 0-based, -1 unknown.
      num_shards: number of tars; none holds a part of a tracklet.
      digest: of all tars.
    """

    def __init__(self, images: ShardedImages, table: indexing.Tracklets) -> None:
        self.frames = images
        self.firsts_N, self.counts_N = table.firsts_N, table.frames_N
        self.count, self.cameras_N = len(table.firsts_N), table.cameras_N
        self.num_shards, self.digest = images.num_shards, images.digest
        self._names = table.names

    @property
    def names(self) -> list[str]:
        """The name of every tracklet, in order; a new list at each call."""
        names: list[str] = self._names.to_pylist()
        return names

    def name(self, index: int) -> str:
        """The name of one tracklet."""
        name: str = self._names[index].as_py()
        return name

    def shard_range(self, shard: int) -> tuple[int, int]:
        """The number of a shard's first tracklet, and how many tracklets it holds."""
        first, count = self.frames.shard_range(shard)
        start, end = np.searchsorted(self.firsts_N, [first, first + count])
        return int(start), int(end - start)


def open_samples(
    folder: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None
) -> ShardedImages | ShardedTracklets:
    """A packed split: of tracklets where it has a list of them, else of images.

    Args:
      folder: <packed>/<split>, a path or an fsspec URL.
      cache_dir: where the tars behind a URL are copied to, once per node.

    Raises:
      ValueError: see ShardedImages; the list of tracklets is damaged or does not belong to the tars.
    """
    images = ShardedImages(folder, cache_dir=cache_dir)
    table = images.tracklets()
    return images if table is None else ShardedTracklets(images, table)
