"""Cluster Contrast (Dai et al., 2021, arXiv:2103.11568): one feature, one memory of centroids, one loss.

B = images, C = clusters, S = 1 vector, D = feature width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor, nn

from reidray.memory import moved_centroids
from reidray.methods.label_search import Labels, Search, Space
from reidray.methods.method import Method
from reidray.methods.step import Memory, Outputs, Targets


@final
class ClusterContrast(Method):
    """The baseline of all other methods."""

    def label(self, search: Search) -> Labels:
        """Sec. 3.1: DBSCAN on the Jaccard distances of the features; a cluster's centroid is the mean of its images."""
        found = self.clustered(search, Space(self.searched(search)))
        return Labels(
            found.labels_N,
            memories={"features": search.means("features", found.labels_N)},
            figures=found.figures(),
        )

    def group_losses(
        self,
        outputs: Outputs,
        targets: Targets,
        memories: Mapping[str, Memory],
        heads: nn.Module | None,  # noqa: ARG002 (the memory alone classifies)
        epoch: int,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """ClusterNCE, eq. 3."""
        memory, tau = memories["features"], self.settings.method.temperature
        losses_BT = memory.contrast(outputs.features_BSD, targets.labels_B, [0], temperature=tau)
        return {"contrast": losses_BT[:, 0]}

    def moved_rows(
        self,
        memories: Mapping[str, Memory],
        gathered: Mapping[str, Tensor],
        targets: Targets,
        uniforms_B: Tensor,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Eq. 4, by average, hardest or random images of the batch."""
        method = self.settings.method
        moved = moved_centroids(
            method.update,
            memories["features"].rows,
            gathered["features"],
            targets.labels_B,
            momentum=method.momentum,
            uniforms_B=uniforms_B,
        )
        return {"features": moved}
