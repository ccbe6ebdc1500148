"""Losses of PPLR: part-based pseudo label refinement (Cho et al., CVPR 2022, arXiv:2203.14675).

B = images, P = parts (stripes, no background), C = clusters, D = feature width, Q = proxies (a cluster under a camera).

    cross agreement of parts       reidray.memory.difficulty: the same share of common neighbours
    refined labels of parts        `agreement_smoothed_loss`, before it sets in `label_smoothed_loss`
    refined labels of the whole    reidray.losses.identity: `distilled_global_targets`, with the agreements for alpha,
                                   then `identity_loss`; SCWM's eq. 14 took that formula over from PPLR
    triplets                       `soft_margin_triplet`
    the variant with cameras       `camera_proxy_contrast`

Where the paper leaves something open, the readings are those of the authors' public code (yoonkicho/PPLR).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_SQUARE = 1e-12  # of a distance, so that its root has a gradient at 0


def agreement_smoothed_loss(part_logits_BPC: Tensor, labels_B: Tensor, agreements_BP: Tensor) -> Tensor:
    """a (-log p_y) + (1 - a) KL(u || p), with u uniform over the clusters: PPLR's agreement-aware label smoothing.

    KL(u || p) = sum_c 1/C log((1/C) / p_c) = -log C - mean_c log p_c. The cross entropy with the target
    a y + (1 - a) u (SCWM's eq. 13, `refined_part_targets`) is larger by (1 - a) log C, the entropy of u, and has the
    same gradient.

    Args:
      part_logits_BPC: of each part's classifier, p is their softmax.
      labels_B: cluster of each image, in [0, C).
      agreements_BP: a, cross agreement of each part, in [0, 1]; no gradient is meant to flow into it.

    Returns: [B, P], at least 0.
    """
    own_BP, mean_BP = _own_and_mean(part_logits_BPC, labels_B)
    divergences_BP = -math.log(part_logits_BPC.shape[-1]) - mean_BP
    return -agreements_BP * own_BP + (1 - agreements_BP) * divergences_BP


def label_smoothed_loss(part_logits_BPC: Tensor, labels_B: Tensor, *, smoothing: float) -> Tensor:
    """Cross entropy with the target (1 - e) y + e u, u uniform over all C clusters, the own one too.

    Szegedy et al., 2016, arXiv:1512.00567, Sec. 7; what PPLR's parts learn from until agreements are used.

    Args:
      part_logits_BPC: of each part's classifier.
      labels_B: cluster of each image, in [0, C).
      smoothing: e in [0, 1).

    Returns: [B, P].
    """
    own_BP, mean_BP = _own_and_mean(part_logits_BPC, labels_B)
    return -(1 - smoothing) * own_BP - smoothing * mean_BP


def soft_margin_triplet(features_BD: Tensor, labels_B: Tensor) -> Tensor:
    """-log( exp(d_n) / (exp(d_p) + exp(d_n)) ) = log(1 + exp(d_p - d_n)): the softmax triplet loss of PPLR.

    d_p is the distance to the farthest image of the same cluster in the batch, d_n that to the nearest one of another
    cluster (batch hard: Hermans et al., 2017, arXiv:1703.07737); of equally hard images the first is taken. Distances
    are Euclidean, and at least 1e-6, below which they have no gradient. Anchors, positives and negatives all have
    gradients.

    An image is a positive of itself, as in the public code: it matters to an image that is alone of its cluster, whose
    d_p is then 1e-6 and whose nearest negative is still pushed away. Without a negative, in a batch of one cluster, the
    loss is 0.

    Args:
      features_BD: of any length; PPLR takes them as they leave the neck, before unit length.
      labels_B: cluster of each image.

    Returns: [B], >= 0.
    """
    if len(features_BD) == 0:
        return features_BD.sum(1)
    same_BB = labels_B[:, None] == labels_B[None, :]
    with torch.no_grad():
        distances_BB = torch.cdist(features_BD, features_BD, compute_mode="donot_use_mm_for_euclid_dist")
        positives_B = distances_BB.masked_fill(~same_BB, -1.0).argmax(1)
        negatives_B = distances_BB.masked_fill(same_BB, torch.inf).argmin(1)
    to_positives_B = _distances(features_BD, features_BD[positives_B])
    to_negatives_B = _distances(features_BD, features_BD[negatives_B])
    return -F.logsigmoid(to_negatives_B - to_positives_B).where(~same_BB.all(1), 0.0)


def camera_proxy_contrast(
    features_BD: Tensor,
    labels_B: Tensor,
    cameras_B: Tensor,
    proxies_QD: Tensor,
    proxy_labels_Q: Tensor,
    proxy_cameras_Q: Tensor,
    *,
    temperature: float,
    num_negatives: int,
) -> Tensor:
    """-1/|O| sum_{o in O} log( exp(f.o / tau) / sum_{j in O and N} exp(f.j / tau) ): PPLR's inter-camera contrast.

    O are the proxies of the image's cluster under other cameras than its own, N the `num_negatives` proxies most
    similar to it of all other clusters (all of them where there are fewer). The proxy of the image's own cluster and
    camera is in neither.

    An image whose cluster is under one camera only has loss 0, and counts in the mean: the public code divides by the
    number of all images, so `.mean()` of the result is its loss. Where other clusters have fewer proxies than
    `num_negatives`, the public code fills N up with proxies of the image's own cluster; here N is smaller then.

    Args:
      features_BD: unit length.
      labels_B, cameras_B: cluster and camera of each image.
      proxies_QD: unit length, of `reidray.memory.camera_proxies`; no gradient is meant to flow into them.
      proxy_labels_Q, proxy_cameras_Q: cluster and camera of each proxy.
      temperature: tau > 0.
      num_negatives: at least 0; 50 in the public code.

    Returns: [B], >= 0.
    """
    logits_BQ = features_BD @ proxies_QD.T / temperature
    own_BQ = labels_B[:, None] == proxy_labels_Q[None, :]
    positive_BQ = own_BQ & (cameras_B[:, None] != proxy_cameras_Q[None, :])
    nearest_BK = logits_BQ.detach().masked_fill(own_BQ, -torch.inf).topk(min(num_negatives, len(proxies_QD)), dim=1)[1]
    near_BQ = torch.zeros_like(own_BQ).scatter(1, nearest_BK, True)
    num_positives_B = positive_BQ.sum(1)
    counted_BQ = positive_BQ | (near_BQ & ~own_BQ) | (num_positives_B == 0)[:, None]  # no empty sum, whose log is -inf
    mean_positive_B = (logits_BQ * positive_BQ).sum(1) / num_positives_B.clamp_min(1)
    losses_B = logits_BQ.masked_fill(~counted_BQ, -torch.inf).logsumexp(1) - mean_positive_B
    return losses_B.where(num_positives_B > 0, 0.0)


def _own_and_mean(part_logits_BPC: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """log p of the image's own cluster, and its mean over all clusters: [B, P] each."""
    logs_BPC = part_logits_BPC.log_softmax(-1)
    places_BP1 = labels_B[:, None, None].expand(-1, part_logits_BPC.shape[1], 1)
    return logs_BPC.gather(-1, places_BP1).squeeze(-1), logs_BPC.mean(-1)


def _distances(features_BD: Tensor, others_BD: Tensor) -> Tensor:
    return (features_BD - others_BD).square().sum(1).clamp_min(_LEAST_SQUARE).sqrt()
