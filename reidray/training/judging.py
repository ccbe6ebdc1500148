"""Doubts of an epoch's labels, by all labellers: whole clusters first, then images against the centroids of all.

N = images, C = clusters, B = clusters of a block, D = feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reidray.arrays import Floats, Ints
from reidray.bank import Member, MemoryBank
from reidray.evaluation.doubts import Doubts, Inside, Others, joined, nearer, nobody
from reidray.methods.label_search import Space
from reidray.training.block_search import groups, members, strip_length
from reidray.training.pool import Task, run_all
from reidray.training.reading import Moment, Stretch, stretches

_LOOK_IMAGES = 4096  # of the clusters that a task looks into, which takes many times the memory of their rows


def judge_by_blocks(
    labellers: Sequence[Member],
    bank: MemoryBank,
    moment: Moment,
    space: Space,
    labels_N: Ints,
    block: int,
    progress: Callable[[float], None] = lambda _: None,
) -> Doubts:
    """See `reidray.evaluation.doubts`; waits. The result does not depend on the number of labellers.

    A task looks into clusters of up to 4,096 images together, or into a single larger one; or it compares up to eight
    blocks of images with a block of centroids. This process holds the centroids, and what was found of each image.

    Args:
      space: of the features.
      labels_N: the cluster of each image, -1 for outliers; every cluster 0 .. C-1 has an image.
      block: images of a block at least, and centroids of one.
      progress: called with the share that is done, after each task.
    """
    labels_N = np.array(labels_N, np.int64)
    work = _Judgement(moment, space, labels_N, stretches(bank.layout("train"), block), block, progress)
    run_all(labellers, work.looks())
    run_all(labellers, work.comparisons(len(labellers)))
    return work.doubts()


class _Judgement:
    """What is known so far."""

    def __init__(
        self,
        moment: Moment,
        space: Space,
        labels_N: Ints,
        blocks: list[Stretch],
        block: int,
        progress: Callable[[float], None],
    ) -> None:
        self._moment, self._space, self._labels_N = moment, space, labels_N
        self._blocks, self._block, self._progress = blocks, block, progress
        self._sizes_C = np.bincount(labels_N[labels_N >= 0])
        self._inside_N = np.zeros(len(labels_N), np.float32)
        self._halves_N = np.full(len(labels_N), -1, np.int8)
        self._centroids_CD: Floats = np.empty((0, 0), np.float32)  # made when their width is known
        self._across_C = np.zeros(len(self._sizes_C), np.float32)
        self._others = [nobody(stretch.count) for stretch in blocks]
        self._done, self._all = 0, int(self._sizes_C.sum()) + len(labels_N) * len(self._sizes_C)

    def looks(self) -> list[Task]:
        """Tasks that look into all clusters."""
        clusters = groups(self._sizes_C, min(self._block, _LOOK_IMAGES)) if len(self._sizes_C) else []
        return [self._look(some) for some in clusters]

    def comparisons(self, labellers: int) -> list[Task]:
        """Tasks that compare all images with all centroids; these are known by then."""
        firsts = range(0, len(self._sizes_C), self._block)
        strip = strip_length(len(self._blocks) * len(firsts), labellers)
        starts = range(0, len(self._blocks), strip)
        return [
            self._compare(range(len(self._blocks))[start : start + strip], first)
            for first in firsts
            for start in starts
        ]

    def doubts(self) -> Doubts:
        """When all tasks are done."""
        others = Others(*(np.concatenate(parts) for parts in zip(*self._others, strict=True)))
        return joined(self._labels_N, self._inside_N, self._halves_N, self._across_C, others)

    def _look(self, clusters: range) -> Task:
        def then(found: Inside) -> None:
            images_M, _ = members(self._labels_N, clusters)
            own = slice(clusters.start, clusters.stop)
            if not self._centroids_CD.size:
                self._centroids_CD = np.empty((len(self._sizes_C), found.centroids_CD.shape[1]), np.float32)
            self._centroids_CD[own], self._across_C[own] = found.centroids_CD, found.across_C
            self._inside_N[images_M], self._halves_N[images_M] = found.inside_M, found.halves_M
            self._tell(len(images_M))

        return Task("look_inside", lambda: (self._moment, self._space, *members(self._labels_N, clusters)), then)

    def _compare(self, places: range, first: int) -> Task:
        blocks = [self._blocks[place] for place in places]
        own = slice(blocks[0].first, blocks[-1].first + blocks[-1].count)

        def arguments() -> tuple[object, ...]:
            centroids_BD = self._centroids_CD[first : first + self._block]
            return self._moment, self._space, blocks, self._labels_N[own], centroids_BD, first

        def then(found: list[Others]) -> None:
            for place, others in zip(places, found, strict=True):
                self._others[place] = nearer(self._others[place], others)
            self._tell((own.stop - own.start) * len(self._centroids_CD[first : first + self._block]))

        return Task("nearest_others", arguments, then)

    def _tell(self, done: int) -> None:
        self._done += done
        self._progress(self._done / self._all)
