import argparse
import os
import tarfile
import zipfile

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
    of_resnet = r"its keys are those of a ResNet-18 and model\.backbone=small: set model\.backbone=resnet18$"
    refused(small(), torchvision_state, tmp_path, r"none of its keys \(conv1\.weight, .*" + of_resnet)
    of_small = r"its keys are those of reidray's small network and model\.backbone=resnet18: set model\.backbone=small$"
    refused(network, small().state_dict(), tmp_path, of_small)
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


def test_early_weights_are_another_file_of_the_package_with_every_tensor_of_the_trunk():
    late, early = small(), small()
    assert load_weights(late, "shipped").origin == "shipped small.safetensors"
    report = load_weights(early, "shipped_early")
    assert report.origin == "shipped small_early.safetensors"
    assert not [name for name in report.missing if name.startswith("backbone")]
    assert weights_hash(early.state_dict()) != weights_hash(late.state_dict())
    with pytest.raises(ValueError, match=r"shipped weights fit model\.backbone=small, not resnet18"):
        load_weights(resnet18(), "shipped_early")


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


# ---- files as people have them


@pytest.mark.parametrize("name", ["model.pth.tar-60", "model.bin", "model.ckpt", "model", "model.onnx"])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_a_file_is_read_by_what_is_in_it_whatever_its_ending(form, name, tmp_path, torchvision_state):
    path = tmp_path / name
    if form == "safetensors":
        save_file(torchvision_state, path)
    else:
        torch.save({"state_dict": torchvision_state}, path, _use_new_zipfile_serialization=form == "zip")
    network = resnet18()
    assert load_weights(network, path).loaded == TRUNK
    assert torch.equal(network.backbone.conv1.weight, torchvision_state["conv1.weight"])


PREFIXED = [
    ("base_encoder.", "torchvision, prefix base_encoder.", ""),
    ("encoder.", "torchvision, prefix encoder.", "state_dict"),
    ("backbone.model.", "torchvision, prefix backbone.model.", "model"),
    ("module.base_encoder.", "torchvision, prefix base_encoder.", "state_dict"),
    ("model.", "torchvision, prefix model.", "teacher"),
    ("model.encoder.", "torchvision, prefix model.encoder.", "model_state_dict"),
    ("_orig_mod.", "torchvision, without _orig_mod.", ""),
    ("module._orig_mod.", "torchvision, without _orig_mod.", "model"),
    ("_orig_mod.module.model.", "torchvision, without _orig_mod., prefix model.", "state_dict"),
    ("backbone._orig_mod.", "openunreid, without _orig_mod.", ""),
]


@pytest.mark.parametrize(("prefix", "rule", "section"), PREFIXED)
def test_prefixes_of_toolkits_and_wrappers_are_known_and_told(section, prefix, rule, tmp_path, torchvision_state):
    trunk = {key: value for key, value in torchvision_state.items() if not key.startswith("fc.")}
    state = prefixed(prefix, trunk)
    torch.save({section: state, "epoch": 3} if section else state, tmp_path / "a.pth")
    network = resnet18()
    report = load_weights(network, tmp_path / "a.pth")
    assert (report.loaded, report.unexpected) == (TRUNK, [])
    assert report.rule == rule + (f", section {section}" if section else "")
    assert torch.equal(network.backbone.layer4[1].conv2.weight, torchvision_state["layer4.1.conv2.weight"])


def test_a_network_of_ours_that_torch_compile_wrapped_comes_back_whole(tmp_path):
    state = prefixed("_orig_mod.", small(seed=1, num_parts=2).state_dict())
    torch.save(state, tmp_path / "a.pth")
    network = small(seed=2, num_parts=2)
    report = load_weights(network, tmp_path / "a.pth")
    assert (report.missing, report.unexpected, report.rule) == ([], [], "reidray, without _orig_mod.")
    assert weights_hash(network.state_dict()) == weights_hash(small(seed=1, num_parts=2).state_dict())


NOT_CHECKPOINTS = {
    "a page": (b"\n<!DOCTYPE html>\n<html><body>Virus scan warning</body></html>", "is a web page (HTML)"),
    "a page in XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page (HTML)"),
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 97800000\n",
        "is a Git LFS pointer, not the file; get the file with git lfs pull",
    ),
    "gzip": (b"\x1f\x8b\x08\x00 and so on", "is a gzip archive; unpack it"),
    "HDF5": (b"\x89HDF\r\n\x1a\n and so on", "is an HDF5 file, as Keras writes"),
    "nothing": (b"", "is empty; download it again"),
    "noise": (bytes(range(1, 256)), "its 255 bytes are neither safetensors nor one of PyTorch's two formats"),
}


