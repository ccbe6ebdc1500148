"""The memory update by its name, and weights of images that leave the size of a loss as it is.

B = images of the global batch, U = clusters in it, S = vectors of a feature, D = their width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reidray.memory.centroids import (
    average_update,
    chosen_update,
    clusters_in_batch,
    hardest_update,
    normalised_weights,
    weighted_sequence,
    weighted_update,
    weights_of_mean_one,
)


def moved_centroids(
    rule: str,
    rows_of: Callable[[Tensor], Tensor],
    features_BSD: Tensor,
    labels_B: Tensor,
    *,
    momentum: float,
    uniforms_B: Tensor,
    raw_weights_BS: Tensor | None = None,
    normalise: str = "cluster",
    once: bool = True,
) -> tuple[Tensor, Tensor]:
    """The clusters [U] of a batch, ascending, and their new centroids [U, S, D].

    Args:
      rule: "average", "hardest", "random" or "weighted" (which needs `raw_weights_BS`), see `reidray.memory.centroids`.
      rows_of: gives the centroids of some clusters; they are left alone.
      features_BSD, labels_B: of all images, unit length.
      momentum: share of the old centroid that is kept.
      uniforms_B: a random number in [0, 1) an image, for the random rule.
      raw_weights_BS, normalise: weights of the images and over what they are normalised, "cluster" or "batch".
      once: the weighted rule makes one update of all images of a cluster, not one after another.

    Raises:
      ValueError: an unknown rule, or no weights for the weighted one.
    """
    clusters_U, places_B = clusters_in_batch(labels_B)
    rows_USD = rows_of(clusters_U)
    if rule == "average":
        rows_USD = average_update(rows_USD, features_BSD, places_B, momentum=momentum)
    elif rule == "hardest":
        rows_USD = hardest_update(rows_USD, features_BSD, places_B, momentum=momentum)
    elif rule == "random":
        keys_BS = uniforms_B.unsqueeze(1).expand(-1, features_BSD.shape[1])
        rows_USD = chosen_update(rows_USD, features_BSD, places_B, keys_BS, momentum=momentum)
    elif rule == "weighted" and raw_weights_BS is not None:
        if normalise == "cluster" and not once:
            weights_BS = weights_of_mean_one(raw_weights_BS, places_B)
        else:
            weights_BS = normalised_weights(raw_weights_BS, places_B if normalise == "cluster" else None)
        move = weighted_update if once else weighted_sequence
        rows_USD = move(rows_USD, features_BSD, places_B, weights_BS, momentum=momentum)
    else:
        raise ValueError(f"unknown memory update {rule!r}: expected average, hardest, random or weighted")
    return clusters_U, rows_USD


def of_mean_one(weights_BS: Tensor) -> Tensor:
    """The weights scaled to mean 1 over the batch, for each vector."""
    return weights_BS / weights_BS.mean(0, keepdim=True).clamp_min(1e-12)


def equal_weights(labels_B: Tensor, num_vectors: int) -> Tensor:
    """Every image counts the same: ones [B, S]."""
    return torch.ones(len(labels_B), num_vectors, device=labels_B.device)
