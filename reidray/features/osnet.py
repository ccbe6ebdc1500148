"""OSNet: a light trunk whose blocks look at several scales at once (Zhou et al., 2019, arXiv:1905.00953).

A block has four streams with 1 to 4 light 3x3 convolutions, so receptive fields of 3 to 9 cells; one small network,
shared by the streams, weighs the channels of each before they are added. OSNet-IBN puts an instance norm behind the
blocks of the first stage; OSNet-AIN has instance norms inside the residuals of blocks that a search chose (Zhou et al.,
2019, arXiv:1910.06827).

Names in the state dict are torchreid's, so its checkpoints fit. Three steps with odd kernels on even sizes centre cells
on pixels 4 i; two means of 2x2 cells follow, so that a cell of the map is centred on pixel 16 i + 6.
"""

# B = batch, D = channels, H, W = rows and columns

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidray.features.grid import CellGrid
from reidray.features.small import initialise_convolutions

_WIDTHS = (64, 256, 384, 512)  # of the stem, then of the stages, at width 1
_STREAMS = 4
_SHRINKS = 4  # a block's streams have so many times fewer channels than its output
_GATE_SHRINKS = 16

# name -> (width times 4, where the six blocks have instance norms: "" nowhere, "o" behind the sum, "i" in the residual)
OSNETS: dict[str, tuple[int, tuple[str, ...]]] = {
    "osnet_x0_25": (1, ("",) * 6),
    "osnet_x0_5": (2, ("",) * 6),
    "osnet_x0_75": (3, ("",) * 6),
    "osnet_x1_0": (4, ("",) * 6),
    "osnet_ibn_x1_0": (4, ("o", "o", "", "", "", "")),
    "osnet_ain_x1_0": (4, ("i", "i", "", "i", "i", "")),
}
EMBEDDING = 512
"""Numbers of the fully connected layer behind the trunk in torchreid's checkpoints, whatever the width."""


def _unit(
    channels_in: int, channels_out: int, kernel: int = 1, *, stride: int = 1, norm: str = "batch", relu: bool = True
) -> nn.Sequential:
    """Convolution, normalisation ("batch", "instance", "none"), ReLU."""
    layers: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False))
    ]
    if norm != "none":
        kind = nn.BatchNorm2d(channels_out) if norm == "batch" else nn.InstanceNorm2d(channels_out, affine=True)
        layers.append(("bn", kind))
    if relu:
        layers.append(("relu", nn.ReLU(inplace=True)))
    return nn.Sequential(OrderedDict(layers))


