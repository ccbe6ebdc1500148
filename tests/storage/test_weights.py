import argparse
import os

import numpy as np
import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision import models

from reidray.features import Embedder, build_embedder
from reidray.storage import weights
from reidray.storage.weights import load_weights, save_weights, weights_hash


def resnet18(pooling: str = "avg", num_parts: int = 0, seed: int = 0) -> Embedder:
    return build_embedder(backbone="resnet18", pooling=pooling, num_parts=num_parts, part_pooling="gap", seed=seed)


def small(seed: int = 0, num_parts: int = 0) -> Embedder:
    return build_embedder(backbone="small", pooling="avg", num_parts=num_parts, part_pooling="gap", seed=seed)


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.resnet18(weights=None).state_dict()


TRUNK = 120  # tensors of ResNet-18 without its classifier
NECK = {"weight": torch.full((512,), 1.5), "bias": torch.zeros(512), "running_mean": torch.full((512,), 0.25)}
NECK |= {"running_var": torch.full((512,), 2.0), "num_batches_tracked": torch.tensor(7)}
STAGES_OF = {"cluster_contrast": 4, "mmt": 3}


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


def numbered(first_stage: int, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = {"conv1": "0", "bn1": "1", **{f"layer{n}": str(first_stage + n - 1) for n in range(1, 5)}}
    split = {key: key.split(".", 1) for key in state if not key.startswith("fc.")}
    return {f"base.{names[first]}.{rest}": state[key] for key, (first, rest) in split.items()}


def layout(name: str, state: dict[str, torch.Tensor]) -> tuple[object, set[str], str, bool]:
    """A checkpoint, the keys it must leave over, the rule that must be found, and whether it has a neck."""
    trunk = {key: value for key, value in state.items() if not key.startswith("fc.")}
    head = {"fc.weight": torch.zeros(128, 512), "fc.bias": torch.zeros(128)}
    mlp = {f"fc.{n}.weight": torch.zeros(128, 128) for n in (0, 2)}
    if name == "torchvision":
        return state, {"fc.weight", "fc.bias"}, "torchvision", False
    if name == "torchvision under DDP":
        return {"state_dict": prefixed("module.", trunk)}, set(), "torchvision, section state_dict", False
    if name == "LUPerson":
        return trunk | head, set(head), "torchvision", False
    if name == "MoCo":
        keys = prefixed("module.encoder_k.", trunk | mlp) | prefixed("module.encoder_q.", mlp)
        keys["module.queue"] = torch.zeros(128, 4)
        content = {
            "epoch": 200,
            "arch": "resnet18",
            "state_dict": prefixed("module.encoder_q.", trunk) | keys,
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.03}]},
        }
        return content, set(keys), "moco, section state_dict", False
    if name == "MoCo without DDP":
        return prefixed("encoder_q.", trunk | head), set(prefixed("encoder_q.", head)), "moco", False
    if name == "PLIP":
        text = {"text_encoder.embeddings.weight": torch.zeros(2, 2)}
        return {"model": prefixed("image_encoder.", trunk) | text}, set(text), "plip, section model", False
    if name == "PLIP image encoder alone":
        return {"ImgEncoder_state_dict": trunk}, set(), "torchvision, section ImgEncoder_state_dict", False
    if name == "CLIP-like":
        return prefixed("visual.", trunk), set(), "plip", False
    if name == "OpenUnReID":
        classifier = {"classifier.weight": torch.zeros(9, 512)}
        keys = prefixed("backbone.", trunk) | prefixed("head.feat_bn.", NECK) | classifier
        return {"state_dict": keys}, set(classifier), "openunreid, section state_dict", True
    if name == "OpenUnReID with a mean net":
        student = prefixed("net.", prefixed("backbone.", {key: value + 1 for key, value in trunk.items()}))
        keys = student | prefixed("mean_net.", prefixed("backbone.", trunk))
        rule = "openunreid, prefix mean_net., section state_dict"
        return {"state_dict": prefixed("module.", keys)}, set(prefixed("module.", student)), rule, False
    if name == "DINO":
        student = prefixed("module.backbone.", {key: value + 1 for key, value in trunk.items()})
        projector = {"head.mlp.0.weight": torch.zeros(4, 4)}
        content = {
            "student": student,
            "teacher": prefixed("backbone.", trunk) | projector,
            "args": argparse.Namespace(arch="resnet18"),
        }
        return content, set(projector), "openunreid, section teacher", False
    if name == "strong baseline":
        return prefixed("base.", trunk) | prefixed("bottleneck.", NECK), set(), "strong_baseline", True
    keys = prefixed("module.", numbered(STAGES_OF[name], state) | prefixed("feat_bn.", NECK))
    return {"state_dict": keys, "epoch": 3, "best_mAP": np.float64(0.8)}, set(), f"{name}, section state_dict", True


