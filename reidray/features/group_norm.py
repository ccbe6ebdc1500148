"""Batch normalisation whose results do not depend on the number of workers.

Other trainers normalise each GPU's share of the batch and keep the running statistics of the first GPU, so results
change with the number of GPUs. Here the unit of work is the BN group, a fixed slice of the global batch. A forward pass
in training mode sees one group: each layer normalises by the statistics of that group and stores them, without
changing its running statistics. After the step the statistics of all groups are gathered in the order of the groups,
and every replica applies them one by one:

    running <- (1 - momentum) * running + momentum * statistic_g        for g = 0, 1, ..., G - 1

One worker that runs all groups itself computes the same. Names in the state dict stay PyTorch's.
"""

# G = BN groups of a step, T = statistics of a model: the batch mean, then the unbiased variance, layer by layer

from __future__ import annotations

from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class _GroupBatchNorm(_BatchNorm):
    """The common part of one and two dimensions; see the module's text."""

    _recorded: tuple[Tensor, Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        running_mean, running_var = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        if not self.training:
            return F.batch_norm(input, running_mean, running_var, self.weight, self.bias, False, 0.0, self.eps)
        assert self._recorded is None, (
            "a batch-norm layer ran twice in training mode before its statistics were taken: call take_statistics() "
            "after the forward pass of each BN group, and use no layer twice in one pass"
        )
        if input.numel() == self.num_features:
            raise ValueError(
                f"a BN group must give more than one value per channel; got an input of shape {tuple(input.shape)}: "
                f"raise model.bn_group_size"
            )
        # With momentum 1 the kernel writes this batch's own statistics into the scratch buffers.
        mean, var = torch.zeros_like(running_mean), torch.zeros_like(running_var)
        output = F.batch_norm(input, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        self._recorded = (mean, var)
        return output

    @property
    def recorded(self) -> bool:
        """Whether there are statistics to take."""
        return self._recorded is not None

    def take(self) -> tuple[Tensor, Tensor]:
        """Batch mean and unbiased variance of the last training-mode forward pass, once."""
        if self._recorded is None:
            raise RuntimeError(
                "a batch-norm layer has no statistics to take: it must run in training mode once before each "
                "take_statistics()"
            )
        recorded, self._recorded = self._recorded, None
        return recorded

    def train(self, mode: bool = True) -> Self:
        """As in PyTorch; statistics noted but never taken are forgotten, so a failed pass leaves nothing behind."""
        self._recorded = None
        super().train(mode)
        return self


class GroupBatchNorm1d(_GroupBatchNorm, nn.BatchNorm1d):
    """`nn.BatchNorm1d` that notes a training batch's statistics instead of folding them in."""


class GroupBatchNorm2d(_GroupBatchNorm, nn.BatchNorm2d):
    """`nn.BatchNorm2d` that notes a training batch's statistics instead of folding them in."""


def convert(module: nn.Module) -> nn.Module:
    """Replace every `nn.BatchNorm1d` and `nn.BatchNorm2d` by its group form, in place.

    Parameters, buffers (the same tensors) and the names in the state dict stay; layers already converted too.

    Args:
      module: a network, or a batch-norm layer itself.

    Returns:
      The network, or the layer that takes the given one's place.

    Raises:
      ValueError: a batch norm that cannot be converted (three-dimensional, synchronised, lazy, without running
        statistics or with a cumulative average).
    """
    if isinstance(module, _GroupBatchNorm):
        return module
    if isinstance(module, _BatchNorm):
        kinds: dict[type[nn.Module], type[GroupBatchNorm1d] | type[GroupBatchNorm2d]] = {
            nn.BatchNorm1d: GroupBatchNorm1d,
            nn.BatchNorm2d: GroupBatchNorm2d,
        }
        if type(module) not in kinds or module.running_mean is None or module.momentum is None:
            raise ValueError(
                f"batch normalisation must be 1- or 2-dimensional with running statistics and a momentum to be taken "
                f"over BN groups; got {module!r}"
            )
        group = kinds[type(module)](module.num_features, module.eps, module.momentum, module.affine, True)
        group._parameters.update(module._parameters)
        group._buffers.update(module._buffers)
        return group.train(module.training)
    for name, child in module.named_children():
        module.add_module(name, convert(child))
    return module


def _layers(model: nn.Module) -> list[_GroupBatchNorm]:
    return [layer for layer in model.modules() if isinstance(layer, _GroupBatchNorm)]


def statistics_size(model: nn.Module) -> int:
    """T: how many numbers `take_statistics` returns, twice the channels of all group-norm layers."""
    return sum(2 * layer.num_features for layer in _layers(model))


def take_statistics(model: nn.Module) -> Tensor:
    """The batch statistics noted by the last training-mode forward pass; each can be taken once.

    Args:
      model: a converted network that has just run one BN group in training mode.

    Returns:
      statistics_T, float, on the model's device: mean and unbiased variance of each layer, in the order of the modules.

    Raises:
      RuntimeError: a layer noted nothing (evaluation mode, unused, or taken before).
    """
    taken = [statistic for layer in _layers(model) for statistic in layer.take()]
    return torch.cat(taken) if taken else torch.zeros(0)


def recorded_layers(model: nn.Module) -> list[nn.Module]:
    """The group-norm layers that noted statistics which were not taken yet."""
    return [layer for layer in _layers(model) if layer.recorded]


@torch.no_grad()
def set_statistics(model: nn.Module, statistics_T: Tensor) -> None:
    """Put these in the place of the running statistics.

    Args:
      model: a converted network, changed in place.
      statistics_T: in the order of `take_statistics`.
    """
    assert statistics_T.shape == (statistics_size(model),), (statistics_T.shape, statistics_size(model))
    buffers = [cast(Tensor, buffer) for layer in _layers(model) for buffer in (layer.running_mean, layer.running_var)]
    sizes = [buffer.numel() for buffer in buffers]
    for buffer, own in zip(buffers, torch.split(statistics_T, sizes), strict=True):
        buffer.copy_(own)


@torch.no_grad()
def apply_statistics(model: nn.Module, statistics_GT: Tensor) -> None:
    """Fold the statistics of all groups of a step into the running statistics, group after group.

    Replicas that start equal and are given equal statistics_GT stay equal bit for bit.

    Args:
      model: a converted network, changed in place.
      statistics_GT: the rows are the groups' `take_statistics`, in the order of the groups in the global batch.
    """
    layers = _layers(model)
    assert statistics_GT.shape[1:] == (statistics_size(model),), (statistics_GT.shape, statistics_size(model))
    if not layers:
        return
    buffers = [cast(Tensor, buffer) for layer in layers for buffer in (layer.running_mean, layer.running_var)]
    sizes = [buffer.numel() for buffer in buffers]
    running_T = torch.cat(buffers)
    momentum_T = torch.cat(
        [running_T.new_full((2 * layer.num_features,), cast(float, layer.momentum)) for layer in layers]
    )
    for statistics_T in statistics_GT.to(running_T):
        running_T = (1 - momentum_T) * running_T + momentum_T * statistics_T
    for buffer, updated in zip(buffers, torch.split(running_T, sizes), strict=True):
        buffer.copy_(updated)
    for layer in layers:
        cast(Tensor, layer.num_batches_tracked).add_(len(statistics_GT))
