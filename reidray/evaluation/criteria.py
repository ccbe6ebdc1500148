"""Criteria of a labelling that need no true identities; a search of settings can use them as its objective.

More is better for every criterion. Each is computed from intermediate results of labelling, in memory and time linear
in the images and the stored distances. None guarantees a good model: `benchmarks/criteria.py` measures how far each
agrees with mAP where identities are known, and docs/tuning.md has the result.
"""

from typing import Any

import numpy as np

from reidray.arrays import Array, Floats, Ints
from reidray.compiled import njit
from reidray.evaluation.clusters import cluster_quality

CYCLE_NEIGHBOURS = 13
"""Neighbours that `camera_cycle` is given in a run, the image itself counted: the same whatever method.k1 is."""

# N = images, C = clusters, K = neighbours, E = stored distances, L = parts, T = trials, R = resamples
# ends_N1: row i of the sparse distances lies at ends[i] .. ends[i + 1]


def stability(labels_N: Any, earlier_N: Any) -> float | None:
    """Adjusted Rand index of two labellings of the same images, over the images that have a label in both.

    It compares the pseudo-labels of consecutive epochs: those of a converged model change little. 0 is chance, 1 the
    same clusters. A labelling with a single cluster gets 0 even if it is repeated, since it separates nothing.

    Args:
      labels_N, earlier_N: integers, -1 for no label.

    Errors:
      ValueError as `cluster_quality`.

    Returns:
      None where no image has a label in both.
    """
    labels_N, earlier_N = _labels(labels_N, earlier_N)
    both_N = (labels_N >= 0) & (earlier_N >= 0)
    if not both_N.any():
        return None
    if min(len(np.unique(labels_N[both_N])), len(np.unique(earlier_N[both_N]))) < 2:
        return 0.0
    return cluster_quality(labels_N[both_N], earlier_N[both_N]).ARI


def camera_mixing(labels_N: Any, cameras_N: Any) -> float | None:
    """1 - adjusted mutual information of labels and cameras, over the images with both: do clusters cross cameras?

    Clusters that follow the cameras' colours instead of persons lower it; 1 where knowing the cluster tells nothing
    about the camera (a little above is chance).

    Args:
      labels_N: integers, -1 for no label.
      cameras_N: integers, below 0 where unknown.

    Errors:
      ValueError as `cluster_quality`.

    Returns:
      None where fewer than two cameras are left, or no label.
    """
    labels_N, cameras_N = _labels(labels_N, cameras_N)
    both_N = (labels_N >= 0) & (cameras_N >= 0)
    if len(np.unique(cameras_N[both_N])) < 2:
        return None
    return 1.0 - cluster_quality(labels_N[both_N], cameras_N[both_N]).AMI


def assigned_share(labels_N: Any) -> float:
    """Share of the images that have a label (are no outliers)."""
    return float((np.asarray(labels_N) >= 0).mean())


def neighbour_agreement(alphas_NL: Floats) -> float | None:
    """Mean overlap of the neighbours by the global feature and by each foreground part.

    Args:
      alphas_NL: |R_g ∩ R_p| / |R_g ∪ R_p| of the foreground parts as `reidray.memory.difficulty` gives them, in [0, 1].

    Returns:
      None without parts: there is nothing to compare.
    """
    return float(alphas_NL.mean(dtype=np.float64)) if alphas_NL.shape[1] else None


def camera_cycle(indices_NK: Any, cameras_N: Any) -> float | None:
    """Share of images that are found again from another camera: cycle consistency of neighbours across cameras.

    From an image one goes to its nearest image under another camera, and from there to the nearest under the camera
    that one came from. The cycle is closed if that is the image itself, or one of its own neighbours. Both steps look
    at the neighbours of `indices_NK` alone: where they hold none of the wanted camera, the cycle is open.

    To be computed on features without what cameras add (`reidray.labelling.camera_offsets`): else it follows that
    shift. On CUHK01 it falls with mAP where a network fits its own wrong labels, though silhouette, stability and the
    share of labelled images all rise; on CUHK03 it says little (docs/real-crops.md).
    Compare networks of one run by it, not data sets: chance is far above 0. Of 3,000 random features under three
    cameras 12 neighbours close .67 (512 wide), and more the fewer dimensions they fill: .85 (8 wide), 1.0 (2 wide),
    as where every feature is the same. So it does not tell a network that has collapsed.

    Args:
      indices_NK: nearest images of each image, most similar first; an image in its own list is passed over.
      cameras_N: integers, below 0 where unknown; those images are passed over, too.

    Returns:
      the share of the images with a camera, in [0, 1]; None where fewer than two cameras are known.
    """
    cameras_N = np.asarray(cameras_N, np.int64)
    if len(np.unique(cameras_N[cameras_N >= 0])) < 2:
        return None
    return float(_closed_cycles(np.ascontiguousarray(indices_NK), cameras_N) / (cameras_N >= 0).sum())


