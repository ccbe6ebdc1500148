"""Models of timm as trunks. Without timm, a stand-in with what is used of it; with it, models of several kinds."""

import sys
import types

import pytest
import torch
from torch import nn

from reidray.features import CellGrid, build_embedder, take_statistics
from reidray.features.embedder import build_trunk


class BatchNormAct(nn.BatchNorm2d):
    """As timm's: an activation inside the norm."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(super().forward(input)))


class Model(nn.Module):
    """A model as timm makes them; `last` is what it ends in."""

    def __init__(self, last: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4, bias=False)
        self.bn1 = BatchNormAct(8)
        self.layer1 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.head = nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 5))  # behind the map: must go
        self.last = last
        self.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.25)}

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        self.given = images.detach()
        map_BDHW = self.layer1(self.bn1(self.stem(images)))
        if self.last == "tokens":
            return map_BDHW.flatten(2).transpose(1, 2)
        return map_BDHW.permute(0, 2, 3, 1) if self.last == "channels last" else map_BDHW


@pytest.fixture
def stand_in(monkeypatch):
    """timm with three models; it draws from PyTorch's own generator, as timm does."""
    names = {"plain": "map", "last": "channels last", "tokens": "tokens"}
    timm = types.ModuleType("timm")
    timm.is_model = lambda name: name in names
    timm.list_models = lambda: list(names)
    timm.create_model = lambda name, pretrained, num_classes, global_pool: Model(names[name])
    monkeypatch.setitem(sys.modules, "timm", timm)


def embedder_of(name: str, seed: int = 0):
    return build_embedder(backbone=f"timm:{name}", pooling="avg", num_parts=0, part_pooling="gap", seed=seed)


@pytest.mark.parametrize("name", ["plain", "last"])
def test_width_axes_and_cells_are_measured(stand_in, name):
    trunk = build_trunk(f"timm:{name}", 0)
    assert trunk.width == 12
    assert trunk(torch.zeros(2, 3, 96, 48)).shape == (2, 12, 12, 6)
    assert trunk.grid == CellGrid(8, 1.5)  # 4 pixels about 1.5, then an odd kernel
    assert trunk.name == f"timm:{name}"


def test_images_have_the_models_own_mean_and_deviation(stand_in):
    trunk = build_trunk("timm:plain", 0)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    trunk((pixels - mean) / std)
    deviation = torch.tensor([0.5, 0.5, 0.25])[:, None, None]
    torch.testing.assert_close(trunk.model.given, (pixels - 0.5) / deviation, rtol=1e-5, atol=1e-5)


def test_norms_with_an_activation_are_taken_over_groups_and_layers_behind_the_map_are_gone(stand_in):
    embedder = embedder_of("plain").train()
    names = list(embedder.backbone.state_dict())
    assert "model.bn1.running_mean" in names
    assert not any("head" in name for name in names)
    found = embedder(torch.randn(4, 3, 64, 32, generator=torch.Generator().manual_seed(0)))
    assert float(embedder.backbone.state_dict()["model.bn1.running_mean"].abs().max()) == 0  # noted, not folded in
    assert take_statistics(embedder).shape == (2 * (8 + 12),)
    found.features_BSD[:, 0, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in embedder.backbone.parameters())


def test_weights_come_from_the_seed_alone(stand_in):
    before = torch.random.get_rng_state()
    first, second, other = (build_trunk("timm:plain", seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["model.stem.weight"], other["model.stem.weight"])


def test_what_cannot_be_a_trunk_is_refused_in_a_sentence(stand_in, monkeypatch):
    with pytest.raises(ValueError, match=r"timm has no model plan: did you mean plain\?"):
        build_trunk("timm:plan", 0)
    with pytest.raises(ValueError, match=r"timm:tokens makes \(1, 768, 12\) .* no feature map"):
        build_trunk("timm:tokens", 0)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm:plain needs the package timm: pip install 'reidray\[timm\]'"):
        build_trunk("timm:plain", 0)


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("resnet18", CellGrid(32, 0.0)),
        ("tf_efficientnet_b0", CellGrid(32, 31.0)),  # padded to the right and below only
        ("convnextv2_atto", CellGrid(32, 15.5)),
        ("regnety_002", CellGrid(32, 0.0)),
    ],
)
def test_models_of_timm_are_trunks(name, grid):
    pytest.importorskip("timm")
    embedder = embedder_of(name).train()
    assert embedder.grid == grid
    found = embedder(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert found.map_BDHW.shape[2:] == (2, 2)
    take_statistics(embedder)
