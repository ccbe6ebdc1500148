"""Features of a part of the images, read from the memory bank by those who never hold all of them.

N = images, S = vectors of a feature, D = their width, R = images of a block, U = pairs of images.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from reidray import dispatch
from reidray.arrays import Floats, Ints
from reidray.bank import MemoryBank
from reidray.methods.label_search import Space
from reidray.neighbours import Block, similarities_of_pairs, unit_rows

_ASK_SECONDS = 0.2


class Moment(NamedTuple):
    """Whose features: those of an epoch, as a group of workers extracted them."""

    version: int
    generation: int


@dataclass(frozen=True)
class Stretch:
    """Images of shards that follow each other: `count` of them from index `first` on."""

    first: int
    count: int
    shards: range


def stretches(layout: Sequence[tuple[int, int]], size: int) -> list[Stretch]:
    """All images in stretches of whole shards, of at least `size` images each but the last.

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


def similarities_by(bank: MemoryBank, moment: Moment, space: Space, at_once: int) -> Callable[[Ints, Ints], Floats]:
    """`similarity` of pairs of images whose rows are taken from the bank, `at_once` pairs at a time."""
    table = f"train/{space.feature}"

    def of_some(firsts_U: Ints, seconds_U: Ints) -> Floats:
        images, places = np.unique(np.concatenate([firsts_U, seconds_U]), return_inverse=True)
        if len(space.vectors) == 1:
            features = bank.take(table, moment.version, images, space.vectors[0])
        else:
            features = in_space(bank.take(table, moment.version, images), space.vectors)
        rows = unit_rows(features, name="features")
        similarities_U: Floats = similarities_of_pairs(rows, places[: len(firsts_U)], places[len(firsts_U) :])
        return similarities_U

    def of_all(firsts_U: Ints, seconds_U: Ints) -> Floats:
        pieces = range(0, len(firsts_U), at_once)
        return np.concatenate(
            [of_some(firsts_U[start : start + at_once], seconds_U[start : start + at_once]) for start in pieces]
        )

    return of_all


class Arrivals:
    """Whether features are in the bank already; the bank is asked about what is missing at most five times a second.

    Args:
      table: of the features that come last of a shard's.
    """

    def __init__(self, bank: MemoryBank, table: str, version: int) -> None:
        self._bank, self._table, self._version = bank, table, version
        self._there: set[int] = set()
        self._asked = -math.inf

    def of(self, stretch: Stretch) -> bool:
        """Whether those of all shards of a stretch are."""
        if not self._there.issuperset(stretch.shards) and time.monotonic() - self._asked > _ASK_SECONDS:
            self._there = self._bank.blocks(self._table, self._version)
            self._asked = time.monotonic()
        return self._there.issuperset(stretch.shards)


class ReadyBlocks:
    """Blocks of features, ready to be searched, of which the last ones are kept.

    Args:
      bank: where features are.
      device: where blocks are wanted.
      most_bytes: of features that are kept besides the block that was asked for last.
    """

    def __init__(self, bank: MemoryBank, device: torch.device, most_bytes: float) -> None:
        self._bank = bank
        self._device = device
        self._most_bytes = most_bytes
        self._whose: tuple[Moment, Space] | None = None
        self._kept: OrderedDict[int, tuple[Block, int]] = OrderedDict()

    def block(self, moment: Moment, space: Space, stretch: Stretch) -> Block:
        """The features of a stretch; of other moments and spaces nothing is kept."""
        if self._whose != (moment, space):
            self.forget()
            self._whose = (moment, space)
        if stretch.first in self._kept:
            self._kept.move_to_end(stretch.first)
            return self._kept[stretch.first][0]
        rows_RD = rows_of(self._bank, moment, space, stretch)
        block = dispatch.ready_block(dispatch.on(rows_RD, self._device), stretch.first)
        self._kept[stretch.first] = (block, rows_RD.nbytes)
        while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > self._most_bytes:
            self._kept.popitem(last=False)
        return block

    def forget(self) -> None:
        """Keeps nothing."""
        self._whose = None
        self._kept.clear()
