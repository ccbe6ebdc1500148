"""The verbs of a method, and the memory rules that methods share.

B = images, C = clusters, U = clusters in the batch, S = spaces (0 = global, then L parts), T = spaces asked for,
D = feature width.

A method is one final class in one file. It knows of no workers, no disk and no Ray: the engine (`reidray.training`)
extracts, has images labelled, forwards the groups of a batch and gathers; the method says which losses train the
network and how the memory moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from reidray.features import Features
from reidray.memory import (
    average_update,
    chosen_update,
    clusters_in_batch,
    hardest_update,
    normalised_weights,
    weighted_update,
)


@dataclass(frozen=True)
class Targets:
    """What labelling left for the images of one BN group.

    labels_B: cluster of each image. alphas_BL: eq. 7 of SCWM, empty for methods without parts.
    weights_BS: weights of the contrastive terms, of mean 1 over the global batch.
    masks_BLHW: pseudo masks moved as the images were; visible_BHW: 1 where a cell was not erased; None without parts.
    """

    labels_B: Tensor
    alphas_BL: Tensor
    weights_BS: Tensor
    masks_BLHW: Tensor | None
    visible_BHW: Tensor | None


class Centroids(Protocol):
    """The memory as a method sees it during a step, wherever its rows lie (`reidray.training.replica`).

    Where workers share the rows out, a verb may need all of them: a method therefore calls the same verbs in the same
    order for every group, whatever is in it.
    """

    def contrast(self, features_BSD: Tensor, labels_B: Tensor, spaces: Sequence[int], *, temperature: float) -> Tensor:
        """`reidray.losses.centroid_contrast` in each of some spaces: [B, T].

        Args:
          features_BSD: of all images of the group, unit length.
          labels_B: their clusters.
          spaces: numbers of spaces, at least one.
          temperature: tau > 0.
        """
        ...

    def rows(self, clusters: Tensor) -> Tensor:
        """The centroids [..., S, D] of some clusters of the global batch."""
        ...


class AllCentroids(Protocol):
    """The memory as an epoch begins, for layers that start from it."""

    def all_rows(self) -> Tensor:
        """All centroids [C, S, D].

        Raises:
          ValueError: no worker holds them all.
        """
        ...


class Method(Protocol):
    """What a method decides; `num_parts` is 0 where it has none."""

    num_parts: int

    def heads(self, centroids: AllCentroids) -> nn.Module | None:
        """Layers that live for one epoch, such as classifiers with a row a cluster; None where there are none."""
        ...

    def contrast_weights(self, labels_B: Tensor, alphas_BL: Tensor) -> Tensor:
        """Weights [B, S] of the contrastive terms over the global batch, of mean 1."""
        ...

    def losses(
        self, features: Features, targets: Targets, centroids: Centroids, heads: nn.Module | None, epoch: int
    ) -> dict[str, Tensor]:
        """The terms of the objective by name, each [B]; the objective is the sum of their means over the batch.

        A group may have no images at all: a worker with fewer groups than another takes part in its exchanges so.
        """
        ...

    def updated_rows(
        self, centroids: Centroids, features_BSD: Tensor, labels_B: Tensor, alphas_BL: Tensor, uniforms_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The clusters [U] in the global batch and their new centroids [U, S, D]; the input is left alone.

        uniforms_B: a random number in [0, 1) an image, the same on every worker, for rules that choose at random.
        """
        ...


def updated_rows(
    rule: str,
    centroids: Centroids,
    features_BSD: Tensor,
    labels_B: Tensor,
    *,
    momentum: float,
    uniforms_B: Tensor,
    raw_weights_BS: Tensor | None = None,
    normalise: str = "cluster",
) -> tuple[Tensor, Tensor]:
    """The memory update by name: "average", "hardest", "random" or "weighted" (which needs `raw_weights_BS`)."""
    clusters_U, places_B = clusters_in_batch(labels_B)
    rows_USD = centroids.rows(clusters_U)
    if rule == "average":
        rows_USD = average_update(rows_USD, features_BSD, places_B, momentum=momentum)
    elif rule == "hardest":
        rows_USD = hardest_update(rows_USD, features_BSD, places_B, momentum=momentum)
    elif rule == "random":
        keys_BS = uniforms_B.unsqueeze(1).expand(-1, features_BSD.shape[1])
        rows_USD = chosen_update(rows_USD, features_BSD, places_B, keys_BS, momentum=momentum)
    elif rule == "weighted" and raw_weights_BS is not None:
        weights_BS = normalised_weights(raw_weights_BS, places_B if normalise == "cluster" else None)
        rows_USD = weighted_update(rows_USD, features_BSD, places_B, weights_BS, momentum=momentum)
    else:
        raise ValueError(f"unknown memory update {rule!r}: expected average, hardest, random or weighted")
    return clusters_U, rows_USD


def of_mean_one(weights_BS: Tensor) -> Tensor:
    """The weights scaled to mean 1 over the batch, in each space."""
    return weights_BS / weights_BS.mean(0, keepdim=True).clamp_min(1e-12)


def no_weights(labels_B: Tensor, num_spaces: int) -> Tensor:
    """Every image counts the same."""
    return torch.ones(len(labels_B), num_spaces, device=labels_B.device)
