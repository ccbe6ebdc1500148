"""Proxies of the variants with cameras: what a cluster looks like under each of its cameras.

N = images, Q = proxies, S = spaces (0 = global, then the parts), D = feature width.
"""

from __future__ import annotations

import numpy as np

from reidray.arrays import Floats, Ints
from reidray.memory.centroids import unit_sums


def camera_proxies(features_NSD: Floats, labels_N: Ints, cameras_N: Ints) -> tuple[Floats, Ints, Ints]:
    """Mean of the unit features of each cluster under each camera that saw it, then unit length.

    The camera-aware proxies of PPLR (Cho et al., 2022, arXiv:2203.14675). Summed as `cluster_centroids` sums, so that
    the result does not depend on who computes it.

    Args:
      features_NSD: unit length.
      labels_N: cluster of each image; those with -1 are left out. A cluster may be missing.
      cameras_N: any integers.

    Returns:
      proxies_QSD float32, and cluster and camera of each [Q], in ascending order of both, clusters first; Q is 0 where
      no image is in a cluster.
    """
    if not len(features_NSD) == len(labels_N) == len(cameras_N):
        raise ValueError(
            f"proxies need a label and a camera for each image; got {len(features_NSD)} features, {len(labels_N)} "
            f"labels and {len(cameras_N)} cameras"
        )
    proxies_N, labels_Q, cameras_Q = proxy_groups(labels_N, cameras_N)
    members = np.flatnonzero(proxies_N >= 0)
    order = members[np.argsort(proxies_N[members], kind="stable")]
    starts = np.searchsorted(proxies_N[order], np.arange(len(labels_Q)))
    return unit_sums(features_NSD, order, starts), labels_Q, cameras_Q


def proxy_groups(labels_N: Ints, cameras_N: Ints) -> tuple[Ints, Ints, Ints]:
    """Which proxy each image belongs to, -1 for none, and cluster and camera of each proxy [Q].

    Proxies are in ascending order of cluster, then camera. Arguments as in `camera_proxies`.
    """
    members = np.flatnonzero(labels_N >= 0)
    pairs = np.stack([labels_N[members], cameras_N[members]], axis=1).astype(np.int64).reshape(-1, 2)
    found, places = np.unique(pairs, axis=0, return_inverse=True)
    proxies_N = np.full(len(labels_N), -1, np.int64)
    proxies_N[members] = places.ravel()
    return proxies_N, found[:, 0], found[:, 1]
