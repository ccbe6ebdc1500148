"""The global batches of an epoch, and the part of them that a worker forwards.

N = samples (images or tracklets), B = global batch, T = images taken of a sample, G = BN groups in the batch.

A global batch is always the same list of BN groups, whatever the number of workers; worker r of W forwards a
contiguous share of them. Everything random is keyed by (train.seed, epoch, step) and the place in the global batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from reidray.arrays import Array, Ints
from reidray.config import Settings
from reidray.data import augment
from reidray.features.grid import CellGrid
from reidray.methods.method import Method
from reidray.methods.step import Moved, Targets
from reidray.spans import OFF, Spans
from reidray.training.images import Samples, staged
from reidray.training.prefetch import prefetch

_UPDATE_STREAM = 3  # 1 and 2 are the streams of sampling and augmentation


def shares(num_groups: int, size: int) -> list[range]:
    """The groups of each rank: contiguous, as even as can be, rank 0 first."""
    bounds = [round(rank * num_groups / size) for rank in range(size + 1)]
    return [range(start, stop) for start, stop in pairwise(bounds)]


@dataclass(frozen=True)
class Step:
    """One global batch as all ranks know it.

    targets: of the samples in global order. uniforms_B: a random number a sample. images_BT: the images taken of each;
    augmentation: a row for each of those.
    """

    number: int
    targets: Targets
    uniforms_B: Tensor
    images_BT: Ints
    augmentation: augment.Augmentation


@dataclass(frozen=True)
class Group:
    """One BN group, ready to forward.

    pixels: augmented, uint8 [B, H, W, 3] or of tracklets [B, T, H, W, 3]. targets: what they are trained towards.
    """

    pixels: Tensor
    targets: Targets


class EpochBatches:
    """The steps of an epoch and this worker's groups of each.

    Args:
      settings: the run's.
      method: says what the targets of a batch are.
      images: the training split.
      batches: indices of the images of every batch, int64 [steps, B].
      labels_N, cameras_N, tables: of all images.
      maps: rows of `map_indices` (ascending), by name.
      grid: of the network's map.
      epoch: the epoch.
      groups: this worker's groups.
      device: where they will be forwarded.
      first: step to begin with.
      spans: of this worker; the making of a step is a span "prepare".
    """

    def __init__(
        self,
        settings: Settings,
        method: Method,
        images: Samples,
        *,
        batches: Ints,
        labels_N: Ints,
        cameras_N: Array,
        tables: Mapping[str, Array],
        map_indices: Ints,
        maps: Mapping[str, Array],
        grid: CellGrid,
        epoch: int,
        groups: range,
        device: torch.device,
        first: int = 0,
        spans: Spans = OFF,
    ) -> None:
        self._settings = settings
        self._method = method
        self._images = images
        self._batches = batches
        self._labels_N = labels_N
        self._cameras_N = cameras_N
        self._tables = tables
        self._map_indices = map_indices
        self._maps = maps
        self._grid = grid
        self._epoch = epoch
        self._groups = groups
        self._device = device
        self._first = first
        self._spans = spans

    def __len__(self) -> int:
        """Steps of the epoch, those included that were done before `first`."""
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Step, list[Group]]]:
        """Steps in order; the images of the next ones are read, decoded and augmented while this one trains."""
        data = self._settings.data
        left = len(self._batches) - self._first
        return prefetch(
            lambda number: self._prepare(self._first + number),
            left,
            depth=data.batches_ahead,
            threads=data.loader_threads,
        )

    def _prepare(self, number: int) -> tuple[Step, list[Group]]:
        with self._spans("prepare", number):
            step = self._step(number)
            return step, [self._group(step, group) for group in self._groups]

    def _step(self, number: int) -> Step:
        settings, data = self._settings, self._settings.data
        indices_B = self._batches[number]
        key = np.random.SeedSequence([_UPDATE_STREAM, settings.train.seed, self._epoch, number])
        uniforms_B = np.random.Generator(np.random.Philox(key)).random(len(indices_B), dtype=np.float32)
        targets = Targets(
            torch.from_numpy(indices_B),
            torch.from_numpy(self._labels_N[indices_B]),
            torch.from_numpy(self._cameras_N[indices_B]),
            {name: torch.from_numpy(rows[indices_B]) for name, rows in self._tables.items()},
        )
        images_BT = self._images.chosen(indices_B, seed=settings.train.seed, epoch=self._epoch, step=number)
        return Step(
            number=number,
            targets=targets.with_tables(self._method.targets(targets)),
            uniforms_B=torch.from_numpy(uniforms_B),
            images_BT=images_BT,
            augmentation=augment.draw(
                augment.AugmentSettings(**settings.augment.model_dump()),
                seed=settings.train.seed,
                epoch=self._epoch,
                step=number,
                batch_size=images_BT.size,
                height=data.height,
                width=data.width,
            ),
        )

    def _group(self, step: Step, group: int) -> Group:
        size = self._settings.model.bn_group_size
        own, taken = slice(group * size, (group + 1) * size), step.images_BT.shape[1]
        drawn = step.augmentation.rows(slice(own.start * taken, own.stop * taken))
        targets = step.targets.rows(own)
        pixels = self._images.crops(step.images_BT[own], drawn, pad=self._settings.augment.pad)
        return Group(
            pixels=staged(pixels, self._device),
            targets=targets.with_tables(self._moved_maps(step.images_BT[own].reshape(-1), drawn)).staged(self._device),
        )

    def _moved_maps(self, images_B: Ints, drawn: augment.Augmentation) -> dict[str, Tensor]:
        """The method's maps of these images, moved as the images were."""
        if not self._maps:
            return {}
        places_B = np.searchsorted(self._map_indices, images_B)
        moved = Moved(
            grid=self._grid,
            image_size=(self._settings.data.height, self._settings.data.width),
            flips_B=torch.from_numpy(drawn.flips_B),
            dy_B=torch.from_numpy(drawn.dy_B),
            dx_B=torch.from_numpy(drawn.dx_B),
            boxes_B4=torch.from_numpy(drawn.boxes_B4),
            pad=self._settings.augment.pad,
        )
        maps = {name: torch.from_numpy(rows[places_B]) for name, rows in self._maps.items()}
        return self._method.moved_maps(maps, moved)
