"""AAC: attribute auxiliary clustering (Cao and Jo) on Cluster Contrast, in the order of the paper.

N = images, A = attributes, B = images of a batch.

Weakly supervised: what people noted of the persons divides the clusters. On Market-1501 the 27 attributes tell 386 of
751 persons apart from all others, so the figures of AAC are no figures of unsupervised methods.

    Sec. 3.1    clusters, memory, ClusterNCE    reidray.methods.cluster_contrast
    Sec. 3.2    clusters divided by attributes    `label`, reidray.labelling.attribute_split
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor, nn

from reidray.config import Settings
from reidray.data.attributes import distinct_vectors
from reidray.labelling import split_by_attributes
from reidray.methods.aac_settings import AacSettings
from reidray.methods.cluster_contrast import ClusterContrast
from reidray.methods.label_search import Inputs, Labels, Search, Space
from reidray.methods.method import Method
from reidray.methods.step import Memory, Outputs, Targets
from reidray.section import epochs_of


@final
class AAC(Method):
    """Attribute auxiliary clustering."""

    supervision = "weakly supervised"
    reported = ("attribute_vectors", "split_clusters", "moved_images")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._own: AacSettings = settings.aac
        self._base = ClusterContrast(settings)
        self._splits = settings.method.labels == "dbscan"
        self.needs = frozenset({"attributes"}) if self._splits else frozenset()

    def check_inputs(self, inputs: Inputs) -> list[str]:
        """See `Method.check_inputs`."""
        if not self._splits:
            return []
        if inputs.attributes_NA is None:
            raise ValueError(
                "method.name=aac needs attributes and the packed images have none: put market_attribute.mat or "
                "duke_attribute.mat into data.root and pack into another data.packed (drawn pedestrians get "
                "theirs when they are packed anew)"
            )
        count, vectors = inputs.attributes_NA.shape[1], distinct_vectors(inputs.attributes_NA)
        return [f"aac is weakly supervised: {count} attributes of the training images make {vectors} distinct vectors"]

    def label(self, search: Search) -> Labels:
        """Sec. 3.2: DBSCAN, then images of a cluster with equal attributes become a cluster where they are enough."""
        found = self._base.clustered(search, Space(self.searched(search)))
        labels_N, inputs = found.labels_N, search.inputs
        figures = found.figures()
        if inputs.attributes_NA is not None:
            figures["attribute_vectors"] = distinct_vectors(inputs.attributes_NA)
            if inputs.epoch >= epochs_of(self._own.start_epoch, self.settings.train.epochs):
                split = split_by_attributes(labels_N, inputs.attributes_NA, least=self._own.least)
                labels_N = split.labels_N
                figures.update(
                    new_clusters=split.num_splits, split_clusters=split.num_split_clusters, moved_images=split.num_moved
                )
        return Labels(labels_N, memories={"features": search.means("features", labels_N)}, figures=figures)

    def group_losses(
        self, outputs: Outputs, targets: Targets, memories: Mapping[str, Memory], heads: nn.Module | None, epoch: int
    ) -> dict[str, Tensor]:
        """Sec. 3.1: ClusterNCE."""
        return self._base.group_losses(outputs, targets, memories, heads, epoch)

    def moved_rows(
        self,
        memories: Mapping[str, Memory],
        gathered: Mapping[str, Tensor],
        targets: Targets,
        uniforms_B: Tensor,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Sec. 3.1: the memory of Cluster Contrast."""
        return self._base.moved_rows(memories, gathered, targets, uniforms_B)