@pytest.mark.parametrize(
    "name",
    [
        "torchvision",
        "torchvision under DDP",
        "LUPerson",
        "MoCo",
        "MoCo without DDP",
        "PLIP",
        "PLIP image encoder alone",
        "CLIP-like",
        "OpenUnReID",
        "OpenUnReID with a mean net",
        "DINO",
        "strong baseline",
        "cluster_contrast",
        "mmt",
    ],
)
def test_every_known_layout_fills_the_trunk_and_lists_what_is_left(name, torchvision_state, tmp_path):
    content, left_over, rule, has_neck = layout(name, torchvision_state)
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(content, path)
    embedder = resnet18()
    report = load_weights(embedder, path)
    for key, value in torchvision_state.items():
        if not key.startswith("fc."):
            assert torch.equal(embedder.state_dict()[f"backbone.{key}"], value), key
    necks = {f"necks.0.{key}" for key in NECK}
    assert report.loaded == TRUNK + (len(NECK) if has_neck else 0)
    assert set(report.missing) == (set() if has_neck else necks)
    assert set(report.unexpected) == left_over
    assert (report.rule, report.origin) == (rule, str(path))
    if has_neck:
        assert torch.equal(embedder.state_dict()["necks.0.running_mean"], NECK["running_mean"])
    assert not embedder.necks[0].bias.requires_grad


def test_safetensors_of_torchvisions_names_are_read_too(torchvision_state, tmp_path):
    save_file(
        {key: value for key, value in torchvision_state.items() if key != "layer4.1.bn2.bias"},
        tmp_path / "a.safetensors",
    )
    report = load_weights(resnet18(num_parts=3), tmp_path / "a.safetensors")
    assert report.loaded == TRUNK - 1
    assert "backbone.layer4.1.bn2.bias" in report.missing
    assert {"part_classifier.weight", "part_classifier.bias", "necks.3.weight"} <= set(report.missing)
    assert report.unexpected == ["fc.bias", "fc.weight"]


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path):
    first, second = resnet18(pooling="gem", num_parts=3, seed=1), resnet18(pooling="gem", num_parts=3, seed=2)
    digest = save_weights(first, tmp_path / "w.safetensors", recipe={"epochs": 3}, seed=1)
    report = load_weights(second, tmp_path / "w.safetensors")
    assert (report.missing, report.unexpected, report.rule) == ([], [], "reidray")
    assert weights_hash(second.state_dict()) == weights_hash(first.state_dict()) == digest
    assert weights_hash(load_file(tmp_path / "w.safetensors")) == digest


def test_a_network_without_parts_gives_its_trunk_and_neck_to_one_with_parts(tmp_path):
    save_weights(small(seed=1), tmp_path / "w.safetensors", recipe={}, seed=1)
    embedder = small(seed=2, num_parts=2)
    report = load_weights(embedder, tmp_path / "w.safetensors")
    assert {name.split(".")[0] for name in report.missing} == {"necks", "part_classifier"}
    assert report.unexpected == []
    assert weights_hash(embedder.backbone.state_dict()) == weights_hash(small(seed=1).backbone.state_dict())


def test_the_recipe_seed_and_hash_are_in_the_file(tmp_path):
    digest = save_weights(small(), tmp_path / "w.safetensors", recipe={"b": 1, "a": [2, "c"]}, seed=5)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata() == {
            "recipe": '{"a": [2, "c"], "b": 1}',
            "seed": "5",
            "sha256": digest,
            "format": weights.FORMAT,
        }
    assert (tmp_path / "w.safetensors").stat().st_size < 2_950_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_equal_weights_give_equal_bytes(tmp_path):
    state = {"b": torch.ones(3), "a": torch.zeros(2, 2), "n": torch.tensor(1)}
    files = set()
    for _ in range(20):  # the library alone writes the metadata in ever changing order
        save_weights(state, tmp_path / "w.safetensors", recipe={"x": "ü"}, seed=1)
        files.add((tmp_path / "w.safetensors").read_bytes())
    assert len(files) == 1
    assert load_file(tmp_path / "w.safetensors").keys() == state.keys()


def test_the_hash_knows_names_types_shapes_and_values_but_not_strides():
    state = {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}
    digest = weights_hash(state)
    assert weights_hash({"n": torch.tensor(3), "a": state["a"].T.contiguous().T}) == digest
    for other in (
        {"b": state["a"], "n": state["n"]},
        {"a": state["a"].double(), "n": state["n"]},
        {"a": state["a"].reshape(3, 2), "n": state["n"]},
        {"a": state["a"] + 1, "n": state["n"]},
    ):
        assert weights_hash(other) != digest


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    save_weights({"a": torch.zeros(2)}, tmp_path / "w.safetensors", recipe={}, seed=0)
    before = (tmp_path / "w.safetensors").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights({"a": torch.ones(2)}, tmp_path / "w.safetensors", recipe={}, seed=0)
    assert (tmp_path / "w.safetensors").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(small(), path, recipe={}, seed=0)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="do not have the hash written inside"):
        load_weights(small(), path)
    path.write_bytes(data[:-100])
    with pytest.raises(ValueError, match="could not be read as safetensors"):
        load_weights(small(), path)


