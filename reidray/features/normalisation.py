"""How the colours of an image reach a network: ImageNet's mean and deviation, and other ones inside a trunk."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, of red, green and blue in 0..1: what every network here is given."""


class Renormalised(nn.Module):
    """Images of ImageNet's mean and deviation -> images as the weights of a trunk expect them, [B, 3, H, W].

    It has no weights and nothing in the state dict; where mean and deviation are ImageNet's it changes no bit.

    Args:
      mean, std: of red, green and blue in 0..1, that the trunk was trained with.
    """

    scale_311: Tensor
    shift_311: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.same = tuple(mean) == MEAN and tuple(std) == STD
        ours, theirs = torch.tensor([MEAN, STD]).double(), torch.tensor([tuple(mean), tuple(std)]).double()
        scale_3, shift_3 = ours[1] / theirs[1], (ours[0] - theirs[0]) / theirs[1]
        self.register_buffer("scale_311", scale_3.float().view(3, 1, 1), persistent=False)
        self.register_buffer("shift_311", shift_3.float().view(3, 1, 1), persistent=False)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        return images_B3HW if self.same else images_B3HW * self.scale_311 + self.shift_311
