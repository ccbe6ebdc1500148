"""Selective update of a memory: the hardest images of each cluster, hardest first (ACRM, Jia et al., 2021).

B = global batch, U = clusters in it, S = vectors of a feature, D = their width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reidray.memory.centroids import average_update


def hardest_images(similarities_B: Tensor, places_B: Tensor) -> Tensor:
    """For each image, how many of its cluster in the batch are less similar to the centroid (ties: those before it).

    Args:
      similarities_B: of each image and its centroid.
      places_B: the place of its cluster.

    Returns: int64 [B]; 0 for the hardest image of a cluster.
    """
    by_similarity_B = torch.argsort(similarities_B, stable=True)
    by_cluster_B = by_similarity_B[torch.argsort(places_B[by_similarity_B], stable=True)]
    sizes_U = torch.bincount(places_B)
    firsts_U = sizes_U.cumsum(0) - sizes_U
    ranks_B = torch.empty_like(places_B)
    ranks_B[by_cluster_B] = torch.arange(len(places_B), device=places_B.device) - firsts_U[places_B[by_cluster_B]]
    return ranks_B


def selective_update(rows_USD: Tensor, features_BSD: Tensor, places_B: Tensor, *, k: int, momentum: float) -> Tensor:
    """The k images least similar to the centroid move it one after another, hardest first: ACRM eq. 6.

    c <- unit(m c + (1 - m) q). Similarities are those to the centroid before the step. A cluster with fewer images has
    all of them; each vector chooses by itself.
    """
    moved = []
    for vector in range(features_BSD.shape[1]):
        rows_U1D, features_B1D = rows_USD[:, vector : vector + 1], features_BSD[:, vector : vector + 1]
        similarities_B = (rows_U1D[places_B] * features_B1D).sum(-1)[:, 0]
        ranks_B = hardest_images(similarities_B, places_B)
        order = torch.argsort(ranks_B, stable=True)
        chosen = order[ranks_B[order] < k]
        moved.append(average_update(rows_U1D, features_B1D[chosen], places_B[chosen], momentum=momentum))
    return torch.cat(moved, dim=1)
