"""The graph that is exported: from an image at the network's size to the feature that is ranked.

Everything behind the resizing is inside: normalisation, network, necks, the choice or the joining of vectors that the
method makes, unit length. The result is that of `reidray embed`.
"""

# B = batch, D = feature width, H, W = height and width of the network's input

from __future__ import annotations

import copy
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from reidray.arrays import Array, Bytes, Floats
from reidray.config import Settings
from reidray.features import Network
from reidray.features.normalisation import MEAN, STD
from reidray.methods import make_method
from reidray.training.images import as_input

INPUTS = ("pixels", "normalised")
PRECISIONS = ("float32", "float16")


class EmbeddingGraph(nn.Module):
    """images -> features_BD, unit length, float32; a copy of a network in evaluation mode, on the CPU.

    Batch norms use their running statistics, as any batch norm does in evaluation, so BN groups play no role.

    Args:
      network: is copied and stays as it is.
      settings: of the run that trained it.
      given: "pixels": uint8 [B, 3, H, W], RGB; "normalised": ImageNet's mean 0 and deviation 1, as many trackers
        prepare their crops, float32 or float16 as `precision` says.
      precision: of the trunk. Pooling and what follows it are float32 always: sums over many cells and unit length lose
        the most in float16, and cost nearly nothing.
    """

    mean_311: Tensor
    deviation_311: Tensor

    def __init__(self, network: Network, settings: Settings, *, given: str, precision: str) -> None:
        super().__init__()
        assert given in INPUTS, given
        assert precision in PRECISIONS, precision
        # Weights in channels-last order would be written with strides that other programs do not expect.
        self.network = copy.deepcopy(network).cpu().eval().to(memory_format=torch.contiguous_format)
        self.network.requires_grad_(False)
        self.given, self.precision = given, precision
        self.size = (settings.data.height, settings.data.width)
        self._method = make_method(settings)
        self.register_buffer("mean_311", 255 * torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("deviation_311", 255 * torch.tensor(STD).view(3, 1, 1))
        self.eval()
        if precision == "float16":
            for name in ("backbone", "non_local"):
                trunk = getattr(self.network, name, None)
                if trunk is not None:
                    cast(nn.Module, trunk).half()

    def forward(self, images: Tensor) -> Tensor:
        if self.given == "pixels":
            images = (images.float() - self.mean_311) / self.deviation_311
        if self.precision == "float16":
            images = images.half()
        return self._method.ranked(self._method.to_evaluate(self.network(images)))

    def example(self) -> Tensor:
        """A batch of two images, to trace the graph with."""
        images_BHW3 = np.random.default_rng(0).integers(0, 256, (2, *self.size, 3), dtype=np.uint8)
        return torch.from_numpy(self.as_given(images_BHW3))

    def as_given(self, images_BHW3: Bytes) -> Array:
        """Images of the network's size, as the graph takes them."""
        if self.given == "pixels":
            return np.ascontiguousarray(images_BHW3.transpose(0, 3, 1, 2))
        normalised_B3HW = as_input(images_BHW3, torch.device("cpu")).contiguous().numpy()
        return normalised_B3HW.astype(np.float16) if self.precision == "float16" else normalised_B3HW


@torch.no_grad()
def embedded(network: Network, settings: Settings, images_BHW3: Bytes, *, batch: int = 50) -> Floats:
    """What PyTorch gives on the CPU in float32 [B, D], computed as evaluation does: what an export is compared with."""
    method, network = make_method(settings), copy.deepcopy(network).cpu().eval()
    found = []
    for start in range(0, len(images_BHW3), batch):
        outputs = network(as_input(images_BHW3[start : start + batch], torch.device("cpu")))
        kept = method.to_evaluate(outputs)
        found.append(method.evaluated({name: rows.numpy() for name, rows in kept.items()}))
    return np.concatenate(found)
