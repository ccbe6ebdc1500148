"""Running statistics of new necks, taken from the training images before the first labelling.

A neck that no start weights have begins with mean 0 and variance 1. Features of strangers then point in nearly the
same direction, and the first clusters, centroids and classifiers come from them. No label is read, no weight changes.

N = images, D = width of a neck.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from reidray.arrays import Array
from reidray.features import GroupBatchNorm1d
from reidray.training.context import Context, Meter
from reidray.training.extraction import extract_shards

_GRID = 2.0**24
"""Numbers are added up in multiples of 1 / _GRID, as integers: in any order and on any number of workers the same."""


def necks_to_calibrate(model: nn.Module, which: str, missing: Sequence[str]) -> list[list[str]]:
    """Names of one-dimensional batch norms, in groups to calibrate one after the other: embedding layers stand before
    necks, which meet what those make.

    Args:
      which: "all", "none", or "new": those whose running mean is among `missing`.
      missing: names of tensors that start weights did not have.
    """
    names = [name for name, layer in model.named_modules() if isinstance(layer, GroupBatchNorm1d)]
    if which == "new":
        names = [name for name in names if f"{name}.running_mean" in missing]
    elif which == "none":
        names = []
    before = [name for name in names if name.startswith("embeddings.")]
    return [group for group in (before, [name for name in names if name not in before]) if group]


def calibrate(context: Context, model: nn.Module, names: Sequence[str]) -> None:
    """Running mean and variance of these layers become those of what they meet in all training images.

    The network runs in evaluation mode, as in extraction. All ranks call.
    """
    layers = {name: cast(nn.BatchNorm1d, model.get_submodule(name)) for name in names}
    images, train = context.split("train"), context.settings.train
    meter = Meter(context, "calibrate", images.source.count, images.unit, None)
    met: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: met.update({name: given[0].detach()}))
        for name, layer in layers.items()
    ]
    sums = {name: np.zeros((2, layer.num_features), np.int64) for name, layer in layers.items()}
    try:
        for shard in extract_shards(
            model,
            images,
            context.own_shards("train"),
            batch=train.extract_batch,
            device=context.device,
            precision=train.precision,
            keep=lambda _: {name: rows.float() for name, rows in met.items()},
            progress=meter.add,
            spans=context.spans,
        ):
            for name, rows_ND in shard.arrays.items():
                sums[name] += _sums(rows_ND)
    finally:
        for hook in hooks:
            hook.remove()
    with context.spans("workers"):
        everyone = context.ranks.gather(sums)
    for name, layer in layers.items():
        mean_D, variance_D = statistics(np.sum([own[name] for own in everyone], axis=0), images.source.count)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(torch.from_numpy(mean_D))
        layer.running_var.copy_(torch.from_numpy(variance_D))
    meter.finish()


def statistics(sums_2D: Array, count: int) -> tuple[Array, Array]:
    """Mean and unbiased variance [D] from the sums of numbers and of their squares."""
    total_D, squares_D = sums_2D.astype(np.float64) / _GRID
    variance_D = (squares_D - total_D**2 / count) / max(count - 1, 1)
    return (total_D / count).astype(np.float32), np.maximum(variance_D, 0.0).astype(np.float32)


def _sums(rows_ND: Array) -> Array:
    """int64 [2, D]: sums of the numbers and of their squares, in multiples of 1 / _GRID."""
    rows_ND = rows_ND.astype(np.float64)
    numbers = np.stack([rows_ND, rows_ND**2])
    summed: Array = np.rint(numbers * _GRID).astype(np.int64).sum(axis=1)
    return summed
