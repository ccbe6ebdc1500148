"""From images to unit-length features: trunk, global pooling, part classifier, embedding layers, batch-norm necks.

Space 0 is the whole image, spaces 1..L are the parts (the background last). Each space has its own neck, a batch norm
whose bias stays 0 (BNNeck, Luo et al., 2019, arXiv:1903.07071); losses and retrieval use what leaves the neck, at unit
length. An embedding layer (fully connected, batch norm, ReLU) stands before each neck where the checkpoints of a trunk
have one and it is kept: OSNet's (Zhou et al., 2019, arXiv:1905.00953) makes 512 numbers.
"""


# B = batch, T = frames of a tracklet, D = feature width, L = parts, P = stripes, S = spaces (1 + L),
# H, W = cells of the map

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidray.features.clip_resnet import CLIP_RESNETS, ClipResNet
from reidray.features.grid import CellGrid
from reidray.features.group_norm import convert
from reidray.features.osnet import EMBEDDING, OSNETS, OSNet
from reidray.features.pooling import build_pooling
from reidray.features.resnet import ResNet
from reidray.features.resnet_ibn import ResNetIBN
from reidray.features.small import SmallNet

PART_POOLINGS = ("gap", "masked")
_PART_SEED = 0x70617274  # the part classifier draws from another stream than the trunk
_EMBEDDING_SEED = 0x66756C6C


class Backbone(Protocol):
    """What the embedder needs of a trunk besides calling it with images_B3HW for map_BDHW."""

    name: str
    width: int
    grid: CellGrid


class Pooled(NamedTuple):
    """What is known of images before they become features; float32 whatever the trunk computes in."""

    global_BD: Tensor
    parts_BLD: Tensor | None
    visibility_BL: Tensor | None  # largest value of each mask, to float16's precision
    map_BDHW: Tensor
    part_logits_BLHW: Tensor | None
    masks_BLHW: Tensor | None  # sum to 1 over L in every cell


class Features(NamedTuple):
    """What the network says of a batch; of tracklets the maps are those of all frames, or None."""

    map_BDHW: Tensor | None
    necks_BSD: Tensor  # before unit length
    features_BSD: Tensor  # unit length
    part_logits_BLHW: Tensor | None
    masks_BLHW: Tensor | None  # sum to 1 over L in every cell
    visibility_BL: Tensor | None = None  # the largest value of each part's mask; of tracklets the mean over frames


def part_features(map_BDHW: Tensor, masks_BLHW: Tensor, *, part_pooling: str) -> Tensor:
    """A feature per part: the map seen through the part's soft mask. SCWM eq. 1.

    Args:
      map_BDHW: feature map F.
      masks_BLHW: P_k, in [0, 1].
      part_pooling: "gap": mean over all cells of P_k * F, as printed, so a small part has a short feature;
        "masked": divided by the sum of P_k instead, the mean of F over the part.

    Returns:
      parts_BLD.
    """
    assert part_pooling in PART_POOLINGS, part_pooling
    sums_BLD = masks_BLHW.flatten(2) @ map_BDHW.flatten(2).transpose(1, 2)
    if part_pooling == "gap":
        return sums_BLD / (map_BDHW.shape[2] * map_BDHW.shape[3])
    return sums_BLD / masks_BLHW.sum(dim=(2, 3)).clamp(min=1e-6).unsqueeze(2)


