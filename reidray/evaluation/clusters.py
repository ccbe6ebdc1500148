"""How well pseudo-labels agree with the true identities: ARI, AMI and purity. Reported, never used for training."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from reidray.compiled import njit

# N = images, A = clusters (an unassigned image is one), B = persons, E = pairs of them that share images


@dataclass(frozen=True)
class ClusterQuality:
    """Agreement of one labelling with the truth; ARI, AMI at most 1 (0: chance), purity in 0 .. 1."""

    ARI: float
    AMI: float
    purity: float
    num_clusters: int
    num_outliers: int


def cluster_quality(labels_N: Any, persons_N: Any) -> ClusterQuality:
    """Adjusted Rand index, adjusted mutual information and purity of a labelling.

    ARI (Hubert and Arabie, 1985) and AMI (Vinh et al., 2010, normalised by the mean entropy) are taken over all images,
    each unassigned image (label < 0) being a cluster of its own: leaving images out is not rewarded. Purity is the
    share of the assigned images whose person is the most frequent of their cluster; 0 when none is assigned. Equal to
    scikit-learn's figures, in memory O(N) however many images are unassigned.

    Args:
      labels_N: pseudo-labels, integers.
      persons_N: true identities, integers; images of unknown person (< 0) are left out of everything but the two
        counts.

    Errors:
      ValueError for other shapes or types, and when no image has a known person.
    """
    labels_N, persons_N = np.asarray(labels_N), np.asarray(persons_N)
    if labels_N.ndim != 1 or labels_N.shape != persons_N.shape:
        raise ValueError(
            f"labels and persons must be vectors of one length; got shapes {labels_N.shape} and {persons_N.shape}."
        )
    if not (np.issubdtype(labels_N.dtype, np.integer) and np.issubdtype(persons_N.dtype, np.integer)):
        raise ValueError(f"labels and persons must be integers; got {labels_N.dtype} and {persons_N.dtype}.")
    num_clusters = len(np.unique(labels_N[labels_N >= 0]))
    num_outliers = int((labels_N < 0).sum())
    known_N = persons_N >= 0
    if not known_N.any():
        raise ValueError("cluster quality needs images of known persons; got none.")
    labels_N, persons_N = labels_N[known_N].astype(np.int64), persons_N[known_N].astype(np.int64)

    outliers = np.flatnonzero(labels_N < 0)
    alone_N = labels_N.copy()
    alone_N[outliers] = labels_N.max() + 1 + np.arange(len(outliers))
    clusters_N = np.unique(alone_N, return_inverse=True)[1]
    classes_N = np.unique(persons_N, return_inverse=True)[1]
    pairs_E, shared_E = np.unique(clusters_N * (classes_N.max() + 1) + classes_N, return_counts=True)
    sizes_A, sizes_B = np.bincount(clusters_N), np.bincount(classes_N)

    assigned_A = np.zeros(len(sizes_A), bool)
    assigned_A[clusters_N[labels_N >= 0]] = True
    largest_A = np.zeros(len(sizes_A), np.int64)
    np.maximum.at(largest_A, pairs_E // (classes_N.max() + 1), shared_E)
    assigned = int(sizes_A[assigned_A].sum())
    return ClusterQuality(
        ARI=_adjusted_rand(shared_E, sizes_A, sizes_B),
        AMI=_adjusted_information(shared_E, pairs_E, sizes_A, sizes_B),
        purity=float(largest_A[assigned_A].sum() / assigned) if assigned else 0.0,
        num_clusters=num_clusters,
        num_outliers=num_outliers,
    )


def _adjusted_rand(shared_E: np.ndarray, sizes_A: np.ndarray, sizes_B: np.ndarray) -> float:
    """Pairs of images kept together by both, against what chance would give; 1 where both are trivial in the same
    way."""
    count = int(sizes_A.sum())
    together, of_clusters, of_persons = (
        sum(int(size) * (int(size) - 1) // 2 for size in sizes) for sizes in (shared_E, sizes_A, sizes_B)
    )
    if of_clusters == together and of_persons == together:
        return 1.0
    expected = of_clusters * of_persons / (count * (count - 1) // 2)
    return (together - expected) / ((of_clusters + of_persons) / 2.0 - expected)


def _adjusted_information(shared_E: np.ndarray, pairs_E: np.ndarray, sizes_A: np.ndarray, sizes_B: np.ndarray) -> float:
    """(MI - E[MI]) / (mean entropy - E[MI]); the trivial cases as in scikit-learn."""
    from scipy.special import gammaln  # slow to import, and one process of a run needs it

    if len(sizes_A) == 1 or len(sizes_B) == 1:
        return 1.0 if len(sizes_A) == len(sizes_B) else 0.0
    count = int(sizes_A.sum())
    together = shared_E / count
    apart = sizes_A[pairs_E // len(sizes_B)] / count * (sizes_B[pairs_E % len(sizes_B)] / count)
    information = float((together * np.log(together / apart)).sum())
    if len(shared_E) == len(sizes_A) == len(sizes_B):
        return 1.0  # the same partition, whatever the rounding below would say
    entropies = [-float((sizes / count * np.log(sizes / count)).sum()) for sizes in (sizes_A, sizes_B)]
    each_A, often_A = np.unique(sizes_A, return_counts=True)
    each_B, often_B = np.unique(sizes_B, return_counts=True)
    expected = _expected_information(each_A, often_A, each_B, often_B, gammaln(np.arange(count + 1) + 1.0))
    smallest = float(np.finfo(np.float64).eps)
    gained, possible = information - expected, sum(entropies) / 2.0 - expected
    return math.copysign(max(abs(gained), smallest), gained) / math.copysign(max(abs(possible), smallest), possible)


@njit(cache=True, nogil=True)
def _expected_information(each_A: Any, often_A: Any, each_B: Any, often_B: Any, log_factorials: Any) -> float:
    """E[MI] of two random partitions with these sizes (Vinh et al., 2010, eq. 24a); equal sizes are counted
    together."""
    count = log_factorials.shape[0] - 1
    expected = 0.0
    for i in range(each_A.shape[0]):
        for j in range(each_B.shape[0]):
            a, b = each_A[i], each_B[j]
            fixed = log_factorials[a] + log_factorials[b] + log_factorials[count - a] + log_factorials[count - b]
            total = 0.0
            for shared in range(max(1, a + b - count), min(a, b) + 1):
                free = (
                    log_factorials[count]
                    + log_factorials[shared]
                    + log_factorials[a - shared]
                    + log_factorials[b - shared]
                    + log_factorials[count - a - b + shared]
                )
                total += shared / count * math.log(count * shared / (a * b)) * math.exp(fixed - free)
            expected += often_A[i] * often_B[j] * total
    return expected
