"""Reading the features of some images from the memory bank, for labellers that never hold all features.

N = images, S = vectors of a feature, D = their width, R = images of a block, U = pairs of images.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
import torch

from reidray import dispatch
from reidray.arrays import Floats, Ints
from reidray.bank import MemoryBank
from reidray.methods.label_search import Space
from reidray.neighbours import Block, similarities_of_pairs, unit_rows

_ASK_SECONDS = 0.2
_MOST_BLOCKS = 128


class Moment(NamedTuple):
    """Which features: those that one group of workers (generation) extracted in one epoch (version)."""

    version: int
    generation: int


@dataclass(frozen=True)
class Stretch:
    """The images of consecutive shards: `count` images, beginning with index `first`."""

    first: int
    count: int
    shards: range


def stretches(layout: Sequence[tuple[int, int]], size: int) -> list[Stretch]:
    """All images, divided into stretches of whole shards; each has at least `size` images, except the last.

    layout: first index and number of images of each shard.
    """
    found: list[Stretch] = []
    begin, count = 0, 0
    for shard, (_, images) in enumerate(layout):
        count += images
        if count >= size or shard + 1 == len(layout):
            found.append(Stretch(layout[begin][0], count, range(begin, shard + 1)))
            begin, count = shard + 1, 0
    return found


def block_size(least: int, layout: Sequence[tuple[int, int]]) -> int:
    """Images of a block of labelling by blocks: run.search_block, and more where that would make over 128 blocks.

    Each block is read once for every other one, so that what is read grows with images times blocks.
    """
    return max(least, ceil(sum(count for _, count in layout) / _MOST_BLOCKS))


def in_space(features_NSD: Floats, vectors: tuple[int, ...]) -> Floats:
    """One vector of a feature as it is, or several side by side, of equal weight, at unit length: [N, D']."""
    if len(vectors) == 1:
        return np.ascontiguousarray(features_NSD[:, vectors[0]])
    joined_ND = features_NSD[:, list(vectors)].reshape(len(features_NSD), -1)
    return joined_ND / np.linalg.norm(joined_ND, axis=1, keepdims=True)


def rows_of(bank: MemoryBank, moment: Moment, space: Space, stretch: Stretch) -> Floats:
    """Features of a stretch in one space: [R, D']."""
    table = f"train/{space.feature}"
    if len(space.vectors) == 1:
        return bank.read(table, moment.version, space.vectors[0], stretch.shards)
    return in_space(bank.read(table, moment.version, None, stretch.shards), space.vectors)


def taken_in(bank: MemoryBank, moment: Moment, space: Space, images_U: Ints) -> Floats:
    """Features of some images in one space, in their order: [U, D']."""
    table = f"train/{space.feature}"
    if len(space.vectors) == 1:
        return bank.take(table, moment.version, images_U, space.vectors[0])
    return in_space(bank.take(table, moment.version, images_U), space.vectors)


def similarities_by(bank: MemoryBank, moment: Moment, space: Space, at_once: int) -> Callable[[Ints, Ints], Floats]:
    """`similarity` of pairs of images whose rows are taken from the bank, `at_once` pairs at a time."""

    def of_some(firsts_U: Ints, seconds_U: Ints) -> Floats:
        images, places = np.unique(np.concatenate([firsts_U, seconds_U]), return_inverse=True)
        rows = unit_rows(taken_in(bank, moment, space, images), name="features")
        similarities_U: Floats = similarities_of_pairs(rows, places[: len(firsts_U)], places[len(firsts_U) :])
        return similarities_U

    def of_all(firsts_U: Ints, seconds_U: Ints) -> Floats:
        pieces = range(0, len(firsts_U), at_once)
        return np.concatenate(
            [of_some(firsts_U[start : start + at_once], seconds_U[start : start + at_once]) for start in pieces]
        )

    return of_all


class Arrivals:
    """Knows which features have reached the bank. It asks the bank at most five times a second.

    Args:
      table: the table of a shard that is written last.
    """

    def __init__(self, bank: MemoryBank, table: str, version: int) -> None:
        self._bank, self._table, self._version = bank, table, version
        self._there: set[int] = set()
        self._asked = -math.inf

    def of(self, stretch: Stretch) -> bool:
        """Whether the features of all shards of a stretch are in the bank."""
        if not self._there.issuperset(stretch.shards) and time.monotonic() - self._asked > _ASK_SECONDS:
            self._there = self._bank.blocks(self._table, self._version)
            self._asked = time.monotonic()
        return self._there.issuperset(stretch.shards)


class ReadyBlocks:
    """Blocks of features, prepared for the search; a cache of the blocks that were used last.

    Args:
      bank: the memory bank.
      device: device on which blocks are prepared.
      most_bytes: size of the cache, beside the block that was asked for last.
    """

    def __init__(self, bank: MemoryBank, device: torch.device, most_bytes: float) -> None:
        self._bank = bank
        self._device = device
        self._most_bytes = most_bytes
        self._whose: tuple[Moment, Space] | None = None
        self._kept: OrderedDict[int, tuple[Block, int]] = OrderedDict()

    def block(self, moment: Moment, space: Space, stretch: Stretch) -> Block:
        """The prepared features of a stretch. The cache holds one moment and one space; another one empties it."""
        if self._whose != (moment, space):
            self.forget()
            self._whose = (moment, space)
        if stretch.first in self._kept:
            self._kept.move_to_end(stretch.first)
            return self._kept[stretch.first][0]
        rows_RD = rows_of(self._bank, moment, space, stretch)
        block = dispatch.ready_block(dispatch.on(rows_RD, self._device), stretch.first)
        self._kept[stretch.first] = (block, block.nbytes)
        while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > self._most_bytes:
            self._kept.popitem(last=False)
        return block

    def forget(self) -> None:
        """Empty the cache."""
        self._whose = None
        self._kept.clear()
