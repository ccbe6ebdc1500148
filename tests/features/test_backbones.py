import copy

import pytest
import torch
import torchvision
from torch import nn

from reidray.features import OSNet, ResNet, SmallNet, convert
from reidray.features.clip_resnet import ClipResNet
from reidray.features.normalisation import MEAN, STD, Renormalised
from reidray.features.resnet_ibn import ResNetIBN
from reidray.features.small import HalfInstanceNorm


def symmetric(net: nn.Module) -> nn.Module:
    """A copy whose kernels are their own mirror images."""
    net = copy.deepcopy(net)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = (layer.weight.data + layer.weight.data.flip(3)) / 2
    return net


def smooth(net: nn.Module) -> nn.Module:
    """A copy with equal positive kernels, means for maxima and no instance norm: its gradient shows the geometry."""
    net = copy.deepcopy(net).eval()
    for name, layer in list(net.named_modules()):
        parent, _, attribute = name.rpartition(".")
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
        elif isinstance(layer, nn.MaxPool2d):
            mean = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding)
            setattr(net.get_submodule(parent), attribute, mean)
        elif isinstance(layer, nn.InstanceNorm2d):
            setattr(net.get_submodule(parent), attribute, nn.Identity())
    return net


def centre_of_mass(net: nn.Module, size: tuple[int, int], row: int, column: int) -> tuple[float, float]:
    image = torch.ones(1, 3, *size, requires_grad=True)
    net.requires_grad_(False)(image)[0, :, row, column].sum().backward()
    weight_HW = image.grad.double().sum(dim=(0, 1))
    weight_HW /= weight_HW.sum()
    rows, columns = torch.arange(size[0], dtype=torch.float64), torch.arange(size[1], dtype=torch.float64)
    return float((weight_HW.sum(1) * rows).sum()), float((weight_HW.sum(0) * columns).sum())


def test_small_net_has_a_cell_per_eight_pixels_and_about_700_thousand_parameters():
    net = SmallNet(seed=0).eval()
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 96, 48)).shape == (2, 192, 12, 6)
        assert net(torch.zeros(1, 3, 192, 96)).shape == (1, 192, 24, 12)
    assert net.width == 192
    assert 0.65e6 < sum(parameter.numel() for parameter in net.parameters()) < 0.75e6


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("resnet50", 2048)])
def test_resnets_have_a_cell_per_sixteen_pixels(name, width):
    net = ResNet(name, seed=0).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 384, 128)).shape == (1, width, 24, 8)
    assert net.width == width


@pytest.mark.parametrize(("row", "column"), [(10, 13), (11, 12)])
def test_small_net_is_centred_where_its_grid_says(row, column):
    net = SmallNet(seed=0)
    found = centre_of_mass(smooth(net), (192, 200), row, column)
    expected = net.grid.stride * row + net.grid.offset, net.grid.stride * column + net.grid.offset
    assert (net.grid.stride, net.grid.offset) == (8, 3.5)
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("name", "row", "column"), [("resnet18", 12, 13), ("resnet50", 13, 12)])
def test_resnets_are_centred_where_their_grid_says(name, row, column):
    net = ResNet(name, seed=0)
    found = centre_of_mass(smooth(net), (384, 400), row, column)
    expected = net.grid.stride * row + net.grid.offset, net.grid.stride * column + net.grid.offset
    assert (net.grid.stride, net.grid.offset) == (16, 0.0)
    assert found == pytest.approx(expected, abs=1e-3)


def test_small_net_with_mirrored_kernels_commutes_with_flipping():
    net = symmetric(SmallNet(seed=0)).train()
    images = torch.randn(4, 3, 96, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(images.flip(3)), net(images).flip(3), atol=2e-5, rtol=1e-5)


def test_resnet_with_mirrored_kernels_commutes_with_flipping_only_where_its_grid_is_symmetric():
    net = symmetric(ResNet("resnet18", seed=0)).eval()
    images = torch.randn(1, 3, 65, 65, generator=torch.Generator().manual_seed(0))  # centres 0, 16, ..., 64
    with torch.no_grad():
        torch.testing.assert_close(net(images.flip(3)), net(images).flip(3), atol=1e-4, rtol=1e-4)
        even = images[..., :64]
        assert not torch.allclose(net(even.flip(3)), net(even).flip(3), atol=1e-2)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_has_torchvisions_names_and_numbers_after_conversion(name):
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    ours = convert(ResNet(name, seed=0)).eval()
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    images = torch.randn(1, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    stages = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    expected = found = images
    with torch.no_grad():
        for stage in stages:  # the last stage differs by its stride
            expected, found = getattr(theirs, stage)(expected), getattr(ours, stage)(found)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "build",
    [
        SmallNet,
        lambda seed: ResNet("resnet18", seed=seed),
        lambda seed: OSNet("osnet_ain_x1_0", seed=seed),
        lambda seed: ResNetIBN(seed=seed),
        lambda seed: ClipResNet("plip_resnet50", seed=seed),
    ],
)
def test_start_weights_come_from_the_seed_alone_and_leave_the_global_generator_alone(build):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = build(seed=5).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = build(seed=5).state_dict(), build(seed=6).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_an_unknown_resnet_is_refused():
    with pytest.raises(ValueError, match="must be one of resnet18, resnet50; got 'resnet34'"):
        ResNet("resnet34", seed=0)


def test_half_of_the_channels_of_the_first_norms_are_instance_normalised_but_not_in_the_last_stage():
    trunk = ResNetIBN(seed=0)
    for number in (1, 2, 3, 4):
        for block in trunk.get_submodule(f"layer{number}"):
            assert isinstance(block.bn1, HalfInstanceNorm if number < 4 else nn.BatchNorm2d)
    norm = trunk.layer2[0].bn1
    images = torch.randn(3, 128, 6, 4, generator=torch.Generator().manual_seed(0)) * 5 + 2
    found = norm.eval()(images)
    half_3D = found[:, :64].mean(dim=(2, 3))
    torch.testing.assert_close(half_3D, torch.zeros_like(half_3D), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, 64:], images[:, 64:], atol=1e-4, rtol=1e-4)  # running mean 0, variance 1
    assert convert(trunk).layer1[0].bn1.IN.affine


def test_a_slow_block_of_clips_gives_the_same():
    """conv, conv, mean of 2x2, conv beside mean of 2x2, conv; written out."""
    block = ClipResNet("plip_resnet50", seed=0).layer2[0].eval()
    image = torch.randn(1, 256, 8, 6, generator=torch.Generator().manual_seed(0))
    state, scale = block.state_dict(), (1 + 1e-5) ** -0.5  # norms as they begin
    line = (nn.functional.conv2d(image, state["conv1.weight"]) * scale).clamp(min=0)
    line = (nn.functional.conv2d(line, state["conv2.weight"], padding=1) * scale).clamp(min=0)
    line = line.unflatten(3, (3, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5))
    line = nn.functional.conv2d(line, state["conv3.weight"]) * scale
    short = image.unflatten(3, (3, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5))
    short = nn.functional.conv2d(short, state["downsample.0.weight"]) * scale
    with torch.no_grad():
        torch.testing.assert_close(block(image), (line + short).clamp(min=0), rtol=1e-4, atol=1e-5)


def test_images_of_imagenets_mean_and_deviation_get_another_one():
    pixels = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    given = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    mean, std = (0.357, 0.323, 0.328), (0.252, 0.242, 0.239)
    expected = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(Renormalised(mean, std)(given), expected, rtol=1e-5, atol=1e-5)
    assert Renormalised(MEAN, STD)(given) is given
    assert not Renormalised(mean, std).state_dict()
