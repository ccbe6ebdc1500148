"""Statistics of batch norms, taken anew from training images as they are.

While a network trains, each batch norm keeps running statistics of augmented crops: flipped, shifted, with a part
erased. Extraction and evaluation then show it whole images, whose statistics are others. Here the layers get those of
whole images: in training mode, so that each layer meets what the layers before it then give, over BN groups, as in a
step. For another domain than that of the start weights this is AdaBN (Y. Li et al., 2016, arXiv:1603.04779); as a mean
over groups, "precise BN" (Y. Wu, J. Johnson, 2021, arXiv:2105.07576, Sec. 3). No label is read, no weight changes.

G = BN groups, M = statistics of a group.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reidray.arrays import Ints
from reidray.features import Network, set_statistics, statistics_size, take_statistics
from reidray.features.dropout import KeyedDropout
from reidray.training.batches import shares
from reidray.training.context import Context, Meter
from reidray.training.extraction import autocast
from reidray.training.images import as_input, staged
from reidray.training.prefetch import prefetch

_STREAM = 0x636C6561  # keeps these random numbers apart from those of other rooms with the same seed


@torch.no_grad()
def measure_statistics(context: Context, model: Network, *, samples: int, epoch: int | None) -> None:
    """Each batch norm gets the mean over BN groups of batch mean and batch variance. All ranks call.

    Args:
      context: of the run; the groups are shared out among its ranks.
      model: changed in place.
      samples: so many images or tracklets of the training split, or all of them where it has fewer; whole BN groups,
        drawn once a run.
      epoch: that progress is told for.
    """
    settings, ranks = context.settings, context.ranks
    split, seed = context.split("train"), settings.train.seed
    groups_GB = chosen_samples(split.source.count, samples, group=settings.model.bn_group_size, seed=seed)
    counts = [len(share) for share in shares(len(groups_GB), ranks.size)]
    first = sum(counts[: ranks.rank])
    own = range(first, first + counts[ranks.rank])
    meter = Meter(context, "statistics", groups_GB.size, split.unit, epoch)

    def read(number: int) -> Tensor:
        images_BT = split.chosen(groups_GB[own[number]], seed=seed, epoch=0, step=own[number])
        pixels = split.images.rows(images_BT.reshape(-1))
        pixels = pixels if split.unit == "images" else pixels.reshape(*images_BT.shape, *pixels.shape[1:])
        return staged(pixels, context.device)

    model.train()
    for layer in model.modules():
        if isinstance(layer, KeyedDropout):
            layer.eval()  # extraction drops nothing, and whole images are to meet what it does
    own_GM = torch.zeros(len(own), statistics_size(model), device=context.device)
    for number, pixels in enumerate(prefetch(read, len(own), depth=1, threads=1)):
        with autocast(context.device, settings.train.precision):
            model(as_input(pixels, context.device))
        own_GM[number] = take_statistics(model)
        meter.add(len(pixels))
    meter.finish()
    with context.spans("workers"):
        everyone_GM = ranks.gather_rows(own_GM, counts)
    set_statistics(model, everyone_GM.double().mean(0).float())
    model.eval()


def chosen_samples(count: int, wanted: int, *, group: int, seed: int) -> Ints:
    """int64 [G, B]: samples of each BN group, none twice where there are enough of them for one group.

    Args:
      count: samples that there are.
      wanted: how many are to be taken; a whole number of groups is.
      group: B.
      seed: of the choice.
    """
    order = np.random.default_rng((_STREAM, seed)).permutation(count)
    if count < group:
        return np.resize(order, (1, group))
    groups = max(1, min(count, wanted) // group)
    return order[: groups * group].reshape(groups, group)


def clean_statistics(context: Context, model: Network, epoch: int | None) -> None:
    """What train.clean_statistics asks for, nothing where it is 0."""
    samples = context.settings.train.clean_statistics
    if samples:
        with context.spans("statistics"):
            measure_statistics(context, model, samples=samples, epoch=epoch)
