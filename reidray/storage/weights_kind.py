"""Which network a checkpoint is of, from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from reidray.features.embedder import BACKBONES
from reidray.features.osnet import OSNETS

_BLOCKS = {  # numbers of blocks of the four stages, whether blocks have a third convolution
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
_WORDS = {
    "resnet18": "a ResNet-18",
    "resnet34": "a ResNet-34",
    "resnet50": "a ResNet-50",
    "resnet50_ibn_a": "a ResNet-50-IBN-a",
    "resnet50_ibn_b": "a ResNet-50-IBN-b",
    "plip_resnet50": "PLIP's ResNet-50",
    "clip_resnet50": "CLIP's ResNet-50",
    "resnet101": "a ResNet-101",
    "resnet152": "a ResNet-152",
    "osnet": "an OSNet (torchreid)",
    **{name: f"torchreid's {name}" for name in OSNETS},
    "vit": "a vision transformer (ViT)",
    "swin": "a Swin transformer",
    "clip": "a CLIP transformer",
    "mobilenet": "a MobileNet",
    "densenet": "a DenseNet",
    "efficientnet": "an EfficientNet",
    "hrnet": "an HRNet",
    "convnext": "a ConvNeXt",
    "small": "reidray's small network",
}
_SIGNS = (  # in this order: the first one that a key shows
    ("osnet", r"(^|\.)conv[2-4]\.\d+\.(\d+\.)?conv2[a-d]\.|(^|\.)conv2\.0\.conv2\.\d\."),
    ("clip", r"(^|\.)transformer\.resblocks\.\d+\.attn\."),
    ("swin", r"(^|\.)layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table"),
    ("vit", r"(^|\.)(blocks\.\d+\.attn\.qkv|encoder\.layers?\.(encoder_layer_)?\d+\.(self_attention|attention))\."),
    ("convnext", r"(^|\.)stages\.\d+\.(blocks\.)?\d+\.(dwconv|conv_dw|gamma)"),
    ("hrnet", r"(^|\.)stage2\.0\.branches\."),
    ("densenet", r"(^|\.)features\.denseblock1\."),
    ("efficientnet", r"(^|\.)_blocks\.\d+\._(depthwise_conv|expand_conv)|(^|\.)blocks\.\d+\.\d+\.conv_dw\."),
    ("mobilenet", r"(^|\.)features\.\d+\.(conv|block)\.\d+\."),
    ("small", r"(^|\.)stages\.\d+\.(conv1|norm1)\."),
)
_LISTED, _INSTANCE = re.compile(r"(^|\.)conv2\.0\.conv2\.\d\."), re.compile(r"(^|\.)conv2\.0\.IN\.")
_STEM = re.compile(r"(^|\.)conv1\.conv\.weight$")
_STAGE = re.compile(r"(?:^|\.)layer([1-4])\.(\d+)\.(\w+)")


def kind_of(tensors: Mapping[str, Tensor]) -> str | None:
    """The network that these tensors are of, by a name of `model.backbone` or one of that kind; None: unknown."""
    stages: dict[int, set[int]] = {}
    has_third = False
    for key in tensors:
        found = _STAGE.search(key)
        if found:
            stages.setdefault(int(found[1]), set()).add(int(found[2]))
            has_third |= found[3] == "conv3"
    if len(stages) == 4:
        one, two, three, four = (len(stages[stage]) for stage in (1, 2, 3, 4))
        kind = _BLOCKS.get(((one, two, three, four), has_third))
        return _resnet50_kind(tensors) if kind == "resnet50" else kind
    for name, sign in _SIGNS:
        if any(re.search(sign, key) for key in tensors):
            return _osnet_kind(tensors) if name == "osnet" else name
    return None


def _resnet50_kind(tensors: Mapping[str, Tensor]) -> str:
    """Which of the networks with a ResNet-50's blocks it is, by what stands before, in and behind them."""
    found = (
        ("resnet50_ibn_a", r"(^|\.)layer1\.\d+\.bn1\.IN\."),
        ("resnet50_ibn_b", r"(^|\.)layer1\.\d+\.IN\."),
        ("clip_resnet50", r"(^|\.)attnpool\."),
        ("plip_resnet50", r"^((?!layer\d).)*conv3\.weight$"),
    )
    return next((name for name, sign in found if any(re.search(sign, key) for key in tensors)), "resnet50")


def _osnet_kind(tensors: Mapping[str, Tensor]) -> str:
    """Which OSNet it is, by its stem's channels and its instance norms."""
    if any(_LISTED.search(key) for key in tensors):
        kind = "ain_"
    else:
        kind = "ibn_" if any(_INSTANCE.search(key) for key in tensors) else ""
    widths = {16: "x0_25", 32: "x0_5", 48: "x0_75", 64: "x1_0"}
    stem = next((len(tensor) for key, tensor in tensors.items() if _STEM.search(key) and tensor.ndim), 0)
    name = f"osnet_{kind}{widths.get(stem)}"
    return name if name in OSNETS else "osnet"


def advice(tensors: Mapping[str, Tensor], backbone: str) -> str:
    """The end of a sentence about weights that do not fit `model.backbone`."""
    kind = kind_of(tensors)
    if kind is None or kind == backbone:
        return f"is this a checkpoint of another architecture than {backbone}?"
    known = f"set model.backbone={kind}"
    if kind not in BACKBONES:
        known = f"model.backbone can be {', '.join(BACKBONES)} or timm:NAME"
    return f"its keys are those of {_WORDS[kind]} and model.backbone={backbone}: {known}"
