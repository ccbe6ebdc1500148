"""ResNet-50-IBN-a: half of the channels behind the first convolution of a block are instance-normalised (Pan et al.,
2018, arXiv:1807.09441), in all stages but the last.

Instance normalisation takes the look of a camera or a place out of a feature. Names in the state dict are those of the
authors' release (XingangPan/IBN-Net): torchvision's, with IN and BN for the two halves. The last stage has stride 1 and
the grid is that of `reidray.features.resnet`.
"""

from __future__ import annotations

from torch import nn

from reidray.features.resnet import ResNet
from reidray.features.small import HalfInstanceNorm

IBN_RESNETS = ("resnet50_ibn_a",)
_NAMES = ("IN", "BN")


class ResNetIBN(ResNet):
    """images_B3HW -> map_BDHW with one cell per 16x16 pixels (384x128 -> 24x8), D = 2048.

    Args:
      seed: of the start weights.

    Attributes:
      width: D.
      stage_widths: of the four stages.
      grid: where the cells lie in the image.
    """

    def __init__(self, *, seed: int) -> None:
        super().__init__("resnet50", seed=seed)
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage.children():
                first = block.get_submodule("bn1")
                assert isinstance(first, nn.BatchNorm2d), first
                block.add_module("bn1", HalfInstanceNorm(first.num_features, _NAMES))
        self.name = "resnet50_ibn_a"
