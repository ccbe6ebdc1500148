"""What the images of a camera have in common, taken out of their features before neighbours are searched.

A camera's light, colours and background shift the features of all of its images alike, so that strangers of one camera
can be nearer than a person under two. The shift is taken as the mean of the camera's images minus that of all cameras
(as camera-wise centring of the features; Z. Zhuang et al., "Rethinking the Distribution Gap of Person
Re-identification with Camera-Based Batch Normalization", ECCV 2020, do it within the network). Where a camera saw few
images, their mean is about persons more than about the camera: the shift is then taken in part.

Sums are kept as whole numbers, which add up to the same bits in any order and any division into blocks.

N = images, R = images of a block, K = cameras, S = vectors of a feature, D = their width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reidray.arrays import Floats, Ints

_SCALE = 2.0**36  # sums of up to 2**27 numbers of at most 1 fit in 64 bits
_FEW = 10  # a camera of so many images has half of its shift taken out


def camera_numbers(cameras_N: Any) -> tuple[Ints, int]:
    """Cameras as numbers 0 .. K - 1, -1 where unknown, and K."""
    cameras_N = np.asarray(cameras_N)
    known_M = np.flatnonzero(cameras_N >= 0)
    found, numbers_M = np.unique(cameras_N[known_M], return_inverse=True)
    numbers_N = np.full(len(cameras_N), -1, np.int64)
    numbers_N[known_M] = numbers_M
    return numbers_N, len(found)


def camera_sums(features_RSD: Floats, cameras_R: Ints, num_cameras: int) -> Ints:
    """Sums of the features of each camera, in units of 2^-36: int64 [K, S, D]. Those of several blocks are added.

    Args:
      features_RSD: unit length.
      cameras_R: 0 .. K - 1, below 0 where unknown.
    """
    known_M = np.flatnonzero(cameras_R >= 0)
    order_M = known_M[np.argsort(cameras_R[known_M], kind="stable")]
    sums_KSD = np.zeros((num_cameras, *features_RSD.shape[1:]), np.int64)
    if len(order_M):
        found, starts = np.unique(cameras_R[order_M], return_index=True)
        whole_MSD = np.rint(features_RSD[order_M].astype(np.float64) * _SCALE).astype(np.int64)
        sums_KSD[found] = np.add.reduceat(whole_MSD, starts, axis=0)
    return sums_KSD


def camera_offsets(sums_KSD: Ints, cameras_N: Ints) -> Floats:
    """The shift of each camera from all of them together: float32 [K, S, D].

    n / (n + 10) of the difference of the means, n the images of the camera.

    Args:
      sums_KSD: of all images, see `camera_sums`.
      cameras_N: of all images, 0 .. K - 1, each at least once, below 0 where unknown.
    """
    counts_K11 = np.bincount(cameras_N[cameras_N >= 0]).astype(np.float64)[:, None, None]
    means_KSD = sums_KSD / (_SCALE * counts_K11)
    mean_SD = sums_KSD.sum(0) / (_SCALE * max(counts_K11.sum(), 1.0))
    found: Floats = (counts_K11 / (counts_K11 + _FEW) * (means_KSD - mean_SD)).astype(np.float32)
    return found


def without_offsets(features_RSD: Floats, cameras_R: Ints, offsets_KSD: Floats) -> Floats:
    """Features without the shift of their camera, at unit length: float32 [R, S, D]. Those of unknown cameras stay."""
    moved_RSD = features_RSD.copy()
    known_M = np.flatnonzero(cameras_R >= 0)
    rows_MSD = features_RSD[known_M] - offsets_KSD[cameras_R[known_M]]
    moved_RSD[known_M] = rows_MSD / np.maximum(np.linalg.norm(rows_MSD, axis=-1, keepdims=True), 1e-12)
    return moved_RSD


def centred(features_NSD: Floats, cameras_N: Any, *, at_once: int) -> Floats:
    """Features of all images without the shifts of their cameras, float32 [N, S, D], `at_once` images at a time.

    Args:
      features_NSD: unit length.
      cameras_N: any numbers, below 0 where unknown.
    """
    numbers_N, count = camera_numbers(cameras_N)
    sums_KSD = np.zeros((count, *features_NSD.shape[1:]), np.int64)
    stretches = [slice(start, start + at_once) for start in range(0, len(features_NSD), at_once)]
    for own in stretches:
        sums_KSD += camera_sums(features_NSD[own], numbers_N[own], count)
    offsets_KSD, made_NSD = camera_offsets(sums_KSD, numbers_N), np.empty(features_NSD.shape, np.float32)
    for own in stretches:
        made_NSD[own] = without_offsets(features_NSD[own], numbers_N[own], offsets_KSD)
    return made_NSD
