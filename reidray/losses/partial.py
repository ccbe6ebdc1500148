"""Contrast with centroids that are spread over workers: what each holder of rows computes, and how it is combined.

B = images, R = rows that one holder has, P = holders, D = feature width.

For one image with feature f, own cluster y and z_j = f.c_j / tau, over the rows j of a set J let

    m_J = max z_j,    s_J = sum exp(z_j - m_J),    p_J = sum exp(z_j - m_J) c_j,    o_J = z_y if y is in J, else 0.

Two disjoint sets join, with m = max(m_J, m_K), to

    s = exp(m_J - m) s_J + exp(m_K - m) s_K,    p likewise,    o = o_J + o_K,

which is what the same sums over the union of J and K are. So it does not matter how rows are divided, and over all
clusters

    loss = log sum_j exp(z_j) - z_y = m + log s - o
    d loss / d f = (sum_j softmax(z)_j c_j - c_y) / tau = (p / s - c_y) / tau,

since centroids have no gradient. So the gradient of a loss is one vector of the feature's width, known as soon as the
loss is. It is computed in the forward pass and kept (`with_gradient`). The backward pass needs no communication: the
worker of the image multiplies the kept gradient by the gradient of the loss. That is the chain rule, without
approximation; only the order of float sums differs from `centroid_contrast`. Logits exist for one block of rows at a
time and are not kept for the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK_ROWS = 16384  # logits of so many rows at a time


@dataclass(frozen=True)
class Partial:
    """m, s, o and p of some rows, for each image; without any rows m is the least number there is, the others are 0."""

    largest_B: Tensor
    sums_B: Tensor
    own_B: Tensor
    pulls_BD: Tensor

    def packed(self) -> Tensor:
        """All of it in one tensor [B, 3 + D], to be sent."""
        return torch.cat([torch.stack([self.largest_B, self.sums_B, self.own_B], 1), self.pulls_BD], 1)


def unpacked(packed: Tensor) -> Partial:
    """The inverse of `Partial.packed`; axes before the last are kept."""
    return Partial(packed[..., 0], packed[..., 1], packed[..., 2], packed[..., 3:])


def partial_contrast(features_BD: Tensor, places_B: Tensor, rows_RD: Tensor, *, temperature: float) -> Partial:
    """m, s, o and p of the rows given.

    Args:
      features_BD: unit length; no gradient flows into them here.
      places_B: which row is that of the image's own cluster, in [0, R); -1 where it is not among them.
      rows_RD: unit length; R may be 0.
      temperature: tau > 0.
    """
    features_BD = features_BD.detach()
    partial = Partial(
        features_BD.new_full((len(features_BD),), torch.finfo(features_BD.dtype).min),
        features_BD.new_zeros(len(features_BD)),
        features_BD.new_zeros(len(features_BD)),
        torch.zeros_like(features_BD),
    )
    for first in range(0, len(rows_RD), _BLOCK_ROWS):
        block_RD = rows_RD[first : first + _BLOCK_ROWS]
        partial = _joined(partial, _of_block(features_BD, places_B - first, block_RD, temperature))
    return partial


def joined_contrast(partials: list[Partial], own_BD: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """The losses of `centroid_contrast` and their gradients, from the partials of all rows.

    Args:
      partials: of every holder, each cluster in one of them.
      own_BD: c_y of each image.

    Returns: losses [B], and of each loss the gradient with respect to its own feature [B, D].
    """
    whole = reduce(_joined, partials)
    losses_B = whole.largest_B + whole.sums_B.log() - whole.own_B
    return losses_B, (whole.pulls_BD / whole.sums_B.unsqueeze(1) - own_BD) / temperature


def with_gradient(features: Tensor, losses: Tensor, gradients: Tensor) -> Tensor:
    """The losses, with a backward pass that hands `gradients`, times what arrives at each loss, to `features`.

    Args:
      features, gradients: [..., D]; `gradients` are those of each loss with respect to its own feature.
      losses: [...].
    """
    result: Tensor = _WithGradient.apply(features, losses, gradients)
    return result


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, losses: Tensor, gradients: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(gradients)
        return losses.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return arriving.unsqueeze(-1) * gradients, None, None


def _of_block(features_BD: Tensor, places_B: Tensor, rows_RD: Tensor, temperature: float) -> Partial:
    logits_BR = (features_BD @ rows_RD.T).to(features_BD.dtype) / temperature
    largest_B = logits_BR.amax(1)
    here_B = (places_B >= 0) & (places_B < len(rows_RD))
    own_B = logits_BR.gather(1, places_B.clamp(0, len(rows_RD) - 1).unsqueeze(1)).squeeze(1)
    shares_BR = logits_BR.sub_(largest_B.unsqueeze(1)).exp_()
    pulls_BD = (shares_BR @ rows_RD).to(features_BD.dtype)
    return Partial(largest_B, shares_BR.sum(1), own_B.where(here_B, 0), pulls_BD)


def _joined(one: Partial, other: Partial) -> Partial:
    """The partial of two disjoint sets of rows; either may be empty, since m is finite then too and s and p are 0."""
    largest_B = torch.maximum(one.largest_B, other.largest_B)
    first_B, second_B = (one.largest_B - largest_B).exp(), (other.largest_B - largest_B).exp()
    return Partial(
        largest_B,
        first_B * one.sums_B + second_B * other.sums_B,
        one.own_B + other.own_B,
        first_B.unsqueeze(1) * one.pulls_BD + second_B.unsqueeze(1) * other.pulls_BD,
    )
