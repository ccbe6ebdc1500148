"""What the clustering stage of a method is written in: a search service, and what labelling leaves behind.

N = images, C = clusters, S = vectors of a feature, D = their width, K = neighbours, L = parts, A = attributes,
R = rows of a memory.

A method labels in a straight line (`Method.label`) over one `Search`. The engine has two of them: one holds all
features, the other shares the work out over labellers, block by block, and nobody holds all features. Both give the
same answers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from reidray.arrays import Array, Floats, Ints
from reidray.labelling import Criterion


@dataclass(frozen=True)
class Space:
    """What distances are measured in: a vector of a feature, or several side by side, brought to unit length.

    feature: its name, one of those that `Method.to_label` gives. vectors: which of its S vectors.
    """

    feature: str
    vectors: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class JaccardSettings:
    """k-reciprocal Jaccard distance (Zhong et al., 2017): see `reidray.neighbours.jaccard_from_neighbours`.

    keep: distances above it are not stored. counts_itself: whether k1 counts the image itself.
    """

    k1: int
    k2: int
    keep: float
    counts_itself: bool


@dataclass(frozen=True)
class DbscanSettings:
    """See `reidray.labelling.dbscan`."""

    eps: float
    min_samples: int


@dataclass(frozen=True)
class Clustering:
    """labels_N: -1 for outliers. silhouette, camera_cycle: see `reidray.evaluation.criteria`; None: not defined."""

    labels_N: Ints
    silhouette: float | None
    camera_cycle: float | None = None

    def figures(self) -> dict[str, float]:
        """Those that are defined, by name."""
        return known({"silhouette": self.silhouette, "camera_cycle": self.camera_cycle})


@dataclass(frozen=True)
class Merging:
    """labels_N: after merging. silhouette: of the clusters before, see `reidray.evaluation.criteria`; None where not
    defined."""

    labels_N: Ints
    silhouette: float | None


class Neighbours(Protocol):
    """The nearest images of every image in one space, found or being looked for."""

    def indices(self) -> Any:
        """[N, K], most similar first; an image is its own neighbour. Waits where they are still being looked for."""
        ...


@dataclass(frozen=True)
class Inputs:
    """What is known of the images beside their features.

    epoch: whose features are searched. cameras_N: -1 where unknown. persons_N: true identities, given to upper bounds
    alone (method.labels=ground_truth). attributes_NA: given to methods that need them. labels_N: of the labelling
    before this one, None for the first. modules: tensors of the modules beside the network (`Method.modules`).
    """

    epoch: int
    cameras_N: Array
    persons_N: Ints | None = None
    attributes_NA: Array | None = None
    labels_N: Ints | None = None
    modules: Mapping[str, Array] = field(default_factory=dict)

    @cached_property
    def num_cameras(self) -> int:
        """Cameras that are known."""
        return len(np.unique(self.cameras_N[self.cameras_N >= 0]))


class Search(Protocol):
    """What a method can ask about the features of all images.

    `nearest` returns at once; where labellers share the work, all searches that were asked for go on side by side. So
    ask for all neighbours first and use them afterwards.
    """

    inputs: Inputs
    count: int

    def nearest(self, space: Space, k: int) -> Neighbours:
        """The k nearest images of every image, the image itself among them."""
        ...

    def cluster(self, neighbours: Neighbours, jaccard: JaccardSettings, dbscan: DbscanSettings) -> Clustering:
        """Jaccard distances of the neighbour lists (at least k1 long), then DBSCAN on them."""
        ...

    def overlaps(self, whole: Neighbours, others: Sequence[Neighbours], k: int) -> Floats:
        """Share of common neighbours among the k nearest of `whole` and of each other space: float32 [N, L].

        See `reidray.memory.difficulty`. k counts the image itself. Lists that only this function reads are let go.
        """
        ...

    def transformed(self, feature: str, order_N: Ints, graph: int, name: str) -> str:
        """A new feature `name`, made by `Method.transform` from graphs of images; its name, for `Space` and `means`.

        Args:
          feature: what it is made from.
          order_N: all images, each once: the first `graph` of them are a graph, then the next ones. The last graph may
            be smaller.
          graph: images of a graph, at least 1.
          name: not one of `Method.features` or `Method.tables`.
        """
        ...

    def centred(self, feature: str, name: str) -> str:
        """A new feature `name`: the rows of a feature without what the images of their camera have in common.

        See `reidray.labelling.camera_offsets`. name: not one of `Method.features` or `Method.tables`.
        """
        ...

    def merged(self, space: Space, labels_N: Ints, count: int, criterion: Criterion) -> Merging:
        """The `count` nearest pairs of clusters joined, see `reidray.labelling.merge_stage`; no label may be -1.

        The work of one labeller, which holds the distances of all images: `reidray.labelling.merging_mb`.
        """
        ...

    def means(self, feature: str, labels_N: Ints) -> Floats:
        """Mean of a feature over each group of images 0 .. C - 1, unit length; -1 is left out: float32 [C, S, D]."""
        ...


def known(figures: Mapping[str, float | None]) -> dict[str, float]:
    """The figures that are defined."""
    return {name: value for name, value in figures.items() if value is not None}


@dataclass(frozen=True)
class Labels:
    """What labelling an epoch leaves.

    labels_N: cluster of each image, -1 for outliers; every cluster 0 .. C - 1 has an image.
    memories: the rows [R, S, D] with which each memory begins, by its name.
    tables: further rows of the images, by the names of `Method.tables`; the first axis is N.
    figures: about the labels, for console and metrics. judged: a criterion without truth, more is better, of the
    network as it is now and the labels before (`Method.selects_network`); None where it is not defined.
    """

    labels_N: Ints
    memories: Mapping[str, Floats] = field(default_factory=dict)
    tables: Mapping[str, Array] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    judged: float | None = None