def mean_silhouette(labels_N: Any, distances_NN: Any) -> float:
    """Mean silhouette of a labelling on sparse distances; a pair that is not stored is at distance 1.

    P. Rousseeuw, "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis", 1987:
    (b - a) / max(a, b), with a the mean distance to the other images of the own cluster and b to those of the nearest
    other cluster. Images without a label, and alone in their cluster, count as 0, so that leaving images out is not
    rewarded; images without a label are in no other cluster. With a single cluster the result is 0.

    Args:
      labels_N: integers, -1 for no label.
      distances_NN: SciPy CSR of distances in [0, 1], each pair stored once; the diagonal is not looked at. Where only
        distances up to some bound are stored, those above it are taken for 1.

    Errors:
      ValueError when the two do not belong together.

    Returns:
      the mean over all N images, in [-1, 1]. Time and memory O(E + N).
    """
    labels_N = np.asarray(labels_N)
    if distances_NN.shape != (len(labels_N), len(labels_N)):
        raise ValueError(
            f"labels and distances must be of the same images; got {len(labels_N)} labels and distances of shape "
            f"{distances_NN.shape}."
        )
    clusters_N = np.where(labels_N >= 0, labels_N, -1).astype(np.int64)
    sizes_C = np.bincount(clusters_N[clusters_N >= 0])
    if np.count_nonzero(sizes_C) < 2:
        return 0.0
    return float(_silhouette_sum(clusters_N, sizes_C, *_rows(distances_NN)) / len(labels_N))


def rank_correlation(values_T: Any, truths_T: Any) -> float | None:
    """Spearman's rho of two figures over trials, ties at their mean rank.

    Returns:
      None where there are fewer than three trials, one of the figures is NaN somewhere, or equal in all of them.
    """
    values_T, truths_T = np.asarray(values_T, float), np.asarray(truths_T, float)
    if len(values_T) < 3 or np.isnan([values_T, truths_T]).any():
        return None
    if len(np.unique(values_T)) == 1 or len(np.unique(truths_T)) == 1:
        return None
    from scipy.stats import rankdata  # slow to import, and no run needs it

    return float(np.corrcoef(rankdata(values_T), rankdata(truths_T))[0, 1])


def correlation_interval(
    values_T: Any, truths_T: Any, generator: np.random.Generator, *, resamples: int
) -> tuple[float, float] | None:
    """The middle 95 % of Spearman's rho over trials drawn anew, with replacement (the bootstrap's percentiles).

    Returns:
      None where rho itself is not defined, or for none of the draws.
    """
    values_T, truths_T = np.asarray(values_T, float), np.asarray(truths_T, float)
    if rank_correlation(values_T, truths_T) is None:
        return None
    draws_RT = generator.integers(0, len(values_T), (resamples, len(values_T)))
    found = [rank_correlation(values_T[draw_T], truths_T[draw_T]) for draw_T in draws_RT]
    defined = [rho for rho in found if rho is not None]
    if not defined:
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


@njit(cache=True, nogil=True)
def _closed_cycles(indices_NK: Any, cameras_N: Any) -> int:
    """Images whose cycle is closed."""
    closed = 0
    for i in range(indices_NK.shape[0]):
        if cameras_N[i] < 0:
            continue
        across = _first(indices_NK[i], cameras_N, cameras_N[i], False)
        if across < 0:
            continue
        back = _first(indices_NK[across], cameras_N, cameras_N[i], True)
        closed += back == i or (back >= 0 and (indices_NK[i] == back).any())
    return closed


@njit(cache=True, nogil=True)
def _first(indices_K: Any, cameras_N: Any, camera: int, same: bool) -> int:
    """The nearest image that this camera took, or another known one; -1 for none."""
    for r in range(indices_K.shape[0]):
        j = indices_K[r]
        if cameras_N[j] >= 0 and (cameras_N[j] == camera) == same:
            return int(j)
    return -1


