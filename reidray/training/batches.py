"""The global batches of an epoch, and the part of them that a worker forwards.

B = global batch, G = BN groups in it, L = parts, H, W = cells of the map.

A global batch is always the same list of BN groups, whatever the number of workers; worker r of W forwards a
contiguous share of them. Everything random is keyed by (train.seed, epoch, step) and the place in the global batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from reidray.arrays import Array, Bytes, Floats, Ints
from reidray.config import Settings
from reidray.data import augment
from reidray.data.sampling import epoch_batches
from reidray.features.grid import CellGrid, visible_cells, warp_masks
from reidray.methods import Method, Targets
from reidray.spans import OFF, Spans
from reidray.training.images import SizedImages
from reidray.training.prefetch import prefetch

_UPDATE_STREAM = 3  # 1 and 2 are the streams of sampling and augmentation


def shares(num_groups: int, size: int) -> list[range]:
    """The groups of each rank: contiguous, as even as can be, rank 0 first."""
    bounds = [round(rank * num_groups / size) for rank in range(size + 1)]
    return [range(start, stop) for start, stop in pairwise(bounds)]


@dataclass(frozen=True)
class Step:
    """One global batch as all ranks know it.

    indices_B, labels_B, alphas_BL: of the images in global order; weights_BS: see `Method.contrast_weights`;
    uniforms_B: a random number an image; augmentation: a row an image.
    """

    number: int
    indices_B: Ints
    labels_B: Tensor
    alphas_BL: Tensor
    weights_BS: Tensor
    uniforms_B: Tensor
    augmentation: augment.Augmentation


@dataclass(frozen=True)
class Group:
    """One BN group, ready to forward: augmented pixels and what they are trained towards."""

    pixels_BHW3: Bytes
    targets: Targets


class EpochBatches:
    """The steps of an epoch and this worker's groups of each.

    Args:
      settings: the run's.
      method: weighs the images of a batch.
      images: the training split.
      cameras_N, labels_N, alphas_NL: of all images.
      masks_NLHW: soft pseudo masks of `mask_indices` (ascending), or None.
      grid: of the network's map.
      epoch: the epoch.
      groups: this worker's groups.
      first: step to begin with.
      spans: of this worker; the making of a step is a span "prepare".
    """

    def __init__(
        self,
        settings: Settings,
        method: Method,
        images: SizedImages,
        *,
        batches: Ints,
        labels_N: Ints,
        alphas_NL: Floats,
        mask_indices: Ints | None,
        masks_NLHW: Array | None,
        grid: CellGrid,
        epoch: int,
        groups: range,
        first: int = 0,
        spans: Spans = OFF,
    ) -> None:
        self._settings = settings
        self._method = method
        self._images = images
        self._batches = batches
        self._labels_N = labels_N
        self._alphas_NL = alphas_NL
        self._mask_indices = mask_indices
        self._masks_NLHW = masks_NLHW
        self._grid = grid
        self._epoch = epoch
        self._groups = groups
        self._first = first
        self._spans = spans

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
        labels_B = torch.from_numpy(self._labels_N[indices_B])
        alphas_BL = torch.from_numpy(self._alphas_NL[indices_B])
        key = np.random.SeedSequence([_UPDATE_STREAM, settings.train.seed, self._epoch, number])
        uniforms_B = np.random.Generator(np.random.Philox(key)).random(len(indices_B), dtype=np.float32)
        return Step(
            number=number,
            indices_B=indices_B,
            labels_B=labels_B,
            alphas_BL=alphas_BL,
            weights_BS=self._method.contrast_weights(labels_B, alphas_BL),
            uniforms_B=torch.from_numpy(uniforms_B),
            augmentation=augment.draw(
                augment.AugmentSettings(**settings.augment.model_dump()),
                seed=settings.train.seed,
                epoch=self._epoch,
                step=number,
                batch_size=len(indices_B),
                height=data.height,
                width=data.width,
            ),
        )

    def _group(self, step: Step, group: int) -> Group:
        size = self._settings.model.bn_group_size
        own = slice(group * size, (group + 1) * size)
        drawn = step.augmentation.rows(own)
        masks, visible = self._masks(step.indices_B[own], drawn)
        return Group(
            pixels_BHW3=self._images.crops(step.indices_B[own], drawn, pad=self._settings.augment.pad),
            targets=Targets(step.labels_B[own], step.alphas_BL[own], step.weights_BS[own], masks, visible),
        )

    def _masks(self, indices_B: Ints, drawn: augment.Augmentation) -> tuple[Tensor | None, Tensor | None]:
        """The pseudo masks moved as the images were, and the cells that erasing left."""
        if self._masks_NLHW is None or self._mask_indices is None:
            return None, None
        masks = torch.from_numpy(self._masks_NLHW[np.searchsorted(self._mask_indices, indices_B)]).float()
        moved = warp_masks(
            masks,
            self._grid,
            image_size=(self._settings.data.height, self._settings.data.width),
            flips_B=torch.from_numpy(drawn.flips_B),
            dy_B=torch.from_numpy(drawn.dy_B),
            dx_B=torch.from_numpy(drawn.dx_B),
            pad=self._settings.augment.pad,
        )
        boxes = torch.from_numpy(drawn.boxes_B4)
        return moved, visible_cells(self._grid, (masks.shape[2], masks.shape[3]), boxes)


def plan_batches(settings: Settings, labels_N: Ints, cameras_N: Array, epoch: int) -> Ints:
    """Indices of the images of every global batch of an epoch: int64 [steps, B], groups one after another."""
    method = settings.method
    return epoch_batches(
        labels_N,
        cameras_N,
        num_clusters=method.clusters_per_batch,
        num_instances=method.images_per_cluster,
        steps=settings.train.steps,
        seed=settings.train.seed,
        epoch=epoch,
        prefer_other_cameras=method.prefer_other_cameras and bool((cameras_N >= 0).any()),
    )
