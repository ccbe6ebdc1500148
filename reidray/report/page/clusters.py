"""The order in which clusters are shown, the doubtful ones first, and what is noted of each.

N = images, C = clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reidray.arrays import Array, Ints
from reidray.evaluation.doubts import Doubts
from reidray.report.page.origins import Origin, origins

FLAGS = {
    "camera": "one camera only",
    "merge": "may belong to another cluster",
    "split": "may be two clusters",
    "persons": "wrong merge: several persons",
    "changed": "not the cluster it was",
}
"""What can be odd about a cluster."""

_FLAG = 0.1  # of doubt that each sign of trouble counts for
_WIDE = 0.535  # from this width on several persons are likely: 1.15 times as far across as to the next cluster
_TOWARDS = 0.75  # share of images with the same nearest cluster, from which two clusters may be one


@dataclass(frozen=True)
class Shown:
    """The clusters in the order of the page.

    order_N: the images in that order: those of the first cluster, the most doubtful first, and so on, then outliers.
    clusters: of each what the page's script reads. outliers: how many images the order ends with.
    """

    order_N: Ints
    clusters: list[dict[str, Any]]
    outliers: int


def shown(
    labels_N: Ints,
    doubts: Doubts,
    cameras_N: Array,
    *,
    persons_N: Ints | None,
    before_N: Ints | None,
) -> Shown:
    """Orders the clusters.

    Args:
      labels_N: of the last labelling.
      doubts: of these.
      cameras_N: -1 where unknown.
      persons_N: true identities, None where unknown.
      before_N: of the labelling before, None for none.
    """
    count = len(doubts.doubts_C)
    came = origins(labels_N, before_N) if before_N is not None else None
    by_cluster = _members(labels_N, count)
    several = len(np.unique(cameras_N[cameras_N >= 0])) > 1
    rows = [_row(cluster, by_cluster[cluster], doubts, cameras_N, persons_N, several, came) for cluster in range(count)]
    signs = ("camera", "merge", "split")
    rows.sort(key=lambda row: (-(row["doubt"] + _FLAG * sum(flag in signs for flag in row["flags"])), row["cluster"]))
    pieces, start = [], 0
    for row in rows:
        own = by_cluster[row["cluster"]]
        pieces.append(own[np.argsort(-doubts.doubts_N[own], kind="stable")])
        row["start"] = start
        start += len(own)
    outliers = np.flatnonzero(labels_N < 0)
    pieces.append(outliers[np.argsort(doubts.nearest_N[outliers], kind="stable")])
    return Shown(np.concatenate(pieces).astype(np.int64), rows, len(outliers))


def _members(labels_N: Ints, count: int) -> list[Ints]:
    order_N = np.argsort(labels_N, kind="stable")
    ends = np.searchsorted(labels_N[order_N], np.arange(count + 1))
    return [order_N[ends[cluster] : ends[cluster + 1]] for cluster in range(count)]


def _row(
    cluster: int,
    own: Ints,
    doubts: Doubts,
    cameras_N: Array,
    persons_N: Ints | None,
    several: bool,
    came: Sequence[Origin] | None,
) -> dict[str, Any]:
    cameras = _tally(cameras_N[own])
    nearest = int(doubts.nearest_C[cluster])
    towards = float((doubts.nearest_N[own] == nearest).mean())
    both = nearest >= 0 and int(doubts.nearest_C[nearest]) == cluster
    doubt, width = float(doubts.doubts_C[cluster]), float(doubts.widths_C[cluster])
    flags = []
    if several and len(cameras) == 1 and cameras[0][0] >= 0:
        flags.append("camera")
    if both and towards >= _TOWARDS:
        flags.append("merge")
    if width >= _WIDE:
        flags.append("split")
    row: dict[str, Any] = {
        "cluster": cluster, "size": len(own), "doubt": round(doubt, 3), "cameras": cameras, "nearest": nearest,
        "towards": round(towards, 3),
    }  # fmt: skip
    if persons_N is not None:
        row["persons"] = _tally(persons_N[own][persons_N[own] > 0])
        if len(row["persons"]) > 1:
            flags.append("persons")
    if came is not None:
        origin = came[cluster]
        row["kind"] = origin.kind
        row["sources"] = [list(source) for source in origin.sources[:4]]
        if origin.kind != "kept":
            flags.append("changed")
    return {**row, "flags": flags}


def _tally(values: Array) -> list[list[int]]:
    """Values and how often each comes, the most frequent first."""
    found, times = np.unique(values, return_counts=True)
    order = np.argsort(-times, kind="stable")
    return [[int(found[place]), int(times[place])] for place in order]


def wrong_splits(labels_N: Ints, persons_N: Ints) -> list[dict[str, Any]]:
    """Persons whose images are in several clusters, those with the most images outside of their largest one first.

    Returns:
      of each its person, images and clusters [[cluster, images], ...] with -1 for outliers, which do not count as a
      cluster.
    """
    known = persons_N > 0
    pairs_2U, times_U = np.unique(np.stack([persons_N[known], labels_N[known]]), axis=1, return_counts=True)
    found: dict[int, list[list[int]]] = {}
    for person, cluster, times in zip(*pairs_2U.tolist(), times_U.tolist(), strict=True):
        found.setdefault(person, []).append([cluster, times])
    rows = []
    for person, clusters in found.items():
        real = [times for cluster, times in clusters if cluster >= 0]
        if len(real) > 1:
            clusters.sort(key=lambda one: (one[0] < 0, -one[1], one[0]))
            total = sum(times for _, times in clusters)
            rows.append({"person": person, "size": total, "clusters": clusters, "apart": sum(real) - max(real)})
    return sorted(rows, key=lambda row: (-row["apart"], row["person"]))


def counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many clusters have each flag."""
    return {flag: sum(flag in row["flags"] for row in rows) for flag in FLAGS}
