"""Centroids of clusters, and the rules by which a step's features move them.

N = images, B = global batch in rank order, C = clusters, U = clusters present in the batch (ascending), G = groups of
images, S = spaces (0 = global, then the parts), D = feature width.

A rule never changes its input: it returns the rows of the clusters in the batch, which every replica writes, and
which go to the memory bank. All rules are functions of the whole global batch in its order, so the number of workers
does not matter.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reidray.arrays import Floats, Ints


def cluster_centroids(features_NSD: Floats, labels_N: Ints, num_clusters: int) -> Floats:
    """Mean of the members' unit features, then unit length; images with label -1 are left out.

    Summed in float64 in index order, so that the result does not depend on who computes it.

    Returns: float32 [C, S, D].
    """
    members = np.flatnonzero(labels_N >= 0)
    order = members[np.argsort(labels_N[members], kind="stable")]
    starts = np.searchsorted(labels_N[order], np.arange(num_clusters))
    if (
        len(order) == 0
        or num_clusters != int(labels_N.max()) + 1
        or np.any(np.diff(np.append(starts, len(order))) == 0)
    ):
        raise ValueError(f"labels must name each of the {num_clusters} clusters 0..{num_clusters - 1} at least once")
    return unit_sums(features_NSD, order, starts)


def unit_sums(features_NSD: Floats, order: Ints, starts_G: Ints) -> Floats:
    """Sums of groups of features at unit length, which is where the mean of a group points too.

    Summed in float64, one after the other in the order given.

    Args:
      order: indices of images in [0, N), group after group.
      starts_G: where in `order` each group begins, strictly ascending from 0; no group is empty.

    Returns: float32 [G, S, D].
    """
    sums_GSD = np.add.reduceat(features_NSD[order].astype(np.float64), starts_G, axis=0)
    lengths = np.linalg.norm(sums_GSD, axis=-1, keepdims=True)
    return (sums_GSD / np.maximum(lengths, 1e-12)).astype(np.float32)


def clusters_in_batch(labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """The clusters of a batch in ascending order [U], and for each image the place of its cluster there [B]."""
    clusters_U, places_B = torch.unique(labels_B, sorted=True, return_inverse=True)
    return clusters_U, places_B


def average_update(rows_USD: Tensor, features_BSD: Tensor, places_B: Tensor, *, momentum: float) -> Tensor:
    """Every image in turn, in batch order: c <- unit(m c + (1 - m) f).

    Cluster Contrast's `CM` (Dai et al., 2021). Images of different clusters do not touch each other's rows, so the
    t-th images of all clusters are applied together: as many rounds as the largest cluster has images in the batch.
    """
    rows_USD = rows_USD.clone()
    for now in _turns(places_B, len(rows_USD)):
        places = places_B[now]
        rows_USD[places] = F.normalize(momentum * rows_USD[places] + (1 - momentum) * features_BSD[now], dim=-1)
    return rows_USD


def weighted_sequence(
    rows_USD: Tensor, features_BSD: Tensor, places_B: Tensor, weights_BS: Tensor, *, momentum: float
) -> Tensor:
    """Every image in turn, in batch order, with its weight: c <- unit(m c + (1 - m) w f).

    The average update with weights: with all weights 1 it is `average_update` bit for bit, and with weight 1 for the
    hardest image and 0 for the others `hardest_update`, since an image of weight 0 leaves the centroid as it is.
    """
    rows_USD = rows_USD.clone()
    for now in _turns(places_B, len(rows_USD)):
        places, weights_RS1 = places_B[now], weights_BS[now].unsqueeze(-1)
        before = rows_USD[places]
        pulled = F.normalize(momentum * before + (1 - momentum) * (weights_RS1 * features_BSD[now]), dim=-1)
        rows_USD[places] = torch.where(weights_RS1 > 0, pulled, before)
    return rows_USD


def _turns(places_B: Tensor, num_clusters: int) -> list[Tensor]:
    """The first images of all clusters, the second ones, and so on: places in the batch."""
    onehot_BU = F.one_hot(places_B, num_clusters)
    turns_B = (onehot_BU.cumsum(0) * onehot_BU).sum(1) - 1
    return [torch.nonzero(turns_B == turn).squeeze(1) for turn in range(int(turns_B.max()) + 1)]


def chosen_update(
    rows_USD: Tensor, features_BSD: Tensor, places_B: Tensor, keys_BS: Tensor, *, momentum: float
) -> Tensor:
    """One image of each cluster and space moves the centroid: the one with the least key (ties: the first).

    With keys = similarity to the centroid this is the hardest update (Cluster Contrast's `CM_Hard`), with random keys
    the random one.
    """
    own_UB1 = F.one_hot(places_B, len(rows_USD)).T.bool().unsqueeze(-1)
    keys_UBS = torch.where(own_UB1, keys_BS, torch.inf)
    chosen_US = keys_UBS.argmin(dim=1)
    spaces_S = torch.arange(features_BSD.shape[1], device=features_BSD.device)
    return F.normalize(momentum * rows_USD + (1 - momentum) * features_BSD[chosen_US, spaces_S], dim=-1)


def hardest_update(rows_USD: Tensor, features_BSD: Tensor, places_B: Tensor, *, momentum: float) -> Tensor:
    """The image least similar to its centroid moves it, in each space by itself (Cluster Contrast's `CM_Hard`)."""
    similarities_BS = (rows_USD[places_B] * features_BSD).sum(-1)
    return chosen_update(rows_USD, features_BSD, places_B, similarities_BS, momentum=momentum)


def weighted_update(
    rows_USD: Tensor, features_BSD: Tensor, places_B: Tensor, weights_BS: Tensor, *, momentum: float
) -> Tensor:
    """c <- unit(m c + (1 - m) sum_i w_i f_i) over the images of the cluster in the batch: SCWM eq. 9.

    `weights_BS` come from `normalised_weights` (eq. 8). One update a cluster and step, whatever the batch's order.
    """
    own_UB = F.one_hot(places_B, len(rows_USD)).T.to(features_BSD.dtype)
    pulled_USD = torch.einsum("ub,bsd->usd", own_UB, weights_BS.unsqueeze(-1) * features_BSD)
    return F.normalize(momentum * rows_USD + (1 - momentum) * pulled_USD, dim=-1)


def weights_of_mean_one(raw_BS: Tensor, places_B: Tensor) -> Tensor:
    """Weights whose mean over the images of each cluster is 1; exactly 1 where those of a cluster are equal, also 0."""
    same_BB = places_B.unsqueeze(0) == places_B.unsqueeze(1)
    means_BS = (same_BB.to(raw_BS.dtype) @ raw_BS) / same_BB.sum(1, keepdim=True)
    others_BBS = raw_BS.unsqueeze(0).expand(len(raw_BS), -1, -1)
    own_BBS = torch.where(same_BB.unsqueeze(-1), others_BBS, raw_BS.unsqueeze(1))
    equal_BS = own_BBS.amax(1) == own_BBS.amin(1)
    return torch.where(equal_BS, torch.ones_like(raw_BS), raw_BS / means_BS.clamp_min(1e-12))


def normalised_weights(raw_BS: Tensor, places_B: Tensor | None) -> Tensor:
    """Weights that sum to 1: SCWM eq. 8.

    Args:
      raw_BS: not negative; 1 - alpha for the global feature, alpha for the parts.
      places_B: sums run over the images of one cluster; None: over the batch, as printed.

    Where all weights of a sum are zero they are taken as equal.
    """
    if places_B is None:
        totals_BS = raw_BS.sum(0, keepdim=True).expand_as(raw_BS)
        counts_B1 = torch.full_like(raw_BS[:, :1], len(raw_BS))
    else:
        same_BB = (places_B.unsqueeze(0) == places_B.unsqueeze(1)).to(raw_BS.dtype)
        totals_BS = same_BB @ raw_BS
        counts_B1 = same_BB.sum(1, keepdim=True)
    return torch.where(totals_BS > 0, raw_BS / totals_BS.clamp_min(1e-12), 1 / counts_B1)
