"""What clusters say of cameras, and of pairs of cameras.

N = images, C = clusters, K = cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reidray.arrays import Array, Ints

MOST = 12
"""Cameras whose pairs are shown: those with the most images."""


@dataclass(frozen=True)
class Camera:
    """A camera (-1: unknown): images, outliers among them, clusters with an image of it, and those with no other's."""

    camera: int
    images: int
    outliers: int
    clusters: int
    alone: int


@dataclass(frozen=True)
class Pairs:
    """Of pairs of cameras.

    cameras: the rows and columns. clusters: clusters seen by both. matches: pairs of images of one cluster, one from
    each camera. right: the percentage of these that show the same person, None where unknown or where there are none.
    """

    cameras: tuple[int, ...]
    clusters: list[list[int]]
    matches: list[list[int]]
    right: list[list[float | None]]


def of_cameras(labels_N: Ints, cameras_N: Array) -> list[Camera]:
    """Each camera, by its number."""
    cameras, counts_CK = _counts(labels_N, cameras_N)
    kinds_C = (counts_CK > 0).sum(1)
    found = []
    for place, camera in enumerate(cameras.tolist()):
        own = cameras_N == camera
        seen_C = counts_CK[:, place] > 0
        found.append(
            Camera(
                camera,
                int(own.sum()),
                int((own & (labels_N < 0)).sum()),
                int(seen_C.sum()),
                int((seen_C & (kinds_C == 1)).sum()),
            )
        )
    return found


def of_pairs(labels_N: Ints, cameras_N: Array, persons_N: Ints | None) -> Pairs | None:
    """Pairs of the known cameras with the most images; None where fewer than two are known."""
    known = cameras_N >= 0
    cameras, sizes = np.unique(cameras_N[known], return_counts=True)
    if len(cameras) < 2:
        return None
    shown = np.sort(cameras[np.argsort(-sizes, kind="stable")[:MOST]])
    kept = known & np.isin(cameras_N, shown)
    _, counts_CK = _counts(labels_N[kept], cameras_N[kept])
    seen_CK = (counts_CK > 0).astype(np.int64)
    clusters_KK, matches_KK = seen_CK.T @ seen_CK, _within(counts_CK)
    right_KK: list[list[float | None]] = [[None] * len(shown) for _ in shown]
    if persons_N is not None:
        judged = kept & (persons_N > 0)
        groups = np.unique(np.stack([labels_N[judged], persons_N[judged]]), axis=1, return_inverse=True)[1]
        same_KK = _within(_counts(np.where(labels_N[judged] >= 0, groups.reshape(-1), -1), cameras_N[judged], shown)[1])
        of_KK = _within(_counts(labels_N[judged], cameras_N[judged], shown)[1])
        right_KK = [
            [100 * int(same) / int(of) if of else None for same, of in zip(*rows, strict=True)]
            for rows in zip(same_KK, of_KK, strict=True)
        ]
    return Pairs(tuple(shown.tolist()), clusters_KK.tolist(), matches_KK.tolist(), right_KK)


def _counts(labels_N: Ints, cameras_N: Array, cameras: Array | None = None) -> tuple[Array, Ints]:
    """The cameras, and images by cluster and camera [C, K]."""
    cameras = np.unique(cameras_N) if cameras is None else cameras
    there = labels_N >= 0
    counts = np.zeros((int(labels_N.max(initial=-1)) + 1, len(cameras)), np.int64)
    np.add.at(counts, (labels_N[there], np.searchsorted(cameras, cameras_N[there])), 1)
    return cameras, counts


def _within(counts_CK: Ints) -> Ints:
    """Pairs of images of one group, one from each camera; within one camera each pair once."""
    pairs_KK = counts_CK.T @ counts_CK
    diagonal = (counts_CK * (counts_CK - 1) // 2).sum(0)
    np.fill_diagonal(pairs_KK, diagonal)
    return pairs_KK
