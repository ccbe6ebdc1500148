"""Torchvision's ResNet-18 and -50 as trunks: no pooling, no classifier, last stage with stride 1 (as in BoT, Luo et
al., 2019, arXiv:1903.07071), so that a 384x128 image has 24x8 cells.

Names in the state dict are torchvision's, so its checkpoints fit. Their strided convolutions are odd (7x7, 3x3) on even
sizes: cell i is centred on pixel 16 i, half a cell beside a symmetric grid. The attribute `grid` has these centres.
"""

# B = batch, D = channels, H, W = rows and columns

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reidray.features.grid import CellGrid
from reidray.features.small import initialise_convolutions

ARCHITECTURES = ("resnet18", "resnet50")


class ResNet(nn.Module):
    """images_B3HW -> map_BDHW with one cell per 16x16 pixels (384x128 -> 24x8).

    Nothing is downloaded here; `reidray.storage.weights` loads pretrained weights.

    Args:
      name: "resnet18" (D = 512) or "resnet50" (D = 2048).
      seed: of the start weights.

    Attributes:
      width: D.
      grid: where the cells lie in the image.
    """

    def __init__(self, name: str, *, seed: int) -> None:
        super().__init__()
        if name not in ARCHITECTURES:
            raise ValueError(f"a ResNet trunk must be one of {', '.join(ARCHITECTURES)}; got {name!r}")
        from torchvision import models  # takes seconds, in every process that has no use for it

        with torch.random.fork_rng(devices=[]):  # torchvision draws start values; they are replaced
            whole = models.get_model(name, weights=None)
        first = whole.layer4[0]
        strided = first.conv2 if hasattr(first, "conv3") else first.conv1  # bottleneck, basic block
        for convolution in (strided, first.downsample[0]):
            convolution.stride = (1, 1)
        self.conv1, self.bn1, self.relu, self.maxpool = whole.conv1, whole.bn1, whole.relu, whole.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = whole.layer1, whole.layer2, whole.layer3, whole.layer4
        initialise_convolutions(self, seed=seed)
        self.name = name
        self.width: int = whole.fc.in_features
        self.stage_widths = tuple(self.width >> halvings for halvings in (3, 2, 1, 0))
        self.grid = CellGrid(16, 0.0)

    def forward(self, images_B3HW: Tensor, after: Mapping[int, nn.Module] | None = None) -> Tensor:
        """after: layers behind a stage, by its number from 1."""
        map_BDHW: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images_B3HW))))
        for number, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), 1):
            map_BDHW = stage(map_BDHW)
            if after and number in after:
                map_BDHW = after[number](map_BDHW)
        return map_BDHW
