"""Where the cells of a network lie, measured: which pixels a cell depends on, by the gradient of its sum.

The gradient of a trained network shows its weights as well as its geometry. A copy shows the geometry alone: equal
positive kernels, means for maxima, no normalisation, and an image so bright that gates are open and bounds are not met.
"""

# H, W = rows and columns of the map

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from reidray.features.grid import CellGrid

_LONG, _SHORT = 1536, 32
"""Pixels of a strip, multiples of 32; a cell in the middle of the long side depends on no pixel beyond its ends."""
_BRIGHT = 100.0
_ALIKE = 0.25  # pixels by which rows and columns may differ


def measured_grid(network: nn.Module) -> CellGrid:
    """The grid of a trunk, from a strip of pixels along each axis.

    Args:
      network: images_B3HW -> map_BDHW for images whose sides are multiples of 32; stays as it is.

    Returns:
      The stride, and the offset to a hundredth of a pixel.

    Raises:
      ValueError: the stride is no whole number, a cell depends on no pixel, or rows and columns have other centres.
    """
    probe = geometry(network)
    found = []
    for axis, size in enumerate(((_LONG, _SHORT), (_SHORT, _LONG))):
        image = torch.full((1, 3, *size), _BRIGHT, requires_grad=True)
        map_HW = probe(image)[0].sum(0)
        stride, rest = divmod(_LONG, map_HW.shape[axis])
        if rest:
            raise ValueError(f"cells should be a whole number of pixels wide; got {map_HW.shape[axis]} on {_LONG}")
        middle = [count // 2 for count in map_HW.shape]
        found.append((stride, centre_of(image, map_HW[middle[0], middle[1]])[axis] - stride * middle[axis]))
    (stride, down), (stride_right, right) = found
    if stride != stride_right or not abs(down - right) < _ALIKE:  # nan as well
        raise ValueError(
            f"cells should lie alike along rows and columns; measured a stride of {stride} and {stride_right} pixels, "
            f"and first centres at {down:.2f} and {right:.2f}"
        )
    return CellGrid(stride, round((down + right) / 2, 2) + 0.0)  # no -0.0


def centre_of(image: Tensor, value: Tensor) -> tuple[float, float]:
    """Row and column of the pixels that a value depends on: the centre of mass of its gradient's size."""
    (gradient,) = torch.autograd.grad(value, image)
    mass_HW = gradient[0].double().abs().sum(0)
    mass_HW = mass_HW / mass_HW.sum()
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in mass_HW.shape)
    return float((mass_HW.sum(1) * rows).sum()), float((mass_HW.sum(0) * columns).sum())


def geometry(network: nn.Module) -> nn.Module:
    """A copy of a network that shows its geometry alone, in evaluation mode."""
    probe = copy.deepcopy(network).eval().requires_grad_(False)
    for name, layer in list(probe.named_modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            continue
        parent, _, attribute = name.rpartition(".")
        if type(layer) is nn.MaxPool2d:
            mean = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
            setattr(probe.get_submodule(parent), attribute, mean)
        elif name and (_is_norm(layer) or isinstance(layer, nn.Hardtanh)):  # ReLU6 is one
            setattr(probe.get_submodule(parent), attribute, nn.Identity())
    return probe


def _is_norm(layer: nn.Module) -> bool:
    """Whether a layer normalises and nothing else; packages have classes of their own for that."""
    weighs = any(isinstance(inner, (nn.Conv2d, nn.Linear)) for inner in layer.modules())
    return "Norm" in type(layer).__name__ and not weighs
