"""The grids that trunks say they have, measured by gradients in two ways."""

import pytest
import torch
from torch import nn

from reidray.features import CellGrid
from reidray.features.embedder import build_trunk
from reidray.features.measured_grid import measured_grid

SAID = {
    "small": CellGrid(8, 3.5),
    "resnet18": CellGrid(16, 0.0),
    "plip_resnet50": CellGrid(16, 7.0),
    "osnet_x0_25": CellGrid(16, 6.0),
}


@pytest.mark.parametrize("name", SAID)
def test_the_geometry_alone_has_the_grid_that_the_trunk_says(name):
    trunk = build_trunk(name, 0)
    assert trunk.grid == SAID[name]
    before = {key: tensor.clone() for key, tensor in trunk.state_dict().items()}
    assert measured_grid(trunk) == SAID[name]
    assert all(torch.equal(before[key], tensor) for key, tensor in trunk.state_dict().items())


def centre_at_random_weights(name: str, *, size: int, draws: int) -> tuple[float, float]:
    """Mean centre of mass of |gradient| of the middle cell, less its stride, over networks and images drawn anew."""
    found = []
    for seed in range(draws):
        trunk = build_trunk(name, seed).train()  # in training the norms keep the scale of a new network
        image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed), requires_grad=True)
        map_BDHW = trunk(image)
        cell = map_BDHW.shape[2] // 2
        map_BDHW[0, :, cell, cell].sum().backward()
        mass_HW = image.grad.double().square().sum(dim=(0, 1))  # squares: less of what gates and norms see everywhere
        mass_HW /= mass_HW.sum()
        places = torch.arange(size, dtype=torch.float64) - trunk.grid.stride * cell
        found.append((float((mass_HW.sum(1) * places).sum()), float((mass_HW.sum(0) * places).sum())))
    return tuple(sum(values) / draws for values in zip(*found, strict=True))


@pytest.mark.parametrize(("name", "size"), [("small", 160), ("osnet_x0_25", 176), ("resnet18", 160)])
def test_networks_with_random_weights_look_where_their_grid_says(name, size):
    """Sizes at which a cell is centred on the image: else the edges of the image pull its centre of mass."""
    found = centre_at_random_weights(name, size=size, draws=10)
    assert found == pytest.approx((SAID[name].offset, SAID[name].offset), abs=2.5)


def test_asymmetric_padding_is_measured():
    """3 pixels cut off left and above, and added on the other sides: all cells see 3 pixels further right and down."""
    shifted = nn.Sequential(nn.ZeroPad2d((-3, 3, -3, 3)), nn.Conv2d(3, 4, 4, stride=4))
    assert measured_grid(shifted) == CellGrid(4, 4.5)


def test_axes_that_differ_are_refused():
    network = nn.Sequential(nn.ZeroPad2d((-1, 1, 0, 0)), nn.Conv2d(3, 4, 4, stride=4))
    with pytest.raises(ValueError, match="alike along rows and columns"):
        measured_grid(network)