def stripe_features(map_BDHW: Tensor, num_stripes: int) -> Tensor:
    """A feature per horizontal stripe: the mean over its cells. The parts of PPLR (Cho et al., 2022, arXiv:2203.14675).

    Stripe p of P has the rows from floor(p H / P) up to, not including, ceil((p + 1) H / P): equally high where H is a
    multiple of P, else some share a row with the next. PyTorch's adaptive_avg_pool2d gives the same, but its backward
    pass on a GPU does not always add up in the same order.

    Args:
      map_BDHW: feature map F.
      num_stripes: P >= 1.

    Returns:
      stripes_BPD, from the top.
    """
    assert num_stripes >= 1, num_stripes
    height = map_BDHW.shape[2]
    bounds = [(p * height // num_stripes, -(-(p + 1) * height // num_stripes)) for p in range(num_stripes)]
    return torch.stack([map_BDHW[:, :, first:end].mean(dim=(2, 3)) for first, end in bounds], dim=1)


class Network(nn.Module, ABC):
    """What a method trains: a batch -> a NamedTuple of tensors with B as their first axis, or None.

    A batch is images_B3HW, or tracklets_BT3HW. It is done in two steps, so that tracklets of any length fit: `pool`
    takes images to vectors, a tracklet has the means over those of its frames, and `finish` takes vectors to outputs.

    Attributes:
      averaged: how many of the first tensors that `pool` gives a tracklet has the means of; the others stay of frames.
      name: of the trunk, by which start weights are found.
      width: of a feature.
      grid: where the cells of that map lie in the image.
    """

    name: str
    width: int
    grid: CellGrid
    averaged: int = 1

    @abstractmethod
    def pool(self, images_B3HW: Tensor) -> Any:
        """A tuple that begins with float32 vectors, B as the first axis of its tensors."""

    @abstractmethod
    def finish(self, means: Sequence[Tensor], pooled: Any = None) -> Any:
        """Outputs of a batch.

        Args:
          means: the first tensors of `pool`, those of tracklets averaged over frames.
          pooled: what `pool` gave of all of the images; None where that was not kept.
        """

    def forward(self, batch: Tensor) -> Any:
        if batch.ndim == 4:
            pooled = self.pool(batch)
            return self.finish(pooled[: self.averaged], pooled)
        pooled = self.pool(batch.flatten(0, 1))
        means = [rows.unflatten(0, batch.shape[:2]).mean(1) for rows in pooled[: self.averaged]]
        return self.finish(means, pooled)


class Embedder(Network):
    """images_B3HW -> Features; of tracklets, the mean over frames is taken before the necks.

    Args:
      backbone: a trunk with name, width and grid (SmallNet, ResNet, OSNet).
      pooling: of the global feature, a key of POOLINGS.
      num_parts: L, the background counted; 0 for none, else >= 2.
      num_stripes: parts that are horizontal stripes instead; 0 for none.
      part_pooling: "gap" or "masked", see `part_features`.
      embedding_layer: "keep": the layer that the trunk's checkpoints have behind the pooling, one for each space;
        "drop": none.
      seed: of the start weights behind the trunk; the global state of PyTorch's generator is neither used nor changed.

    Raises:
      ValueError: unknown pooling, a number of parts that makes no sense, or a trunk without an embedding layer.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        pooling: str,
        num_parts: int,
        part_pooling: str,
        seed: int,
        num_stripes: int = 0,
        embedding_layer: str = "drop",
    ) -> None:
        super().__init__()
        assert not (num_parts and num_stripes), "parts are masks or stripes"
        if num_parts < 0 or num_parts == 1:
            raise ValueError(f"the number of parts must be 0 (none) or at least 2 with the background; got {num_parts}")
        if part_pooling not in PART_POOLINGS:
            raise ValueError(f"model.part_pooling must be one of {', '.join(PART_POOLINGS)}; got {part_pooling!r}")
        trunk = cast(Backbone, backbone)
        self.grid, self.name = trunk.grid, trunk.name
        self.num_parts, self.num_stripes, self.part_pooling = num_parts, num_stripes, part_pooling
        self.backbone = backbone
        self.pooling = build_pooling(pooling)
        spaces = 1 + num_parts + num_stripes
        self.embeddings = _embedding_layers(trunk, spaces, seed=seed) if embedding_layer == "keep" else None
        self.width = trunk.width if self.embeddings is None else EMBEDDING
        self.necks = nn.ModuleList(nn.BatchNorm1d(self.width) for _ in range(spaces))
        for neck in self.necks:
            cast(nn.BatchNorm1d, neck).bias.requires_grad_(False)
        self.part_classifier: nn.Conv2d | None = None
        self.averaged = 3 if num_parts else 2 if num_stripes else 1
        if num_parts:
            with torch.random.fork_rng(devices=[]):
                self.part_classifier = nn.Conv2d(trunk.width, num_parts, 3, padding=1)
            generator = torch.Generator().manual_seed(seed ^ _PART_SEED)
            nn.init.normal_(self.part_classifier.weight, std=0.01, generator=generator)
            nn.init.zeros_(cast(Tensor, self.part_classifier.bias))

    def pool(self, images_B3HW: Tensor) -> Pooled:
        map_BDHW = self.backbone(images_B3HW.contiguous(memory_format=torch.channels_last))
        with torch.autocast(map_BDHW.device.type, enabled=False):
            map_BDHW = map_BDHW.float()
            global_BD = self.pooling(map_BDHW)
            parts_BLD = logits_BLHW = masks_BLHW = visibility_BL = None
            if self.part_classifier is not None:
                logits_BLHW = self.part_classifier(map_BDHW)
                masks_BLHW = logits_BLHW.softmax(dim=1)
                visibility_BL = masks_BLHW.detach().half().amax(dim=(2, 3)).float()
                parts_BLD = part_features(map_BDHW, masks_BLHW, part_pooling=self.part_pooling)
            if self.num_stripes:
                parts_BLD = stripe_features(map_BDHW, self.num_stripes)
            return Pooled(global_BD, parts_BLD, visibility_BL, map_BDHW, logits_BLHW, masks_BLHW)

    def finish(self, means: Sequence[Tensor], pooled: Pooled | None = None) -> Features:
        vectors = [means[0], *(means[1].unbind(1) if len(means) > 1 else ())]
        visibility_BL = means[2] if len(means) > 2 else None
        with torch.autocast(means[0].device.type, enabled=False):
            if self.embeddings is not None:
                vectors = [layer(vectors_BD) for layer, vectors_BD in zip(self.embeddings, vectors, strict=True)]
            necks_BSD = torch.stack(
                [neck(vectors_BD) for neck, vectors_BD in zip(self.necks, vectors, strict=True)], dim=1
            )
            maps = (None, None, None) if pooled is None else pooled[3:]
            return Features(maps[0], necks_BSD, F.normalize(necks_BSD, dim=2), *maps[1:], visibility_BL)


def _embedding_layers(trunk: Backbone, spaces: int, *, seed: int) -> nn.ModuleList:
    """A fully connected layer with a batch norm and a ReLU for each space; weights from N(0, 0.01^2), equal in all."""
    if trunk.name not in OSNETS:
        raise ValueError(
            f"model.embedding_layer=keep needs a trunk whose checkpoints have such a layer (osnet_...), not "
            f"model.backbone={trunk.name}: set model.embedding_layer=drop"
        )
    with torch.random.fork_rng(devices=[]):
        layers = [
            nn.Sequential(nn.Linear(trunk.width, EMBEDDING), nn.BatchNorm1d(EMBEDDING), nn.ReLU())
            for _ in range(spaces)
        ]
    for layer in layers:
        linear = cast(nn.Linear, layer[0])
        generator = torch.Generator().manual_seed(seed ^ _EMBEDDING_SEED)
        nn.init.normal_(linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(linear.bias)
    return nn.ModuleList(layers)


def _named(kind: type[ClipResNet] | type[OSNet], name: str, seed: int) -> nn.Module:
    return kind(name, seed=seed)


BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    "small": lambda seed: SmallNet(seed=seed),
    "resnet18": lambda seed: ResNet("resnet18", seed=seed),
    "resnet50": lambda seed: ResNet("resnet50", seed=seed),
    "resnet50_ibn_a": lambda seed: ResNetIBN(seed=seed),
    **{name: partial(_named, ClipResNet, name) for name in CLIP_RESNETS},
    **{name: partial(_named, OSNet, name) for name in OSNETS},
}


def build_trunk(name: str, seed: int) -> nn.Module:
    """The trunk of that name on the CPU: a key of BACKBONES, or "timm:" and a name that timm knows.

    Raises:
      ValueError: an unknown name, or a model of timm that cannot be a trunk.
    """
    if name.startswith("timm:"):
        from reidray.features.timm_trunk import TimmTrunk  # timm is an extra

        return TimmTrunk(name, seed=seed)
    if name not in BACKBONES:
        raise ValueError(f"model.backbone must be one of {', '.join(BACKBONES)} or timm:NAME; got {name!r}")
    return BACKBONES[name](seed)


def build_embedder(
    *,
    backbone: str,
    pooling: str,
    num_parts: int,
    part_pooling: str,
    seed: int,
    num_stripes: int = 0,
    embedding_layer: str = "drop",
) -> Embedder:
    """A network ready for the engine: batch norms over BN groups, weights in channels-last order, on the CPU.

    Args:
      backbone: a name that `build_trunk` knows.
      pooling: a key of POOLINGS.
      num_parts: L, the background counted; 0 for methods without parts.
      part_pooling: "gap" or "masked".
      num_stripes: parts that are horizontal stripes instead of masks; 0 for none.
      embedding_layer: "keep" or "drop", see `Embedder`.
      seed: >= 0; equal seeds give equal weights, whatever was drawn before.

    Raises:
      ValueError: an unknown name, a senseless number of parts, or an embedding layer that the trunk does not have.
    """
    embedder = Embedder(
        build_trunk(backbone, seed),
        pooling=pooling,
        num_parts=num_parts,
        part_pooling=part_pooling,
        seed=seed,
        num_stripes=num_stripes,
        embedding_layer=embedding_layer,
    )
    convert(embedder)
    return embedder.to(memory_format=torch.channels_last)