@pytest.mark.parametrize("kind", NOT_CHECKPOINTS)
def test_what_is_no_checkpoint_is_named_in_one_sentence(kind, tmp_path):
    data, sentence = NOT_CHECKPOINTS[kind]
    (tmp_path / "resnet50.pth").write_bytes(data)
    with pytest.raises(ValueError, match="could not be read as a checkpoint: ") as refusal:
        load_weights(small(), tmp_path / "resnet50.pth")
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_archives_of_other_things_are_named(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(__file__, "model.py")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(__file__, "model.py")
    with pytest.raises(ValueError, match="is a tar archive; unpack it and give the checkpoint inside"):
        load_weights(small(), tmp_path / "a.tar")
    with pytest.raises(ValueError, match="is a zip archive of other files; unpack it and give the checkpoint inside"):
        load_weights(small(), tmp_path / "a.zip")


def our_sentence_alone(path, embedder) -> str:
    """What is said of a file; none of it is PyTorch's, and nothing in it is for a terminal to obey."""
    with pytest.raises(ValueError, match="which is never run") as refusal:
        load_weights(embedder, path)
    text = str(refusal.value)
    for theirs in ("weights_only", "Re-running", "add_safe_globals", "arbitrary", "GLOBAL", "WeightsUnpickler"):
        assert theirs not in text, theirs
    assert text.isprintable()
    assert len(text) < 400 + len(str(path))
    return text


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", [False, True])
def test_a_whole_pickled_model_is_refused_in_our_words_alone(inside, zipped, tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save({"model": model} if inside else model, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    text = our_sentence_alone(tmp_path / "a.pth", small())
    assert "holds a whole pickled model (torch.nn.modules.container.Sequential), not its weights" in text
    assert text.endswith("save its tensors alone: torch.save(model.state_dict(), 'weights.pth')")


def test_a_class_whose_name_would_be_obeyed_by_a_terminal_is_not_shown(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02cevil\x1b[31m\nboom\nq\x00.")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    assert "it asks for names that cannot be shown" in our_sentence_alone(tmp_path / "a.pth", small())


def test_a_program_is_refused_as_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:  # as torch.jit.save lays it out
        for name in ("a/data.pkl", "a/constants.pkl", "a/code/__torch__.py", "a/version"):
            archive.writestr(name, "")
    assert "is a TorchScript program" in our_sentence_alone(tmp_path / "a.pt", small())


def test_a_checkpoint_that_is_cut_short_is_called_so_whichever_its_format(tmp_path, torchvision_state):
    for zipped in (True, False):
        torch.save(torchvision_state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        data = (tmp_path / "a.pth").read_bytes()
        (tmp_path / "a.pth").write_bytes(data[: len(data) // 2])
        with pytest.raises(
            ValueError, match=r"could not be read as a PyTorch checkpoint: .*(cut short|damaged)"
        ) as said:
            load_weights(resnet18(), tmp_path / "a.pth")
        assert "PytorchStreamReader" not in str(said.value)


def osnet_keys(stem: int = 32) -> dict[str, torch.Tensor]:
    """Names of torchreid's OSNet, whose blocks have four streams of light 3x3 convolutions; a tensor each."""
    names = ["conv1.conv.weight", "conv1.bn.weight"]
    for stage in (2, 3, 4):
        for block in (0, 1):
            names += [f"conv{stage}.{block}.conv1.conv.weight", f"conv{stage}.{block}.conv2a.conv1.weight"]
            names += [f"conv{stage}.{block}.conv2{stream}.0.conv1.weight" for stream in "bcd"]
            names += [f"conv{stage}.{block}.gate.fc1.weight", f"conv{stage}.{block}.conv3.conv.weight"]
    names += ["conv5.conv.weight", "fc.0.weight", "fc.1.weight", "classifier.weight"]
    return {name: torch.zeros(2, 2) for name in names} | {"conv1.conv.weight": torch.zeros(stem, 3, 7, 7)}


VIT = {f"blocks.{n}.attn.qkv.weight": torch.zeros(2, 2) for n in range(12)} | {"cls_token": torch.zeros(1, 1, 2)}


def test_the_sentence_says_which_network_the_keys_are_of(tmp_path):
    with torch.random.fork_rng():
        deeper = torchvision.models.resnet50(weights=None).state_dict()
    choice = r"model\.backbone can be small, resnet18, resnet50"
    osnet = r"of torchreid's osnet_x0_5 and model\.backbone="
    for prefix, keys, backbone, sentence in (
        ("", osnet_keys(), small(), rf"{osnet}small: set model\.backbone=osnet_x0_5$"),
        ("module.", osnet_keys(), resnet18(), rf"{osnet}resnet18: set model\.backbone=osnet_x0_5$"),
        ("", osnet_keys(stem=20), small(), rf"of an OSNet \(torchreid\) and model\.backbone=small: {choice}"),
        ("model.", VIT, small(), rf"of a vision transformer \(ViT\) and model\.backbone=small: {choice}"),
        ("", deeper, small(), r"of a ResNet-50 and model\.backbone=small: set model\.backbone=resnet50"),
        ("module.", deeper, resnet18(), r"of a ResNet-50 and model\.backbone=resnet18: set model\.backbone=resnet50"),
    ):
        refused(backbone, {"state_dict": prefixed(prefix, keys)}, tmp_path, sentence)


def test_keys_that_a_terminal_would_obey_are_shown_escaped(tmp_path):
    torch.save({"\x1b[31mred": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="none of its keys") as said:
        load_weights(small(), tmp_path / "a.pth")
    assert str(said.value).isprintable()
