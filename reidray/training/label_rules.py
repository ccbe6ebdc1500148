"""What labelling an epoch means, whoever does it: which space is clustered, how long lists are, what is written.

N = images, C = clusters, S = spaces (0 = global, then L parts), D = feature width.
"""

from __future__ import annotations

from dataclasses import dataclass

from reidray.arrays import Floats, Ints
from reidray.bank import MemoryBank
from reidray.config import Settings
from reidray.training.reading import JOINED


@dataclass(frozen=True)
class LabelSummary:
    """How an epoch's labelling went; criteria (`reidray.evaluation.criteria`) are None where not defined."""

    num_clusters: int
    num_outliers: int
    silhouette: float | None = None
    agreement: float | None = None


def clustered_space(settings: Settings) -> int:
    """The space that is clustered: 0, or JOINED."""
    return JOINED if settings.num_parts and settings.scwm.cluster_feature == "concat" else 0


def serves_twice(settings: Settings) -> bool:
    """Whether the lists of the space that is clustered are also those of the global feature in SCWM eq. 7."""
    return settings.num_parts > 0 and clustered_space(settings) == 0


def list_length(settings: Settings) -> int:
    """Neighbours that are needed in the space that is clustered: the nearest k1 for Jaccard, the nearest k + 1 for
    eq. 7."""
    method = settings.method
    k1 = method.k1 if method.k1_counts_itself else method.k1 + 1
    return max(k1, settings.scwm.difficulty_neighbours + 1) if serves_twice(settings) else k1


def counted(labels_N: Ints, settings: Settings, version: int) -> int:
    """How many clusters there are.

    Raises:
      ValueError: none.
    """
    num_clusters = int(labels_N.max()) + 1
    if num_clusters == 0:
        method = settings.method
        raise ValueError(
            f"epoch {version}: all {len(labels_N)} images are outliers: raise method.eps (now {method.eps}) or "
            f"lower method.min_samples (now {method.min_samples})"
        )
    return num_clusters


def write_labels(bank: MemoryBank, version: int, labels_N: Ints, alphas_NL: Floats, centroids_CSD: Floats) -> None:
    """Into the bank; waits until all is there."""
    bank.put_centroids(version, centroids_CSD)
    for block, (first, count) in enumerate(bank.layout("train")):
        bank.put("train/labels", version, block, labels_N[first : first + count])
        bank.put("train/alphas", version, block, alphas_NL[first : first + count])
    bank.flush()