def refused(embedder: Embedder, content: object, tmp_path, match: str) -> None:
    before = weights_hash(embedder.state_dict())
    torch.save(content, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=match):
        load_weights(embedder, tmp_path / "checkpoint.pth")
    assert weights_hash(embedder.state_dict()) == before


def test_other_architectures_are_refused_and_nothing_is_loaded(torchvision_state, tmp_path):
    network = resnet18()
    another = r"is this a checkpoint of another architecture"
    wide = torchvision_state | {"conv1.weight": torch.zeros(32, 3, 3, 3)}  # as in PLIP's modified ResNet
    shapes = r"conv1\.weight should have the shape \(64, 3, 7, 7\) of backbone\.conv1\.weight but has \(32, 3, 3, 3\); "
    refused(network, wide, tmp_path, shapes + another)
    deeper = torchvision_state | prefixed(
        "layer1.2.", {"conv1.weight": torch.zeros(64, 64, 3, 3), "bn1.bias": torch.zeros(64)}
    )
    refused(network, deeper, tmp_path, r"layer1\.2\.conv1\.weight and \d+ more keys belong to layers .*" + another)
    refused(small(), torchvision_state, tmp_path, r"none of its keys \(conv1\.weight, .*" + another)
    refused(network, small().state_dict(), tmp_path, another)
    broken = torchvision_state | {"bn1.weight": torch.full((64,), float("nan"))}
    refused(network, broken, tmp_path, r"bn1\.weight holds values that are not finite")
    refused(network, {"epoch": 3}, tmp_path, "holds no tensors by name")
    refused(network, torch.zeros(3), tmp_path, "holds no tensors by name")


def test_other_shapes_can_be_left_out_when_asked(torchvision_state, tmp_path):
    torch.save(torchvision_state | {"conv1.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "a.pth")
    report = load_weights(resnet18(), tmp_path / "a.pth", strict_shapes=False)
    assert report.loaded == TRUNK - 1
    assert "backbone.conv1.weight" in report.missing
    assert "conv1.weight" in report.unexpected


class Code:
    """Unpickling this would run a command."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_holds_code_is_refused_unrun(torchvision_state, tmp_path):
    marker = tmp_path / "ran"
    refused(resnet18(), torchvision_state | {"x": Code(marker)}, tmp_path, "holds code, which is never run")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.safetensors"])
@pytest.mark.parametrize("data", [b"", b"hello, this is a text", b"PK\x03\x04 half a zip"])
def test_files_that_are_no_checkpoints_are_refused(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match="could not be read as"):
        load_weights(resnet18(), tmp_path / name)


def test_unknown_sources_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"must be shipped, imagenet, none or a checkpoint file; there is no file .*nowhere"
    ):
        load_weights(small(), tmp_path / "nowhere.pth")
    (tmp_path / "a.onnx").touch()
    with pytest.raises(ValueError, match=r"must be a \.safetensors, \.pth, \.pt or \.tar file; got .*a\.onnx"):
        load_weights(small(), tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=r"shipped weights fit model\.backbone=small, not resnet18"):
        load_weights(resnet18(), "shipped")
    with pytest.raises(ValueError, match=r"no ImageNet weights for model\.backbone=small"):
        load_weights(small(), "imagenet")


def test_none_keeps_the_start_values():
    embedder = small()
    before = weights_hash(embedder.state_dict())
    report = load_weights(embedder, "none")
    assert weights_hash(embedder.state_dict()) == before
    assert (report.loaded, report.origin) == (0, "none")
    assert report.missing == sorted(embedder.state_dict())


def test_shipped_weights_are_read_from_the_package_or_missed_with_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match=r"shipped weights .* are not there: reinstall reidray"):
        load_weights(small(), "shipped")
    save_weights(small(seed=4), tmp_path / "small.safetensors", recipe={}, seed=4)
    embedder = small()
    assert load_weights(embedder, "shipped").origin == "shipped small.safetensors"
    assert weights_hash(embedder.state_dict()) == weights_hash(small(seed=4).state_dict())


def test_imagenet_weights_are_torchvisions_and_without_a_network_there_is_advice(torchvision_state, monkeypatch):
    class Weights:
        url = "https://example.org/resnet18.pth"

        def get_state_dict(self, **options):
            if offline:
                raise OSError("no route to host")
            return torchvision_state

    monkeypatch.setattr(models, "get_weight", {"ResNet18_Weights.IMAGENET1K_V1": Weights()}.__getitem__)
    offline = True
    advice = (
        r"could not be downloaded \(no route to host\): fetch https://example.org/resnet18.pth on a connected machine"
    )
    with pytest.raises(ValueError, match=advice):
        load_weights(resnet18(), "imagenet")
    offline = False
    report = load_weights(resnet18(), "imagenet")
    assert (report.loaded, report.rule) == (TRUNK, "torchvision")
    assert report.origin == "torchvision ResNet18_Weights.IMAGENET1K_V1"


def test_the_recipe_is_json(tmp_path):
    with pytest.raises(TypeError):
        save_weights({"a": torch.zeros(1)}, tmp_path / "w", recipe={"x": object()}, seed=0)
    assert list(tmp_path.iterdir()) == []
