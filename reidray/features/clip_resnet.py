"""The ResNet-50 of CLIP (Radford et al., 2021, arXiv:2103.00020), which PLIP trained on SYNTH-PEDES (Zuo et al., 2024,
arXiv:2305.08386): a stem of three convolutions; behind the first one every step of stride 2 is a mean of 2x2 cells.

Names in the state dict are those of both releases, whose image encoders fit. What they have behind the map (avg_proj,
attnpool) leads to the space of the texts and is left over. Each has a mean and a deviation of its own, which the trunk
sees to. The last stage has stride 1 here, as those of the other trunks; no weight changes with that. One convolution
with an odd kernel on even sizes and three means: a cell is centred on pixel 16 i + 7.
"""

# B = batch, D = channels, H, W = rows and columns

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidray.features.grid import CellGrid
from reidray.features.normalisation import Renormalised
from reidray.features.small import initialise_convolutions

# name -> mean and deviation of the images, red, green and blue in 0..1
CLIP_RESNETS = {
    "plip_resnet50": ((0.357, 0.323, 0.328), (0.252, 0.242, 0.239)),
    "clip_resnet50": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
_WIDTH = 64
_BLOCKS, _STRIDES = (3, 4, 6, 3), (1, 2, 2, 1)
_GROWS = 4


class Bottleneck(nn.Module):
    """A residual block whose stride, where it has one, is a mean of cells: map_BDHW -> map_BDHW."""

    def __init__(self, channels_in: int, inner: int, stride: int) -> None:
        super().__init__()
        channels_out = inner * _GROWS
        self.conv1, self.bn1 = nn.Conv2d(channels_in, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.downsample: nn.Module | None = None
        if stride > 1 or channels_in != channels_out:
            layers = (nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))
            self.downsample = nn.Sequential(OrderedDict(zip("01", layers, strict=True)))

    def forward(self, map_BDHW: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(map_BDHW)), inplace=True)
        residual = self.avgpool(F.relu(self.bn2(self.conv2(residual)), inplace=True))
        residual = self.bn3(self.conv3(residual))
        if self.downsample is not None:
            map_BDHW = self.downsample(self.avgpool(map_BDHW))
        return F.relu(residual + map_BDHW, inplace=True)


class ClipResNet(nn.Module):
    """images_B3HW, normalised as ImageNet's, -> map_BDHW with one cell per 16x16 pixels (256x128 -> 16x8), D = 2048.

    Args:
      name: a key of CLIP_RESNETS.
      seed: of the start weights, He et al.'s (2015) for the convolutions; PyTorch's generator is neither used nor
        changed.

    Attributes:
      width: D.
      stage_widths: of the four stages.
      grid: where the cells lie in the image.

    Raises:
      ValueError: an unknown name.
    """

    def __init__(self, name: str, *, seed: int) -> None:
        super().__init__()
        if name not in CLIP_RESNETS:
            raise ValueError(f"a ResNet of CLIP must be one of {', '.join(CLIP_RESNETS)}; got {name!r}")
        half = _WIDTH // 2
        self.normalised = Renormalised(*CLIP_RESNETS[name])
        with torch.random.fork_rng(devices=[]):  # the layers' own start values are drawn, then replaced
            self.conv1, self.bn1 = nn.Conv2d(3, half, 3, 2, 1, bias=False), nn.BatchNorm2d(half)
            self.conv2, self.bn2 = nn.Conv2d(half, half, 3, 1, 1, bias=False), nn.BatchNorm2d(half)
            self.conv3, self.bn3 = nn.Conv2d(half, _WIDTH, 3, 1, 1, bias=False), nn.BatchNorm2d(_WIDTH)
            self.avgpool = nn.AvgPool2d(2)
            channels = _WIDTH
            for number, (blocks, stride) in enumerate(zip(_BLOCKS, _STRIDES, strict=True)):
                inner, stage = _WIDTH << number, []
                for place in range(blocks):
                    stage.append(Bottleneck(channels, inner, 1 if place else stride))
                    channels = inner * _GROWS
                self.add_module(f"layer{number + 1}", nn.Sequential(*stage))
        initialise_convolutions(self, seed=seed)
        self.name = name
        self.width = channels
        self.stage_widths = tuple(_GROWS * _WIDTH << number for number in range(4))
        self.grid = CellGrid(16, 7.0)

    def forward(self, images_B3HW: Tensor, after: Mapping[int, nn.Module] | None = None) -> Tensor:
        """after: layers behind a stage, by its number from 1."""
        map_BDHW: Tensor = self.normalised(images_B3HW)
        for convolution, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            map_BDHW = F.relu(norm(convolution(map_BDHW)), inplace=True)
        map_BDHW = self.avgpool(map_BDHW)
        for number in range(1, 5):
            map_BDHW = self.get_submodule(f"layer{number}")(map_BDHW)
            if after and number in after:
                map_BDHW = after[number](map_BDHW)
        return map_BDHW
