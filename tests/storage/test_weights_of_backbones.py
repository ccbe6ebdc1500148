"""Checkpoints of OSNet, IBN-Net, PLIP and timm: which keys go where, and what is said of those that go nowhere."""

import pytest
import torch

from reidray.features import Embedder, build_embedder
from reidray.storage.weights import load_weights


def embedder_of(name: str, *, num_parts: int = 0, embedding_layer: str = "drop", seed: int = 0) -> Embedder:
    return build_embedder(
        backbone=name,
        pooling="avg",
        num_parts=num_parts,
        part_pooling="gap",
        seed=seed,
        embedding_layer=embedding_layer,
    )


def checkpoint(name: str, prefix: str = "") -> dict[str, torch.Tensor]:
    """Keys of the authors: of OSNet with its fully connected layer and its classifier."""
    keep = "keep" if name.startswith("osnet") else "drop"
    state = embedder_of(name, embedding_layer=keep, seed=9).state_dict()
    theirs = {}
    for key, tensor in state.items():
        if key.startswith("backbone."):
            theirs[prefix + key.removeprefix("backbone.")] = tensor
        elif key.startswith("embeddings.0."):
            theirs[prefix + key.replace("embeddings.0.", "fc.")] = tensor + 1
    return theirs | {f"{prefix}classifier.weight": torch.zeros(9, 512), f"{prefix}classifier.bias": torch.zeros(9)}


@pytest.fixture
def saved(tmp_path):
    def save(content: object) -> str:
        torch.save(content, tmp_path / "weights.pth")
        return str(tmp_path / "weights.pth")

    return save


@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_key_of_an_osnet_is_told(saved, prefix):
    theirs = checkpoint("osnet_x0_25", prefix)
    embedder = embedder_of("osnet_x0_25", embedding_layer="keep")
    report = load_weights(embedder, saved({"state_dict": theirs}))
    assert report.rule == "torchreid, section state_dict"
    assert report.renamed == {f"{prefix}* -> backbone.*": 558, f"{prefix}fc.* -> embeddings.0.*": 7}
    assert report.loaded == 565
    assert report.unexpected == [f"{prefix}classifier.bias", f"{prefix}classifier.weight"]
    assert {name.split(".")[0] for name in report.missing} == {"necks"}
    found = embedder.state_dict()
    assert torch.equal(found["embeddings.0.0.weight"], theirs[f"{prefix}fc.0.weight"])
    assert torch.equal(found["backbone.conv5.conv.weight"], theirs[f"{prefix}conv5.conv.weight"])


def test_a_dropped_embedding_layer_is_left_over(saved):
    report = load_weights(embedder_of("osnet_x0_25"), saved(checkpoint("osnet_x0_25")))
    assert (report.loaded, report.copied, report.rule) == (558, 0, "torchreid")
    assert {key.split(".")[0] for key in report.unexpected} == {"fc", "classifier"}
    assert len(report.unexpected) == 9


def test_the_embedding_layers_of_parts_begin_with_the_weights_but_not_the_statistics(saved):
    theirs = checkpoint("osnet_x0_25")
    embedder = embedder_of("osnet_x0_25", num_parts=3, embedding_layer="keep")
    report = load_weights(embedder, saved(theirs))
    assert (report.loaded, report.copied) == (565, 3 * 4)
    state = embedder.state_dict()
    for part in (1, 2, 3):
        assert torch.equal(state[f"embeddings.{part}.0.weight"], theirs["fc.0.weight"])
        assert torch.equal(state[f"embeddings.{part}.1.bias"], theirs["fc.1.bias"])
        assert f"embeddings.{part}.1.running_mean" in report.missing
    assert "embeddings.0.1.running_mean" not in report.missing


@pytest.mark.parametrize(
    ("of", "into", "sentence"),
    [
        ("osnet_x0_25", "small", r"of torchreid's osnet_x0_25 and .*=small: set model.backbone=osnet_x0_25"),
        ("osnet_x0_5", "osnet_x0_25", r"of torchreid's osnet_x0_5 and .*set model.backbone=osnet_x0_5"),
        ("osnet_ibn_x1_0", "osnet_x1_0", "set model.backbone=osnet_ibn_x1_0"),
        ("osnet_x1_0", "osnet_ibn_x1_0", "set model.backbone=osnet_x1_0"),
        ("osnet_ain_x1_0", "osnet_x1_0", "set model.backbone=osnet_ain_x1_0"),
        ("osnet_x1_0", "osnet_ain_x1_0", "set model.backbone=osnet_x1_0"),
        ("resnet50_ibn_a", "small", "of a ResNet-50-IBN-a and model.backbone=small: set model.backbone=resnet50_ibn_a"),
        ("plip_resnet50", "small", "of PLIP's ResNet-50 and model.backbone=small: set model.backbone=plip_resnet50"),
    ],
)
def test_weights_of_another_network_say_which_one_to_set(saved, of, into, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_weights(embedder_of(into), saved(checkpoint(of)))


def test_ibn_nets_keys_fit_a_resnet50_ibn_a_alone(saved):
    theirs = checkpoint("resnet50_ibn_a")
    assert {"layer1.0.bn1.IN.weight", "layer3.5.bn1.BN.running_var", "layer4.0.bn1.weight"} <= set(theirs)
    path = saved({"state_dict": {f"module.{key}": tensor for key, tensor in theirs.items()}})
    report = load_weights(embedder_of("resnet50_ibn_a"), path)
    assert report.loaded == len(theirs) - 2
    with pytest.raises(ValueError, match=r"set model\.backbone=resnet50_ibn_a"):
        load_weights(embedder_of("resnet50"), path)


def test_plips_image_encoder_is_read_and_its_projection_is_left_over(saved):
    theirs = checkpoint("plip_resnet50")
    assert {"conv3.weight", "layer1.0.downsample.0.weight", "layer4.2.bn3.running_mean"} <= set(theirs)
    assert theirs["conv1.weight"].shape == (32, 3, 3, 3)
    encoder = {key: tensor for key, tensor in theirs.items() if not key.startswith("classifier")}
    projection = {"avg_proj.weight": torch.zeros(768, 2048), "avg_proj.bias": torch.zeros(768)}
    path = saved({"ImgEncoder_state_dict": encoder | projection, "TxtEncoder_state_dict": {"a.b": torch.zeros(2)}})
    report = load_weights(embedder_of("plip_resnet50"), path)
    assert report.loaded == len(encoder)
    assert report.unexpected == sorted(projection)
    with pytest.raises(ValueError, match=r"set model\.backbone=plip_resnet50"):
        load_weights(embedder_of("resnet50"), path)
