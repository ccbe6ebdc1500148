"""From pixels to features.

A trunk (a small aligned network for CPUs, torchvision's ResNets with a stride-1 last stage, an OSNet) makes a map of
cells; a pooling and, for part methods, a part classifier turn it into one vector per space; a batch-norm neck and unit
length follow. `grid` knows which pixel a cell is centred on; `group_norm` takes batch statistics over groups of images
that do not depend on the number of workers. Nothing here reads a disk: `reidray.storage.weights` loads start weights.
"""

from reidray.features.embedder import (
    BACKBONES,
    Embedder,
    Features,
    Network,
    build_embedder,
    part_features,
    stripe_features,
)
from reidray.features.embedding import build_embedding_network
from reidray.features.grid import CellGrid
from reidray.features.group_norm import (
    GroupBatchNorm1d,
    GroupBatchNorm2d,
    apply_statistics,
    convert,
    recorded_layers,
    set_statistics,
    statistics_size,
    take_statistics,
)
from reidray.features.osnet import OSNet
from reidray.features.pooling import POOLINGS, build_pooling
from reidray.features.resnet import ResNet
from reidray.features.small import SmallNet

__all__ = [
    "BACKBONES",
    "POOLINGS",
    "CellGrid",
    "Embedder",
    "Features",
    "GroupBatchNorm1d",
    "GroupBatchNorm2d",
    "Network",
    "OSNet",
    "ResNet",
    "SmallNet",
    "apply_statistics",
    "build_embedder",
    "build_embedding_network",
    "build_pooling",
    "convert",
    "part_features",
    "recorded_layers",
    "set_statistics",
    "statistics_size",
    "stripe_features",
    "take_statistics",
]
