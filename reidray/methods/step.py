"""What a method is given while it trains, and what it gives back: plain values.

N = images, B = images of a batch or of one BN group of it, U = clusters in the batch, S = vectors of a feature,
D = their width, T = vectors asked for, R = rows of a memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from reidray.arrays import Array, Ints
from reidray.features.grid import CellGrid

Outputs = Any
"""What a network says of a batch: a NamedTuple of tensors with B as their first axis, or None."""

Moments = dict[int, dict[str, Tensor]]
"""An optimiser's state of each parameter by its number."""


class Memory(Protocol):
    """A memory as a method sees it during a step, wherever its rows lie (`reidray.training.replica`).

    Where workers share the rows out, a verb may need all of them: a method therefore calls the same verbs in the same
    order for every group, whatever is in it.
    """

    def contrast(self, features_BSD: Tensor, labels_B: Tensor, vectors: Sequence[int], *, temperature: float) -> Tensor:
        """`reidray.losses.centroid_contrast` of some vectors with those of all rows: [B, T].

        Args:
          features_BSD: of all images of the group, unit length.
          labels_B: their rows.
          vectors: numbers of vectors, at least one.
          temperature: tau > 0.
        """
        ...

    def rows(self, places: Tensor) -> Tensor:
        """The rows [..., S, D] of some clusters of the global batch."""
        ...


class WholeMemory(Protocol):
    """A memory as an epoch begins, for layers that start from it."""

    def all_rows(self) -> Tensor:
        """All rows [R, S, D].

        Raises:
          ValueError: no worker holds them all.
        """
        ...


@dataclass(frozen=True)
class Targets:
    """What is known of the images of a batch, or of a BN group of it.

    indices_B: of the images in the training split. labels_B: their clusters. cameras_B: -1 where unknown.
    tables: by name, each with B as its first axis: the method's `tables` of these images, what `Method.targets` made of
    the whole batch, and, in a group, what `Method.moved_maps` made of the method's `maps`.
    """

    indices_B: Tensor
    labels_B: Tensor
    cameras_B: Tensor
    tables: Mapping[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.tables[name]

    def rows(self, own: slice) -> Targets:
        """Those of some images."""
        tables = {name: rows[own] for name, rows in self.tables.items()}
        return Targets(self.indices_B[own], self.labels_B[own], self.cameras_B[own], tables)

    def with_tables(self, tables: Mapping[str, Tensor]) -> Targets:
        """The same with more tables."""
        return Targets(self.indices_B, self.labels_B, self.cameras_B, {**self.tables, **tables})

    def to(self, device: torch.device) -> Targets:
        """On a device."""
        return self._each(lambda rows: rows.to(device, non_blocking=True))

    def staged(self, device: torch.device) -> Targets:
        """Where the device can fetch them beside its work: for a GPU, in pinned memory."""
        return self._each(Tensor.pin_memory) if device.type == "cuda" else self

    def _each(self, change: Callable[[Tensor], Tensor]) -> Targets:
        tables = {name: change(rows) for name, rows in self.tables.items()}
        return Targets(change(self.indices_B), change(self.labels_B), change(self.cameras_B), tables)


@dataclass(frozen=True)
class Moved:
    """How the images of a group were augmented: see `reidray.features.grid.warp_masks`.

    grid: where the cells of the network's map lie. image_size: pixels (height, width). boxes_B4: what was erased.
    """

    grid: CellGrid
    image_size: tuple[int, int]
    flips_B: Tensor
    dy_B: Tensor
    dx_B: Tensor
    boxes_B4: Tensor
    pad: int


@dataclass(frozen=True)
class Average:
    """A table that the memory bank keeps as a moving average over epochs of a table of class numbers.

    of: the table that labellers bring, integers in [0, num_classes). momentum: share of the average before.
    """

    of: str
    num_classes: int
    momentum: float


@dataclass(frozen=True)
class Beginning:
    """What heads begin with.

    memories: as labelling left them. labels_N, cameras_N: of all images. moments: those of the heads before, where
    `Method.keeps_moments` is set and there were any.
    """

    memories: Mapping[str, WholeMemory]
    labels_N: Ints
    cameras_N: Array
    moments: Moments


@dataclass(frozen=True)
class BatchLosses:
    """What `Method.batch_losses` gives.

    terms: by name, each [B]. rows: by name, B first: what `Method.moved_rows` is to see beside what was gathered, such
    as features that the modules made; their gradients are not kept. figures: by name, each [B]: what is only reported,
    as its mean over the epoch.
    """

    terms: Mapping[str, Tensor]
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    figures: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochPlan:
    """What an epoch does before it trains.

    relabel: extract all images and label them anew; without it the labels and memories of the epoch before go on.
    new_optimiser: begin with a fresh optimiser. rate: factor on the learning rates that the optimiser began with.
    trains: without it the epoch labels and ends, which judges the network of the one before (`selects_network`).
    """

    relabel: bool = True
    new_optimiser: bool = False
    rate: float = 1.0
    trains: bool = True
