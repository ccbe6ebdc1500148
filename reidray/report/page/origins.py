"""How the clusters of one epoch came out of those of the labelling before.

N = images, C = clusters of the later labelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from reidray.arrays import Ints

KINDS = ("kept", "merged", "split", "mixed", "new")
"""What can have become of a cluster; `MEANINGS` says what each means."""

MEANINGS = {
    "kept": "at least half of it was one cluster, and at least half of that cluster is still in it",
    "merged": "several clusters came together: at least half of each is in it now",
    "split": "at least half of it was one cluster, most of which is elsewhere now",
    "mixed": "no cluster of before makes up half of it",
    "new": "at least half of its images were outliers",
}


@dataclass(frozen=True)
class Origin:
    """Of a cluster: what became of it (one of `KINDS`), and from where its images are: (cluster before, images)."""

    kind: str
    sources: tuple[tuple[int, int], ...]


def origins(labels_N: Ints, before_N: Ints) -> list[Origin]:
    """The origin of each cluster; -1 are outliers in both."""
    count = int(labels_N.max(initial=-1)) + 1
    sizes_C = np.bincount(labels_N[labels_N >= 0], minlength=count)
    sizes_B = np.bincount(before_N[before_N >= 0], minlength=1)
    there = labels_N >= 0
    pairs_2U, times_U = np.unique(np.stack([labels_N[there], before_N[there]]), axis=1, return_counts=True)
    sources: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for cluster, source, times in zip(*pairs_2U.tolist(), times_U.tolist(), strict=True):
        sources[cluster].append((source, times))
    return [_origin(own, int(sizes_C[cluster]), sizes_B) for cluster, own in enumerate(sources)]


def _origin(sources: list[tuple[int, int]], size: int, sizes_B: Ints) -> Origin:
    ranked = tuple(sorted(sources, key=lambda source: (-source[1], source[0])))
    whole = [images for cluster, images in ranked if cluster >= 0 and images > 1 and 2 * images >= sizes_B[cluster]]
    first, images = ranked[0]
    if len(whole) > 1:
        kind = "merged"
    elif 2 * images < size:
        kind = "mixed"
    elif first < 0:
        kind = "new"
    else:
        kind = "kept" if 2 * images >= sizes_B[first] else "split"
    return Origin(kind, ranked)


def by_epoch(labels: Mapping[int, Ints]) -> list[tuple[int, dict[str, int]]]:
    """For each labelling but the first its epoch and how many clusters became what."""
    epochs = sorted(labels)
    found = []
    for before, epoch in pairwise(epochs):
        if len(labels[before]) == len(labels[epoch]):
            kinds = [origin.kind for origin in origins(labels[epoch], labels[before])]
            found.append((epoch, {kind: kinds.count(kind) for kind in KINDS}))
    return found
