"""A trunk whose pooled feature is compared, and an embedding of it that is trained: BUC and IHC.

BUC (Lin et al., 2019) and IHC train a fully connected layer behind the pooling, and merge and rank by what comes before
it. IHC adds non-local blocks and maximum pooling.
"""

# B = batch, D = width of the trunk, P = of the pooled feature, E = of the embedding, H, W = cells of the map

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidray.features.dropout import KeyedDropout
from reidray.features.embedder import Network, build_trunk
from reidray.features.grid import CellGrid
from reidray.features.group_norm import convert
from reidray.features.non_local import NonLocalBlock
from reidray.features.pooling import build_pooling

_SEED = 0x656D6265  # layers behind the trunk draw from another stream than the trunk
_NON_LOCAL = (2, 3)  # stages of the trunk behind which the blocks stand


class Embedded(NamedTuple):
    """What the network says of a batch; one vector each."""

    features_B1P: Tensor  # pooled, unit length: what is merged and ranked
    embeddings_B1E: Tensor  # unit length, then dropout: what is trained


class StagedTrunk(Protocol):
    """A trunk into whose stages blocks can be put."""

    name: str
    width: int
    grid: CellGrid
    stage_widths: tuple[int, ...]

    def __call__(self, images_B3HW: Tensor, after: Mapping[int, nn.Module]) -> Tensor: ...


class EmbeddingNetwork(Network):
    """images_B3HW -> Embedded; of tracklets, the mean over frames is taken before the fully connected layer.

    Args:
      backbone: a trunk (SmallNet, ResNet, OSNet).
      poolings: names of poolings whose results stand side by side.
      embedding: E.
      dropout: share of an embedding's numbers that a training step leaves out.
      non_local: "norm": a non-local block with a batch norm stands behind the second and the third stage; "plain": one
        without; "none".
      seed: of the new layers; PyTorch's own generator is neither used nor changed.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        poolings: tuple[str, ...],
        embedding: int,
        dropout: float,
        non_local: str,
        seed: int,
    ) -> None:
        super().__init__()
        trunk = cast(StagedTrunk, backbone)
        if non_local != "none" and not trunk.stage_widths:
            raise ValueError(
                f"non-local blocks stand behind stages, which model.backbone={trunk.name} does not show: take another "
                f"trunk, or set ihc.non_local=none"
            )
        self.width, self.grid, self.name = trunk.width, trunk.grid, trunk.name
        self.backbone = backbone
        generator = torch.Generator().manual_seed(seed ^ _SEED)
        self.non_local = nn.ModuleDict(
            {
                str(stage): NonLocalBlock(trunk.stage_widths[stage - 1], generator, norm=non_local == "norm")
                for stage in _NON_LOCAL
            }
            if non_local != "none"
            else {}
        )
        self.poolings = nn.ModuleList(build_pooling(name) for name in poolings)
        with torch.random.fork_rng(devices=[]):
            self.embed = nn.Linear(len(poolings) * self.width, embedding)
        nn.init.kaiming_normal_(self.embed.weight, mode="fan_out", generator=generator)
        nn.init.zeros_(self.embed.bias)
        self.norm = nn.BatchNorm1d(embedding)
        self.dropout = KeyedDropout(dropout)

    def pool(self, images_B3HW: Tensor) -> tuple[Tensor]:
        blocks = {int(stage): block for stage, block in self.non_local.items()}
        trunk = cast(StagedTrunk, self.backbone)
        map_BDHW = trunk(images_B3HW.contiguous(memory_format=torch.channels_last), blocks)
        with torch.autocast(map_BDHW.device.type, enabled=False):
            map_BDHW = map_BDHW.float()
            return (torch.cat([pooling(map_BDHW) for pooling in self.poolings], dim=1),)

    def finish(self, means: Sequence[Tensor], pooled: tuple[Tensor] | None = None) -> Embedded:  # noqa: ARG002
        vectors = means[0]
        with torch.autocast(vectors.device.type, enabled=False):
            embedded_BE = self.dropout(F.normalize(self.norm(self.embed(vectors)), dim=1))
            return Embedded(F.normalize(vectors, dim=1).unsqueeze(1), embedded_BE.unsqueeze(1))


def build_embedding_network(
    *, backbone: str, poolings: tuple[str, ...], embedding: int, dropout: float, non_local: str, seed: int
) -> EmbeddingNetwork:
    """A network ready for the engine: batch norms over BN groups, weights in channels-last order, on the CPU."""
    network = EmbeddingNetwork(
        build_trunk(backbone, seed),
        poolings=poolings,
        embedding=embedding,
        dropout=dropout,
        non_local=non_local,
        seed=seed,
    )
    convert(network)
    return network.to(memory_format=torch.channels_last)
