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
    members = np.flatnonzero(labels_N >= 0)
    order = members[np.lexsort((cameras_N[members], labels_N[members]))]  # stable: indices ascend within a proxy
    labels, cameras = labels_N[order], cameras_N[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (labels[1:] != labels[:-1]) | (cameras[1:] != cameras[:-1])
    starts = np.flatnonzero(begins)
    return unit_sums(features_NSD, order, starts), labels[starts], cameras[starts]
