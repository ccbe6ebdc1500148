"""A narrow residual network for CPUs, whose cells lie symmetrically in the image.

An ordinary strided convolution (3x3, padding 1, even input) centres cell i on pixel s*i, so the map of a flipped image
is not the flipped map, and a mask on the map sits up to one cell beside its image. Here every stride-2 step has an even
kernel with symmetric padding: cell i is centred on pixel 8i + 3.5 and flipping commutes with the network as far as its
kernels are symmetric. Half of the channels of the first two stages are instance-normalised (IBN-a, Pan et al., 2018,
arXiv:1807.09441), which takes the camera's colour cast out of the features.
"""

# B = batch, D = channels, H, W = rows and columns

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidray.features.grid import CellGrid

STAGE_STRIDES = (1, 2, 1, 1)  # after a stem of stride 4: one cell per 8 pixels
IBN_STAGES = 2


def initialise_convolutions(module: nn.Module, *, seed: int) -> None:
    """Draw every convolution's weights from N(0, 2 / fan_out) (He et al., 2015), biases 0, in the order of the modules.

    Args:
      module: changed in place; batch-norm layers are left as they are.
      seed: >= 0; the same seed gives the same weights, whatever the state of PyTorch's own generator.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class HalfInstanceNorm(nn.Module):
    """IBN-a: instance normalisation of the first half of the channels, batch normalisation of the others.

    Args:
      channels: of the map.
      names: of the two layers in the state dict.
    """

    def __init__(self, channels: int, names: tuple[str, str] = ("instance_norm", "batch_norm")) -> None:
        super().__init__()
        self.split = [channels // 2, channels - channels // 2]
        self.names = names
        self.add_module(names[0], nn.InstanceNorm2d(self.split[0], affine=True))
        self.add_module(names[1], nn.BatchNorm2d(self.split[1]))

    def forward(self, map_BDHW: Tensor) -> Tensor:
        parts = torch.split(map_BDHW, self.split, dim=1)
        halves = [self.get_submodule(name)(part) for name, part in zip(self.names, parts, strict=True)]
        return torch.cat([half.contiguous(memory_format=torch.channels_last) for half in halves], dim=1)


class AlignedBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; a stride of 2 is a 4x4 convolution beside a 2x2 mean, both symmetric."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, ibn: bool) -> None:
        super().__init__()
        kernel = 3 if stride == 1 else 4
        self.conv1 = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=1, bias=False)
        self.norm1 = HalfInstanceNorm(channels_out) if ibn else nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride) if stride > 1 else nn.Identity(),
                nn.Conv2d(channels_in, channels_out, 1, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, map_BDHW: Tensor) -> Tensor:
        residual = F.relu(self.norm1(self.conv1(map_BDHW)), inplace=True)
        residual = self.norm2(self.conv2(residual))
        return F.relu(residual + self.shortcut(map_BDHW), inplace=True)


class SmallNet(nn.Module):
    """Ten-layer residual trunk: images_B3HW -> map_BDHW with one cell per 8x8 pixels (96x48 -> 12x6).

    Args:
      widths: channels of the four stages; the last one is the feature width D. The default has 0.70 M parameters.
      seed: of the start weights.

    Attributes:
      width: D.
      grid: where the cells lie in the image.
    """

    name = "small"

    def __init__(self, widths: tuple[int, int, int, int] = (24, 48, 96, 192), *, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the layers' own start values are drawn, then replaced
            self.stem = nn.Sequential(
                nn.Conv2d(3, widths[0], 6, stride=2, padding=2, bias=False),
                nn.BatchNorm2d(widths[0]),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            )
            blocks = []
            for stage, (channels_in, channels_out) in enumerate(zip((widths[0], *widths), widths, strict=False)):
                ibn = stage < IBN_STAGES
                blocks.append(AlignedBlock(channels_in, channels_out, stride=STAGE_STRIDES[stage], ibn=ibn))
            self.stages = nn.Sequential(*blocks)
        initialise_convolutions(self, seed=seed)
        self.width = widths[-1]
        self.stage_widths: tuple[int, ...] = widths
        self.grid = CellGrid(8, 3.5)

    def forward(self, images_B3HW: Tensor, after: Mapping[int, nn.Module] | None = None) -> Tensor:
        """after: layers behind a stage, by its number from 1."""
        map_BDHW: Tensor = self.stem(images_B3HW)
        for number, stage in enumerate(self.stages, 1):
            map_BDHW = stage(map_BDHW)
            if after and number in after:
                map_BDHW = after[number](map_BDHW)
        return map_BDHW
