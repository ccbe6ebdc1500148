"""ACRM: adaptive clustering relationship modelling (Jia et al., 2021), in the order of the paper.

N = images, B = images of a graph or of the global batch, G = graphs, C = clusters, D = feature width.

    Graph correlation learning      eq. 1 to 4          `GraphCorrelation`
    Clustering with refined features                    `label`, `transform`, reidray.neighbours.walk
    Noise suppression               eq. 5, 8            `batch_losses`: the whole global batch is the graph
    Selective contrastive learning  eq. 6, 7            `batch_losses`, `moved_rows`, reidray.memory.selection

The raw feature v and the relation-aware feature v-hat = [v, v-tilde], brought to unit length, have a memory each, of
width D and 2 D. What is ranked after training is v.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import cast, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidray.arrays import Ints
from reidray.config import Settings
from reidray.dispatch import as_numpy
from reidray.memory import clusters_in_batch, hardest_images, moved_centroids, selective_update
from reidray.methods.acrm_settings import AcrmSettings
from reidray.methods.label_search import Inputs, Labels, Neighbours, Search, Space
from reidray.methods.method import Method
from reidray.methods.step import BatchLosses, Memory, Outputs, Targets
from reidray.neighbours import neighbour_walk

_ORDER_STREAM = 7  # keeps these random numbers apart from those of other rooms with the same seed and epoch


class GraphCorrelation(nn.Module):
    """Relations between the images of a graph, which all images of it take part in: eq. 1 to 4.

    Args:
      width: D.
      temperature: T of eq. 2.
    """

    def __init__(self, width: int, temperature: float) -> None:
        super().__init__()
        self.theta = nn.Sequential(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width))
        self.phi = nn.Sequential(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width))
        self._temperature = temperature

    def attention(self, nodes_GBD: Tensor) -> Tensor:
        """Eq. 1 and 2: how much each image looks at each other one of its graph, [G, B, B]; rows sum to 1."""
        queries_GBD, keys_GBD = (
            F.normalize(embed(nodes_GBD.flatten(0, 1)), dim=-1).view_as(nodes_GBD) for embed in (self.theta, self.phi)
        )
        return torch.softmax(self._temperature * queries_GBD @ keys_GBD.transpose(1, 2), dim=-1)

    @staticmethod
    def related(nodes_GBD: Tensor, attention_GBB: Tensor) -> Tensor:
        """Eq. 3 and 4: v-hat = [v, v-tilde] at unit length, [G, B, 2 D]."""
        return F.normalize(torch.cat([nodes_GBD, attention_GBB @ nodes_GBD], dim=-1), dim=-1)


@final
class ACRM(Method):
    """Adaptive clustering relationship modelling."""

    has_batch_losses = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._own: AcrmSettings = settings.acrm
        self._relates = self._own.graph_weight > 0
        self.memories = ("features", "related") if self._relates else ("features",)
        searched_again = self._own.refine and settings.method.labels == "dbscan"
        self.searches = 1 + (self._relates and self._own.order == "neighbours" and searched_again)

    def modules(self) -> nn.Module | None:
        """Theta and phi; those of eq. 5 are the same."""
        return GraphCorrelation(self._width, self._own.attention_temperature) if self._relates else None

    @cached_property
    def _width(self) -> int:
        return self.network().width  # labellers make the modules for every task

    # ---- before clustering

    def check_inputs(self, inputs: Inputs) -> list[str]:  # noqa: ARG002
        """See `Method.check_inputs`."""
        if self._relates and self._own.order == "file_name":
            return [
                "acrm.order=file_name: images that follow each other by name share a graph. Where names begin with the "
                "person, as in Market-1501, labels then know of identities: do not call the result unsupervised"
            ]
        return []

    def label(self, search: Search) -> Labels:
        """DBSCAN on relation-aware features; the centroids of both kinds of features."""
        own, space, neighbours = self._own, None, None
        if self._relates:
            if own.order == "neighbours":
                space = Space(self.searched(search))
                neighbours = search.nearest(space, self.list_length(search))
            order_N = self._order(search, neighbours)
            related = search.transformed("features", order_N, own.graph, "related")
            if own.refine:
                space, neighbours = Space(self.searched(search, related)), None
        found = self.clustered(search, space or Space(self.searched(search)), neighbours)
        return Labels(
            found.labels_N,
            memories={name: search.means(name, found.labels_N) for name in self.memories},
            figures=found.figures(),
        )

    def _order(self, search: Search, neighbours: Neighbours | None) -> Ints:
        """In which images are cut into graphs."""
        if self._own.order == "file_name":
            return np.arange(search.count)
        key = np.random.SeedSequence([_ORDER_STREAM, self.settings.train.seed, search.inputs.epoch])
        shuffled_N = np.random.Generator(np.random.Philox(key)).permutation(search.count)
        if neighbours is None:
            return shuffled_N
        return neighbour_walk(as_numpy(neighbours.indices()[:, : self.k1()]), shuffled_N)  # lists may be longer

    def transform(self, feature: str, rows_GBSD: Tensor, modules: nn.Module | None) -> Tensor:  # noqa: ARG002
        """v-hat of the images of each graph."""
        graph, nodes_GBD = cast(GraphCorrelation, modules), rows_GBSD[:, :, 0]
        return graph.related(nodes_GBD, graph.attention(nodes_GBD)).unsqueeze(2)

    # ---- training

    def group_losses(
        self,
        outputs: Outputs,  # noqa: ARG002
        targets: Targets,  # noqa: ARG002
        memories: Mapping[str, Memory],  # noqa: ARG002
        heads: nn.Module | None,  # noqa: ARG002
        epoch: int,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """None: all losses see the whole batch."""
        return {}

    def batch_losses(
        self,
        gathered: Mapping[str, Tensor],
        targets: Targets,
        memories: Mapping[str, Memory],
        modules: nn.Module | None,
        epoch: int,  # noqa: ARG002
    ) -> BatchLosses:
        """Eq. 8: L(v) + lambda L(v-hat)."""
        raw_BD = gathered["features"][:, 0]
        terms = {"contrast": self._selective_loss(raw_BD, targets, memories["features"])}
        if modules is None:
            return BatchLosses(terms)
        graph, nodes_1BD = cast(GraphCorrelation, modules), raw_BD.unsqueeze(0)
        attention_1BB = graph.attention(nodes_1BD)
        related_BE = graph.related(nodes_1BD, attention_1BB)[0]
        loss_B = self._selective_loss(related_BE, targets, memories["related"])
        terms["related_contrast"] = self._own.graph_weight * loss_B
        return BatchLosses(
            terms, {"related": related_BE.unsqueeze(1)}, attention_shares(attention_1BB[0].detach(), targets.labels_B)
        )

    def _selective_loss(self, features_BD: Tensor, targets: Targets, memory: Memory) -> Tensor:
        """Eq. 7; images without a part in it have 0, and the others count as if they were the batch."""
        labels_B, tau = targets.labels_B, self.settings.method.temperature
        loss_B = memory.contrast(features_BD.unsqueeze(1), labels_B, [0], temperature=tau)[:, 0]
        if self._own.loss == "all":
            return loss_B
        similarities_B = (features_BD.detach() * memory.rows(labels_B)[:, 0]).sum(-1)
        chosen_B = hardest_images(similarities_B, clusters_in_batch(labels_B)[1]) < self._own.k
        return loss_B * chosen_B * len(loss_B) / chosen_B.sum()

    def moved_rows(
        self,
        memories: Mapping[str, Memory],
        gathered: Mapping[str, Tensor],
        targets: Targets,
        uniforms_B: Tensor,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Eq. 6, or another rule, as an ablation."""
        own, momentum = self._own, self.settings.method.momentum
        moved = {}
        for name in self.memories:
            rows_of, features_BSD = memories[name].rows, gathered[name]
            if own.update == "top_k":
                clusters_U, places_B = clusters_in_batch(targets.labels_B)
                rows_USD = selective_update(rows_of(clusters_U), features_BSD, places_B, k=own.k, momentum=momentum)
                moved[name] = clusters_U, rows_USD
            else:
                moved[name] = moved_centroids(
                    own.update, rows_of, features_BSD, targets.labels_B, momentum=momentum, uniforms_B=uniforms_B
                )
        return moved


def attention_shares(attention_BB: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
    """Of each image of a batch, the share of its attention on itself, on the rest of its cluster, and elsewhere."""
    itself_B = attention_BB.diagonal()
    cluster_B = (attention_BB * (labels_B[:, None] == labels_B)).sum(1) - itself_B
    return {
        "attention_itself": itself_B,
        "attention_cluster": cluster_B,
        "attention_elsewhere": 1 - itself_B - cluster_B,
    }