def _light_unit(channels: int) -> nn.Sequential:
    """A light 3x3 convolution: 1x1 over all channels, then 3x3 within each; normalisation, ReLU."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, channels, 1, bias=False),
            conv2=nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            bn=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
        )
    )


class ChannelGate(nn.Module):
    """A weight in (0, 1) for every channel of an image, from its means over the cells; eq. 3 of the paper."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _GATE_SHRINKS, 1)
        self.fc2 = nn.Conv2d(channels // _GATE_SHRINKS, channels, 1)

    def forward(self, map_BDHW: Tensor) -> Tensor:
        means_BD11 = map_BDHW.mean(dim=(2, 3), keepdim=True)
        return map_BDHW * torch.sigmoid(self.fc2(F.relu(self.fc1(means_BD11))))


class OmniScaleBlock(nn.Module):
    """Four streams of growing receptive fields in a residual: map_BDHW -> map_BDHW with as many cells.

    Args:
      channels_in, channels_out: widths before and after.
      instance: where an instance norm stands: "" nowhere, "o" behind the sum, "i" in the residual.
      listed: names of the streams are those of torchreid's OSNet-AIN, not of its OSNet.
    """

    def __init__(self, channels_in: int, channels_out: int, *, instance: str, listed: bool) -> None:
        super().__init__()
        inner = channels_out // _SHRINKS
        self.conv1 = _unit(channels_in, inner)
        streams = [[_light_unit(inner) for _ in range(depth)] for depth in range(1, _STREAMS + 1)]
        if listed:
            named = (nn.Sequential(OrderedDict(layers=nn.Sequential(*units))) for units in streams)
            self.conv2 = nn.ModuleList(named)
            self._streams = [f"conv2.{number}" for number in range(_STREAMS)]
        else:
            self._streams = [f"conv2{letter}" for letter in "abcd"]
            for name, units in zip(self._streams, streams, strict=True):
                self.add_module(name, nn.Sequential(*units) if len(units) > 1 else units[0])
        self.gate = ChannelGate(inner)
        self.conv3 = _unit(inner, channels_out, norm="none" if instance == "i" else "batch", relu=False)
        self.downsample: nn.Module | None = None
        if channels_in != channels_out:
            self.downsample = _unit(channels_in, channels_out, relu=False)
        self.instance = instance
        if instance:
            self.IN = nn.InstanceNorm2d(channels_out, affine=True)

    def forward(self, map_BDHW: Tensor) -> Tensor:
        shrunk_BDHW = self.conv1(map_BDHW)
        gated = [self.gate(self.get_submodule(name)(shrunk_BDHW)) for name in self._streams]
        residual_BDHW = self.conv3(gated[0] + gated[1] + gated[2] + gated[3])
        if self.instance == "i":
            residual_BDHW = self.IN(residual_BDHW)
        sum_BDHW = residual_BDHW + (map_BDHW if self.downsample is None else self.downsample(map_BDHW))
        if self.instance == "o":
            sum_BDHW = self.IN(sum_BDHW)
        return F.relu(sum_BDHW, inplace=True)


class OSNet(nn.Module):
    """images_B3HW -> map_BDHW with one cell per 16x16 pixels (256x128 -> 16x8).

    The images are normalised by ImageNet's mean and deviation, as torchreid does. Nothing is downloaded here.

    Args:
      name: a key of OSNETS; D is 128 times 1 to 4.
      seed: of the start weights, He et al.'s (2015) for the convolutions; PyTorch's generator is neither used nor
        changed.

    Attributes:
      width: D.
      stage_widths: of the paper's conv2, conv3, conv4 and conv5.
      grid: where the cells lie in the image.

    Raises:
      ValueError: an unknown name.
    """

    def __init__(self, name: str, *, seed: int) -> None:
        super().__init__()
        if name not in OSNETS:
            raise ValueError(f"an OSNet trunk must be one of {', '.join(OSNETS)}; got {name!r}")
        quarters, instances = OSNETS[name]
        listed = "i" in instances  # torchreid has another program, with other names, for OSNet-AIN
        stem, *widths = (width * quarters // 4 for width in _WIDTHS)
        with torch.random.fork_rng(devices=[]):  # the layers' own start values are drawn, then replaced
            self.conv1 = _unit(3, stem, 7, stride=2, norm="instance" if any(instances) else "batch")
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            for stage, (channels_in, channels_out) in enumerate(zip((stem, *widths), widths, strict=False)):
                first, second = instances[2 * stage : 2 * stage + 2]
                blocks: list[nn.Module] = [
                    OmniScaleBlock(channels_in, channels_out, instance=first, listed=listed),
                    OmniScaleBlock(channels_out, channels_out, instance=second, listed=listed),
                ]
                number = stage + 2  # the paper's: the stem is conv1
                if number < 4:
                    halving = nn.Sequential(_unit(channels_out, channels_out), nn.AvgPool2d(2))
                    if listed:
                        self.add_module(f"pool{number}", halving)
                    else:
                        blocks.append(halving)
                self.add_module(f"conv{number}", nn.Sequential(*blocks))
            self.conv5 = _unit(widths[-1], widths[-1])
        initialise_convolutions(self, seed=seed)
        self.name = name
        self.width: int = widths[-1]
        self.stage_widths = (*widths, widths[-1])
        self.grid = CellGrid(16, 6.0)
        self._stages = [["conv2"], ["conv3"], ["conv4"], ["conv5"]]
        if listed:
            self._stages = [["conv2", "pool2"], ["conv3", "pool3"], ["conv4"], ["conv5"]]

    def forward(self, images_B3HW: Tensor, after: Mapping[int, nn.Module] | None = None) -> Tensor:
        """after: layers behind a stage, by its number from 1 (the paper's conv2)."""
        map_BDHW: Tensor = self.maxpool(self.conv1(images_B3HW))
        for number, names in enumerate(self._stages, 1):
            for name in names:
                map_BDHW = self.get_submodule(name)(map_BDHW)
            if after and number in after:
                map_BDHW = after[number](map_BDHW)
        return map_BDHW
