"""Doubts of an epoch's labels, by all labellers: whole clusters first, then images against the centroids of all.

N = images, C = clusters, D = feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reidray.arrays import Floats, Ints
from reidray.bank import Member, MemoryBank
from reidray.evaluation.doubts import Doubts, Inside, Others, joined, nearer, nobody
from reidray.methods.label_search import Space
from reidray.training.block_search import groups, members
from reidray.training.pool import Task, TaskPool
from reidray.training.reading import Moment, Stretch, stretches


def judge_by_blocks(
    labellers: Sequence[Member],
    bank: MemoryBank,
    moment: Moment,
    space: Space,
    labels_N: Ints,
    block: int,
    progress: Callable[[float], None] = lambda _: None,
) -> Doubts:
    """See `reidray.evaluation.doubts`; waits.

    A task takes clusters of `block` images, or a block of images and as many centroids; this process holds what they
    found, and the centroids. The result does not depend on the number of labellers.

    Args:
      space: of the features.
      labels_N: the cluster of each image, -1 for outliers; every cluster 0 .. C-1 has an image.
      block: images of a block at least.
      progress: called with the share that is done, after each task.
    """
    labels_N = np.array(labels_N, np.int64)
    blocks = stretches(bank.layout("train"), block)
    inside_N, halves_N = np.zeros(len(labels_N), np.float32), np.full(len(labels_N), -1, np.int8)
    pool = TaskPool(labellers)
    try:
        found: list[Inside] = []
        looks = groups(np.bincount(labels_N[labels_N >= 0]), block) if labels_N.max(initial=-1) >= 0 else []
        tasks = [_look_inside(moment, space, labels_N, clusters) for clusters in looks]
        pool.add(tasks)
        for task, clusters in zip(tasks, looks, strict=True):
            found.append(task.future.result())
            images_M, _ = members(labels_N, clusters)
            inside_N[images_M], halves_N[images_M] = found[-1].inside_M, found[-1].halves_M
        centroids_CD = np.concatenate([one.centroids_CD for one in found]) if found else np.empty((0, 1), np.float32)
        across_C = np.concatenate([one.across_C for one in found]) if found else np.empty(0, np.float32)
        others = [nobody(stretch.count) for stretch in blocks]
        pairs = [(place, first) for place in range(len(blocks)) for first in range(0, len(centroids_CD), block)]
        compared = [
            _nearest_others(moment, space, blocks[place], labels_N, centroids_CD, first, block)
            for place, first in pairs
        ]
        pool.add(compared)
        for done, (task, (place, _)) in enumerate(zip(compared, pairs, strict=True), start=1):
            others[place] = nearer(others[place], task.future.result())
            progress(done / len(pairs))
    finally:
        pool.close()
    all_others = Others(*(np.concatenate(parts) for parts in zip(*others, strict=True)))
    return joined(labels_N, inside_N, halves_N, across_C, all_others)


def _look_inside(moment: Moment, space: Space, labels_N: Ints, clusters: range) -> Task:
    return Task("look_inside", lambda: (moment, space, *members(labels_N, clusters)))


def _nearest_others(
    moment: Moment, space: Space, stretch: Stretch, labels_N: Ints, centroids_CD: Floats, first: int, block: int
) -> Task:
    own = slice(stretch.first, stretch.first + stretch.count)
    return Task(
        "nearest_others", lambda: (moment, space, stretch, labels_N[own], centroids_CD[first : first + block], first)
    )
