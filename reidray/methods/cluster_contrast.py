"""Cluster Contrast (Dai et al., 2021, arXiv:2103.11568): one feature, one memory of centroids, one loss.

B = images, C = clusters, S = 1 space, D = feature width.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from reidray.config import MethodSettings
from reidray.features import Features
from reidray.methods.method import AllCentroids, Centroids, Targets, no_weights, updated_rows


@final
class ClusterContrast:
    """The baseline of all other methods."""

    num_parts = 0

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings

    def heads(self, centroids: AllCentroids) -> nn.Module | None:  # noqa: ARG002 (it has none, whatever the centroids)
        """None: Cluster Contrast classifies by the memory alone."""
        return None

    def contrast_weights(self, labels_B: Tensor, alphas_BL: Tensor) -> Tensor:  # noqa: ARG002 (there are no parts)
        """Every image counts the same."""
        return no_weights(labels_B, 1)

    def losses(
        self,
        features: Features,
        targets: Targets,
        centroids: Centroids,
        heads: nn.Module | None,  # noqa: ARG002
        epoch: int,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """ClusterNCE, eq. 3."""
        losses_BT = centroids.contrast(
            features.features_BSD, targets.labels_B, [0], temperature=self._settings.temperature
        )
        return {"contrast": losses_BT[:, 0]}

    def updated_rows(
        self,
        centroids: Centroids,
        features_BSD: Tensor,
        labels_B: Tensor,
        alphas_BL: Tensor,  # noqa: ARG002
        uniforms_B: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Eq. 4, by average, hardest or random images of the batch."""
        return updated_rows(
            self._settings.update,
            centroids,
            features_BSD,
            labels_B,
            momentum=self._settings.momentum,
            uniforms_B=uniforms_B,
        )