def _labels(labels_N: Any, others_N: Any) -> tuple[Ints, Ints]:
    labels_N, others_N = np.asarray(labels_N), np.asarray(others_N)
    if labels_N.ndim != 1 or labels_N.shape != others_N.shape:
        raise ValueError(
            f"both labellings must be vectors of one length; got shapes {labels_N.shape} and {others_N.shape}."
        )
    return labels_N, others_N


def _rows(distances_NN: Any) -> tuple[Array, Array, Array]:
    return distances_NN.indptr, distances_NN.indices, distances_NN.data


@njit(cache=True, nogil=True)
def _silhouette_sum(clusters_N: Any, sizes_C: Any, ends_N1: Any, columns_E: Any, distances_E: Any) -> float:
    """Sum of (b - a) / max(a, b). Closeness is 1 - distance, so that pairs that are not stored add nothing."""
    closeness_C = np.zeros(sizes_C.shape[0])
    met_C = np.empty(sizes_C.shape[0], np.int64)
    total = 0.0
    for i in range(clusters_N.shape[0]):
        own = clusters_N[i]
        if own < 0 or sizes_C[own] < 2:
            continue
        met = 0
        for e in range(ends_N1[i], ends_N1[i + 1]):
            j = columns_E[e]
            c = clusters_N[j]
            if j == i or c < 0 or distances_E[e] >= 1:
                continue
            if closeness_C[c] == 0:
                met_C[met] = c
                met += 1
            closeness_C[c] += 1.0 - distances_E[e]
        a = 1.0 - closeness_C[own] / (sizes_C[own] - 1)
        b = 1.0
        for m in range(met):
            c = met_C[m]
            if c != own:
                b = min(b, 1.0 - closeness_C[c] / sizes_C[c])
            closeness_C[c] = 0.0
        larger = max(a, b)
        if larger > 0:
            total += (b - a) / larger
    return total


def centroid_silhouette(features_ND: Floats, labels_N: Ints, *, at_once: int = 1024) -> float | None:
    """Mean over images of (b - a) / max(a, b), with distances to centroids instead of images (Hruschka et al., 2004).

    a: Euclidean distance to the mean direction of the other images of the cluster. b: to the nearest centroid of
    another cluster. An image that is a cluster by itself counts 0 (Rousseeuw, 1987): at the beginning of hierarchical
    merging few images count more, and where clusters of different persons are joined, the mean falls. Distances are
    rounded to 1e-6 before, so that the last bits of a matrix product do not matter.

    Args:
      features_ND: unit length.
      labels_N: the cluster of each image, 0 .. C-1, each used.
      at_once: images that are compared with all centroids together.

    Returns:
      None where no cluster has two images, or there is one cluster alone.
    """
    sizes_C = np.bincount(labels_N)
    counted_M = np.flatnonzero(sizes_C[labels_N] > 1)
    if len(counted_M) == 0 or len(sizes_C) < 2:
        return None
    order_N = np.argsort(labels_N, kind="stable")
    sums_CD = np.add.reduceat(features_ND[order_N], np.cumsum(sizes_C) - sizes_C, axis=0, dtype=np.float64)
    centroids_CD = sums_CD / np.maximum(np.linalg.norm(sums_CD, axis=1, keepdims=True), 1e-12)
    total = 0.0
    for start in range(0, len(counted_M), at_once):
        own_R = counted_M[start : start + at_once]
        rows_RD, labels_R = features_ND[own_R].astype(np.float64), labels_N[own_R]
        others_RD = sums_CD[labels_R] - rows_RD
        others_RD /= np.maximum(np.linalg.norm(others_RD, axis=1, keepdims=True), 1e-12)
        similarities_RC = rows_RD @ centroids_CD.T
        similarities_RC[np.arange(len(own_R)), labels_R] = -np.inf
        inside_R = _chord((rows_RD * others_RD).sum(1))
        outside_R = _chord(similarities_RC.max(1))
        total += float(((outside_R - inside_R) / np.maximum(np.maximum(inside_R, outside_R), 1e-12)).sum())
    return total / len(labels_N)


def _chord(similarities: Array) -> Array:
    """Euclidean distance of unit vectors with these inner products."""
    return np.round(np.sqrt(np.maximum(2 - 2 * similarities, 0.0)), 6)
