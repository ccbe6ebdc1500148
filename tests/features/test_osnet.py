"""OSNet beside a slow one of ours, and the names that torchreid's checkpoints have."""

from pathlib import Path

import pytest
import torch

from reidray.features import OSNet, build_embedder, convert, take_statistics
from reidray.features.osnet import OSNETS
from tests.reference import osnet as slow

KEYS = Path(__file__).parents[1] / "reference" / "torchreid_keys.txt"
NORM = ("weight", "bias")
STATISTICS = ("running_mean", "running_var")


def torchreid_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchreid's state dict, from the list beside the references."""
    shapes: dict[str, tuple[int, ...]] = {}
    network = None
    for line in KEYS.read_text().splitlines():
        if line.startswith("#"):
            continue
        if not line.startswith(" "):
            network = line
        elif network == name:
            layer, *words = line.split()
            if words[0] in ("bn", "in"):
                parts = (*NORM, *STATISTICS) if words[0] == "bn" else NORM
                shapes |= {f"{layer}.{part}": (int(words[1]),) for part in parts}
                if words[0] == "bn":
                    shapes[f"{layer}.num_batches_tracked"] = ()
            else:
                pairs = zip(words[::2], words[1::2], strict=True)
                shapes |= {f"{layer}.{part}": tuple(map(int, shape.split("x"))) for part, shape in pairs}
    return shapes


def drawn(network: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict as training leaves one: statistics, scales and shifts are somewhere."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in network.state_dict().items():
        if tensor.ndim != 1:
            state[name] = tensor.clone()
        elif name.endswith(("weight", "running_var")):
            state[name] = torch.rand(tensor.shape, generator=generator) + 0.5
        else:
            state[name] = torch.randn(tensor.shape, generator=generator) * 0.1
    return state


def images(height: int = 96, width: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_ibn_x1_0", "osnet_ain_x1_0"])
def test_the_trunk_and_its_embedding_layer_have_torchreids_names_and_shapes(name):
    expected = torchreid_shapes(name)
    assert len(expected) > 500
    trunk = {key: tuple(tensor.shape) for key, tensor in convert(OSNet(name, seed=0)).state_dict().items()}
    assert trunk == {key: shape for key, shape in expected.items() if not key.startswith(("fc.", "classifier."))}
    embedder = build_embedder(
        backbone=name, pooling="avg", num_parts=0, part_pooling="gap", seed=0, embedding_layer="keep"
    )
    layer = {key: tuple(tensor.shape) for key, tensor in embedder.embeddings[0].state_dict().items()}
    assert layer == {key.removeprefix("fc."): shape for key, shape in expected.items() if key.startswith("fc.")}


@pytest.mark.parametrize("name", OSNETS)
def test_the_map_is_that_of_a_slow_network_with_the_same_weights(name):
    network = convert(OSNet(name, seed=0)).eval()
    state = drawn(network)
    network.load_state_dict(state)
    with torch.no_grad():
        found = network(images().contiguous(memory_format=torch.channels_last))
        expected = slow.feature_map({key: tensor.double() for key, tensor in state.items()}, images().double())
    assert found.shape == (2, network.width, 6, 4)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_before_its_neck_a_feature_is_the_512_numbers_of_the_fully_connected_layer():
    embedder = build_embedder(
        backbone="osnet_x0_25", pooling="avg", num_parts=0, part_pooling="gap", seed=0, embedding_layer="keep"
    ).eval()
    state = drawn(embedder)
    state |= {key: tensor for key, tensor in embedder.state_dict().items() if key.startswith("necks.")}
    embedder.load_state_dict(state)
    theirs = {key.removeprefix("backbone."): tensor.double() for key, tensor in state.items()}
    theirs |= {f"fc.{key[13:]}": tensor for key, tensor in theirs.items() if key.startswith("embeddings.0.")}
    with torch.no_grad():
        found = embedder(images())
    expected = slow.embedding(theirs, images().double())
    assert expected.shape == (2, 512) == found.necks_BSD[:, 0].shape
    torch.testing.assert_close(found.necks_BSD[:, 0].double(), expected, rtol=1e-4, atol=1e-4)  # the neck's eps


def test_every_space_has_an_embedding_layer_of_its_own_that_begins_alike():
    embedder = build_embedder(
        backbone="osnet_x0_25", pooling="avg", num_parts=3, part_pooling="gap", seed=4, embedding_layer="keep"
    )
    first, *others = (layer[0].weight for layer in embedder.embeddings)
    assert len(others) == 3
    assert all(torch.equal(first, other) and first is not other for other in others)
    found = embedder.train()(images())
    assert found.features_BSD.shape == (2, 4, 512)
    assert embedder.width == 512
    assert take_statistics(embedder).isfinite().all()  # every norm ran once
    found.features_BSD[:, 2].sum().backward()
    moved = [bool(layer[0].weight.grad.any()) for layer in embedder.embeddings]
    assert moved == [False, False, True, False]


def test_blocks_behind_a_stage_are_called_with_its_map():
    seen = {}

    class Noted(torch.nn.Module):
        def __init__(self, number):
            super().__init__()
            self.number = number

        def forward(self, map_BDHW):
            seen[self.number] = tuple(map_BDHW.shape)
            return map_BDHW

    for name in ("osnet_x0_25", "osnet_ain_x1_0"):
        network = OSNet(name, seed=0).eval()
        with torch.no_grad():
            network(images(), {number: Noted(number) for number in (1, 2, 3, 4)})
        assert [seen[number][1] for number in (1, 2, 3, 4)] == list(network.stage_widths)
        assert [seen[number][2] for number in (1, 2, 3, 4)] == [12, 6, 6, 6]


def test_a_trunk_without_such_a_layer_is_refused_to_keep_one():
    with pytest.raises(ValueError, match="embedding_layer=keep needs a trunk whose checkpoints have such a layer"):
        build_embedder(backbone="small", pooling="avg", num_parts=0, part_pooling="gap", seed=0, embedding_layer="keep")


def test_an_unknown_osnet_is_refused():
    with pytest.raises(ValueError, match=r"must be one of osnet_x0_25, .*; got 'osnet_x2_0'"):
        OSNet("osnet_x2_0", seed=0)
