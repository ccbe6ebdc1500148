"""Dropout whose random numbers depend on the image and not on the worker.

PyTorch's dropout draws from one generator a process, so a run on two workers would differ from a run on one. Here each
image has a key, drawn from the seed, the epoch, the step and the image's place in the global batch, and what is dropped
is a hash of that key and the place of the number.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

# B = images of a BN group or of a batch, D = numbers of one image that may be dropped

_STREAM = 5  # keeps these random numbers apart from those of other rooms with the same seed and epoch


class KeyedDropout(nn.Module):
    """Each number is 0 with probability p, the others grow by 1 / (1 - p); in evaluation mode nothing happens.

    `set_keys` must come before each training-mode forward pass.

    Args:
      p: in [0, 1).
    """

    keys_B: Tensor | None = None

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {p}")
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        assert self.keys_B is not None, "set_keys comes before the forward pass"
        if len(self.keys_B) != len(input):
            raise ValueError(f"dropout needs a key an image; got {len(self.keys_B)} keys for {len(input)} images")
        uniforms_BD = keyed_uniforms(self.keys_B.to(input.device), input[0].numel() if len(input) else 1)
        kept = (uniforms_BD >= self.p).view(len(input), *input.shape[1:]) if len(input) else input.bool()
        return input * kept / (1 - self.p)


def set_keys(model: nn.Module, keys_B: Tensor) -> None:
    """Hand the images' keys to every `KeyedDropout` of a network; each layer gets keys of its own."""
    layers = [layer for layer in model.modules() if isinstance(layer, KeyedDropout)]
    for number, layer in enumerate(layers):
        layer.keys_B = _mixed(keys_B + (number << 40))


def image_keys(seed: int, epoch: int, step: int, batch_size: int, *, beside: bool = False) -> Tensor:
    """A key for each image of a global batch: int64 [B]; `beside` the network others than in it."""
    sequence = np.random.SeedSequence([_STREAM, seed, epoch, step, *([1] if beside else [])])
    keys_B = np.random.Generator(np.random.Philox(sequence)).integers(0, 2**62, batch_size)
    return torch.from_numpy(keys_B)


def keyed_uniforms(keys_B: Tensor, count: int) -> Tensor:
    """float32 [B, count] in [0, 1): a hash of the image's key and the place."""
    places = torch.arange(count, dtype=torch.int64, device=keys_B.device)
    mixed = _mixed(keys_B.unsqueeze(1) + places * 0x1F123BB5159A5)
    return ((mixed >> 24) & 0xFFFFFF).float() / 2**24


def _mixed(values: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele et al., 2014) on signed integers: shifts are made logical by a mask."""
    values = (values ^ ((values >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    values = (values ^ ((values >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return values ^ ((values >> 31) & 0x1FFFFFFFF)
