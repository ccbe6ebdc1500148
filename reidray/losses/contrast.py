"""Contrast of features with the centroids of all clusters.

B = images, C = clusters, D = feature width, L = parts. Every function returns one loss an image; the caller averages.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def centroid_contrast(features_BD: Tensor, labels_B: Tensor, centroids_CD: Tensor, *, temperature: float) -> Tensor:
    """-log( exp(f.c+ / tau) / sum_j exp(f.c_j / tau) ): ClusterNCE, Cluster Contrast (Dai et al., 2021) eq. 3.

    Args:
      features_BD: unit length.
      labels_B: cluster of each feature, in [0, C); unassigned images are left out beforehand.
      centroids_CD: unit length; no gradient flows into them.
      temperature: tau > 0; smaller is sharper.

    Returns: [B].
    """
    if features_BD.shape[1] != centroids_CD.shape[1]:
        raise ValueError(
            f"features and centroids must have the same width; got features {tuple(features_BD.shape)} and centroids "
            f"{tuple(centroids_CD.shape)}: was the memory built by another model?"
        )
    return F.cross_entropy(features_BD @ centroids_CD.T / temperature, labels_B, reduction="none")


def weighted_contrast(losses: Tensor, weights: Tensor, *, place: str) -> Tensor:
    """Terms of SCWM eq. 10 from their unweighted losses and weights of mean 1 over the batch, of one shape.

    place: "outside": -w log p, the weight acts on the gradient; "inside": -log(w p) as printed, where the weight is a
    constant without gradient (weights below 1e-6 are taken as 1e-6); "none": -log p.
    """
    if place == "outside":
        return weights * losses
    if place == "inside":
        return losses - torch.log(weights.clamp_min(1e-6))
    return losses


def part_separation(features_BLD: Tensor, centroids_BLD: Tensor, *, temperature: float) -> Tensor:
    """-1/l sum_k log( exp(f_k.c_k / tau) / sum_j exp(f_k.c_j / tau) ): SCWM eq. 11.

    Args:
      features_BLD: unit part features.
      centroids_BLD: the part centroids of each image's own cluster.

    Returns: [B].
    """
    logits_BLL = torch.einsum("bkd,bjd->bkj", features_BLD, centroids_BLD) / temperature
    return -torch.diagonal(logits_BLL.log_softmax(-1), dim1=1, dim2=2).mean(1)
