"""The search service of one labeller that holds all features.

N = images, C = clusters, S = vectors of a feature, D = their width, K = neighbours, L = parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch

from reidray import dispatch
from reidray.arrays import Floats, Ints
from reidray.bank import MemoryBank
from reidray.labelling import Criterion, centred
from reidray.memory import cluster_centroids
from reidray.methods.label_search import (
    Clustering,
    DbscanSettings,
    Inputs,
    JaccardSettings,
    Merging,
    Neighbours,
    Space,
)
from reidray.spans import Spans
from reidray.training.graphs import GraphTransform, pieces
from reidray.training.grouping import Grouping
from reidray.training.reading import in_space


@final
class WholeSearch:
    """See `reidray.methods.label_search.Search`.

    Args:
      bank: where features are.
      inputs: of the epoch.
      grouping: how distances are clustered.
      device: of the kernels.
      transform: makes features anew.
      at_once: images of a piece of that, see `reidray.training.graphs`.
      approximate: (components, candidates) of an approximate search, None for the exact one.
      spans: of the labeller.
    """

    def __init__(
        self,
        bank: MemoryBank,
        inputs: Inputs,
        grouping: Grouping,
        *,
        device: torch.device,
        transform: GraphTransform,
        at_once: int,
        approximate: tuple[int, int] | None,
        spans: Spans,
    ) -> None:
        self.inputs = inputs
        self.count = sum(count for _, count in bank.layout("train"))
        self._bank, self._grouping, self._device = bank, grouping, device
        self._transform, self._at_once = transform, at_once
        self._approximate, self._spans = approximate, spans
        self._features: dict[str, Floats] = {}
        self._last: tuple[Space, Any] | None = None

    def nearest(self, space: Space, k: int) -> Neighbours:
        """They are searched when they are needed."""
        return _Lists(self, space, k)

    def cluster(self, neighbours: Neighbours, jaccard: JaccardSettings, dbscan: DbscanSettings) -> Clustering:
        """See `Search.cluster`."""
        assert isinstance(neighbours, _Lists)
        indices_NK, similarities_NK = neighbours.lists()
        features_ND = self.features(neighbours.space)
        with self._spans("jaccard"):
            distances_NN = dispatch.jaccard_from_neighbours(
                indices_NK,
                similarities_NK,
                features_ND,
                k1=jaccard.k1,
                k2=jaccard.k2,
                keep=jaccard.keep,
                counts_itself=jaccard.counts_itself,
            )
        return self._grouping.of(distances_NN, dbscan)

    def overlaps(self, whole: Neighbours, others: Sequence[Neighbours], k: int) -> Floats:
        """See `Search.overlaps`."""
        whole_NK = whole.indices()[:, :k]
        with self._spans("difficulty"):
            found: Floats = dispatch.as_numpy(dispatch.difficulty(whole_NK, (_read_once(other) for other in others)))
        return found

    def merged(self, space: Space, labels_N: Ints, count: int, criterion: Criterion) -> Merging:
        """See `Search.merged`."""
        features_ND = in_space(self._table(space.feature), space.vectors)
        return self._grouping.merged(features_ND, labels_N, count, criterion)

    def transformed(self, feature: str, order_N: Ints, graph: int, name: str) -> str:
        """See `Search.transformed`."""
        features_NSD, made = self._table(feature), None
        for own in pieces(order_N, graph, self.count, self._at_once):
            with self._spans("transform"):
                rows_RSD = self._transform.of(feature, features_NSD[own], graph)
            if made is None:
                made = np.empty((self.count, *rows_RSD.shape[1:]), np.float32)
            made[own] = rows_RSD
        assert made is not None
        self._features[name] = made
        return name

    def centred(self, feature: str, name: str) -> str:
        """See `Search.centred`."""
        features_NSD = self._table(feature)
        with self._spans("transform"):
            self._features[name] = centred(features_NSD, self.inputs.cameras_N, at_once=self._at_once)
        return name

    def means(self, feature: str, labels_N: Ints) -> Floats:
        """See `Search.means`."""
        features_NSD = self._table(feature)
        with self._spans("centroids"):
            return cluster_centroids(features_NSD, labels_N, int(labels_N.max()) + 1)

    def features(self, space: Space) -> Any:
        """[N, D'] where kernels want them; those of the space that was asked for last are kept."""
        if self._last is None or self._last[0] != space:
            rows_ND = in_space(self._table(space.feature), space.vectors)
            self._last = space, dispatch.on(rows_ND, self._device)
        return self._last[1]

    def search(self, space: Space, k: int) -> tuple[Any, Any]:
        """Indices and similarities of the k nearest [N, K]."""
        self._bank.refuse_if_gone()  # a search may take minutes
        features_ND = self.features(space)
        with self._spans("neighbours"):
            return dispatch.nearest(features_ND, k, approximate=self._approximate)

    def _table(self, feature: str) -> Floats:
        if feature not in self._features:
            with self._spans("read"):
                self._features[feature] = self._bank.read(f"train/{feature}", self.inputs.epoch)
        return self._features[feature]


@final
class _Lists:
    """Neighbour lists that are searched when they are first needed."""

    def __init__(self, search: WholeSearch, space: Space, k: int) -> None:
        self.space = space
        self._search, self._k = search, k
        self._found: tuple[Any, Any] | None = None

    def lists(self) -> tuple[Any, Any]:
        """Indices and similarities [N, K]."""
        if self._found is None:
            self._found = self._search.search(self.space, self._k)
        return self._found

    def indices(self) -> Any:
        """See `Neighbours.indices`."""
        return self.lists()[0]

    def forget(self) -> None:
        """Let go of them; they are searched again if they are needed again."""
        self._found = None


def _read_once(neighbours: Neighbours) -> Any:
    assert isinstance(neighbours, _Lists)
    indices_NK = neighbours.indices()
    neighbours.forget()
    return np.ascontiguousarray(indices_NK) if isinstance(indices_NK, np.ndarray) else indices_NK
