"""Which images make the batches of an epoch: P clusters times K images, a pure function of labels, seed and epoch."""

# N = images, B = batch = P * K, C = clusters, P = clusters per step, K = images per cluster

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reidray.arrays import Ints

_SHUFFLE_STREAM = 9
_STREAM = 1  # keeps these random numbers apart from those of other rooms with the same seed and epoch


def epoch_batches(
    labels_N: NDArray[np.integer],
    cameras_N: NDArray[np.integer],
    *,
    num_clusters: int,
    num_instances: int,
    steps: int,
    seed: int,
    epoch: int,
    prefer_other_cameras: bool,
) -> Ints:
    """Draws the global batches of an epoch.

    The clusters of a step come from a permutation of all clusters, num_clusters at a time; when fewer remain, a new
    permutation begins. With fewer clusters than num_clusters every cluster is in every step, some (by chance, as evenly
    as possible) more than once, so that the size of a batch never changes. Of a cluster, images are drawn without
    replacement; when it has too few, all its images are drawn once, then all again in a fresh order, and so on.

    With prefer_other_cameras the first image is drawn at random and the following come from cameras not drawn yet as
    long as there are any, then from cameras drawn once, and so on (the habit of open-reid's identity sampler).

    Args:
      labels_N: pseudo-label of every image, -1 (or less) unassigned and never drawn; labels may have gaps.
      cameras_N: camera of every image; images of camera -1 (unknown) count as of one camera.
      num_clusters: P, at least 1.
      num_instances: K, at least 1.
      steps: number of batches, at least 1.
      seed: of the run, not negative.
      epoch: not negative.
      prefer_other_cameras: see above; False ignores cameras_N.

    Returns:
      Indices into labels_N, int64 [steps, P * K]; the images of one cluster stand together.

    Raises:
      ValueError: nothing is assigned, a number is out of range, or the arrays differ in length.
    """
    labels_N, cameras_N = np.asarray(labels_N), np.asarray(cameras_N)
    if labels_N.ndim != 1 or labels_N.shape != cameras_N.shape:
        raise ValueError(
            f"labels and cameras must be two lists of equal length, got shapes {labels_N.shape} and {cameras_N.shape}; "
            f"do they belong to the same shards?"
        )
    if min(num_clusters, num_instances, steps) < 1 or min(seed, epoch) < 0:
        raise ValueError(
            f"num_clusters, num_instances and steps must be at least 1 and seed and epoch at least 0, got "
            f"{num_clusters}, {num_instances}, {steps}, {seed} and {epoch}; correct the settings."
        )
    members = _members(labels_N)
    if not members:
        raise ValueError(
            f"expected at least one cluster to sample from, but all {len(labels_N)} images are outliers; raise eps or "
            f"lower min_samples."
        )
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([_STREAM, seed, epoch])))
    batches = np.empty((steps, num_clusters * num_instances), dtype=np.int64)
    choices = _choose_clusters(len(members), num_clusters, generator)
    for batch_B in batches:
        filled = 0
        for cluster, times in next(choices):
            count = times * num_instances
            indices = members[cluster]
            chosen = _draw(cameras_N[indices] if prefer_other_cameras else None, len(indices), count, generator)
            batch_B[filled : filled + count] = indices[chosen]
            filled += count
        assert filled == len(batch_B)
    return batches


def _members(labels_N: NDArray[np.integer]) -> list[Ints]:
    order = np.argsort(labels_N, kind="stable").astype(np.int64)
    order = order[np.searchsorted(labels_N[order], 0) :]
    if not len(order):
        return []
    return np.split(order, np.flatnonzero(np.diff(labels_N[order])) + 1)


def _choose_clusters(total: int, num_clusters: int, generator: np.random.Generator) -> Iterator[list[tuple[int, int]]]:
    """Yields the clusters of one step after the other, each with how many times K images it gives."""
    order = np.empty(0, dtype=np.int64)
    while True:
        if total < num_clusters:
            everyone, extra = divmod(num_clusters, total)
            yield [(int(c), everyone + (place < extra)) for place, c in enumerate(generator.permutation(total))]
            continue
        if len(order) < num_clusters:
            order = generator.permutation(total)
        yield [(int(c), 1) for c in order[:num_clusters]]
        order = order[num_clusters:]


def _draw(cameras: NDArray[np.integer] | None, size: int, count: int, generator: np.random.Generator) -> Ints:
    """Positions of `count` images among the `size` of one cluster."""
    if cameras is None and count <= size:
        return generator.choice(size, count, replace=False)
    rounds = []
    for _ in range(-(-count // size)):
        order = generator.permutation(size)
        rounds.append(order if cameras is None else order[_by_turns(cameras[order])])
    return np.concatenate(rounds)[:count]


def _by_turns(cameras: NDArray[np.integer]) -> Ints:
    """The order in which every camera's first image comes before any camera's second, and so on; else unchanged."""
    by_camera = np.argsort(cameras, kind="stable")
    _, first, inverse = np.unique(cameras[by_camera], return_index=True, return_inverse=True)
    turn = np.empty(len(cameras), dtype=np.int64)
    turn[by_camera] = np.arange(len(cameras)) - first[inverse]
    return np.argsort(turn, kind="stable")


def shuffled_batches(num_images: int, *, batch_size: int, seed: int, epoch: int) -> Ints:
    """All images in a new order, batch by batch; those that fill no batch are left out.

    Returns:
      int64 [num_images // batch_size, batch_size].

    Raises:
      ValueError: there are fewer images than a batch has.
    """
    if num_images < batch_size:
        raise ValueError(f"a batch of {batch_size} images needs as many, got {num_images}: lower the size of the batch")
    key = np.random.SeedSequence([_SHUFFLE_STREAM, seed, epoch])
    order_N = np.random.Generator(np.random.Philox(key)).permutation(num_images)
    return order_N[: num_images - num_images % batch_size].reshape(-1, batch_size)
