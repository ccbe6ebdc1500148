"""The search service of many labellers: block tasks, whose lists are merged here, then Jaccard, DBSCAN, centroids.

Each pair of blocks of images is searched once, by whoever is free; a task brings what is near and not known yet, and a
later one is told how near its images' neighbours are by then. Nobody holds all features: a task reads the blocks that
it is about, and what goes on from there are neighbour lists. Tasks write nothing, or the same rows again, so a labeller
that died over one and was started again does it again.

N = images, C = clusters, K = neighbours, S = vectors of a feature, D = their width, L = parts, M = members of clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from reidray import dispatch
from reidray.arrays import Floats, Ints
from reidray.bank import Member, MemoryBank
from reidray.labelling import Criterion, camera_numbers, camera_offsets
from reidray.methods.label_search import (
    Clustering,
    DbscanSettings,
    Inputs,
    JaccardSettings,
    Merging,
    Neighbours,
    Space,
)
from reidray.neighbours import Found, Lists, merged, no_lists
from reidray.training.graphs import pieces
from reidray.training.pool import Task, TaskPool
from reidray.training.reading import Arrivals, Moment, Stretch, stretches

_TASKS_A_MEMBER = 4  # at least, of the search of a space where there are as many pairs of blocks
_LONGEST_STRIP = 8  # blocks that a task compares one block with


@final
class BlockSearch:
    """See `reidray.methods.label_search.Search`. Its tasks run in threads of their own until `close`.

    Args:
      members: labellers.
      bank: with the generation that searches.
      inputs: of the epoch.
      block: images of a block at least.
      arrivals: tells which features are there, where tasks begin while features still come in.
      searches: how many are to be expected one after the other, see `reidray.methods.method.Method`.
    """

    def __init__(
        self,
        members: Sequence[Member],
        bank: MemoryBank,
        inputs: Inputs,
        block: int,
        arrivals: Arrivals | None,
        searches: int = 1,
    ) -> None:
        self.inputs = inputs
        self._expected = searches
        self._moment = Moment(inputs.epoch, bank.generation)
        self._block = block
        self._blocks = stretches(bank.layout("train"), block)
        self.count = sum(block.count for block in self._blocks)
        self._strip = strip_length(len(self._blocks) * (len(self._blocks) - 1) // 2, len(members))
        self._there: Callable[[Stretch], bool] = (lambda _: True) if arrivals is None else arrivals.of
        self._pool = TaskPool(members)
        self._searches: list[GrowingLists] = []

    def share_done(self) -> float:
        """Of the pairs of images that all searches compare, those to come as well, the share that was compared."""
        searches = list(self._searches)
        whole = sum(sum(search.pairs_T) for search in searches)
        if not whole:
            return 0.0
        return sum(search.pairs_done() for search in searches) / whole * min(1, len(searches) / self._expected)

    def close(self) -> None:
        """Begin no further task, and wait for those that are under way."""
        self._pool.close()

    def nearest(self, space: Space, k: int) -> Neighbours:
        """The search begins at once."""
        lists = GrowingLists(
            self._moment, space, self._blocks, min(k, self.count), strip=self._strip, there=self._there
        )
        self._searches.append(lists)
        self._pool.add(lists.tasks)
        return lists

    def cluster(self, neighbours: Neighbours, jaccard: JaccardSettings, dbscan: DbscanSettings) -> Clustering:
        """See `Search.cluster`: the work of one labeller, while the others search on."""
        assert isinstance(neighbours, GrowingLists)
        lists = neighbours.lists()
        task = Task("cluster", lambda: (self._moment, neighbours.space, *lists, jaccard, dbscan))
        self._pool.add([task], first=True)
        found: Clustering = task.future.result()
        return found

    def overlaps(self, whole: Neighbours, others: Sequence[Neighbours], k: int) -> Floats:
        """See `Search.overlaps`: computed here, of the lists."""
        found: Floats = dispatch.as_numpy(
            dispatch.difficulty(whole.indices()[:, :k], (other.indices() for other in others))
        )
        return found

    def merged(self, space: Space, labels_N: Ints, count: int, criterion: Criterion) -> Merging:
        """See `Search.merged`: one labeller reads all features of the space."""
        task = Task("merge", lambda: (self._moment, space, labels_N, count, criterion), ready=self._all_there)
        self._pool.add([task], first=True)
        found: Merging = task.future.result()
        return found

    def transformed(self, feature: str, order_N: Ints, graph: int, name: str) -> str:
        """See `Search.transformed`: labellers write the rows to the bank, where the tasks to come find them."""
        tasks = [
            Task("transform", self._transform(feature, own, graph, name), ready=self._all_there)
            for own in pieces(order_N, graph, self.count, self._block)
        ]
        self._pool.add(tasks, first=True)
        for task in tasks:
            task.future.result()
        return name

    def _transform(self, feature: str, own: Ints, graph: int, name: str) -> Callable[[], tuple[Any, ...]]:
        return lambda: (self._moment, feature, own, graph, name, self.inputs.modules)

    def centred(self, feature: str, name: str) -> str:
        """See `Search.centred`: labellers add up the features of cameras, then write the new rows to the bank."""
        cameras_N, count = camera_numbers(self.inputs.cameras_N)

        def of(block: Stretch) -> Ints:
            return cameras_N[block.first : block.first + block.count]

        def adding(block: Stretch) -> Task:
            return Task(
                "camera_sums",
                lambda: (self._moment, feature, block, of(block), count),
                ready=lambda: self._there(block),
            )

        added = [adding(block) for block in self._blocks]
        self._pool.add(added, first=True)
        sums_KSD = sum(task.future.result() for task in added)
        offsets_KSD = camera_offsets(sums_KSD, cameras_N)

        def centring(block: Stretch) -> Task:
            return Task("centre", lambda: (self._moment, feature, block, of(block), offsets_KSD, name))

        made = [centring(block) for block in self._blocks]
        self._pool.add(made, first=True)
        for task in made:
            task.future.result()
        return name

    def _all_there(self) -> bool:
        return all(self._there(block) for block in self._blocks)

    def means(self, feature: str, labels_N: Ints) -> Floats:
        """See `Search.means`: of as many clusters at once as have a block of images together."""
        sizes_C = np.bincount(labels_N[labels_N >= 0])
        tasks = [self._mean(feature, labels_N, clusters) for clusters in groups(sizes_C, self._block)]
        self._pool.add(tasks, first=True)
        return np.concatenate([task.future.result() for task in tasks])

    def _mean(self, feature: str, labels_N: Ints, clusters: range) -> Task:
        return Task("centroids", lambda: (self._moment, feature, *members(labels_N, clusters)))


@final
class GrowingLists:
    """The lists of one space, while they grow: see `reidray.methods.label_search.Neighbours`.

    Args:
      moment, space: whose features, see `reidray.training.reading`.
      blocks: all images.
      k: neighbours of each, itself included; no more than there are images.
      strip: blocks that a task compares one block with.
      there: whether the features of these images are in the bank.

    Attributes:
      tasks: each block with itself, then each pair of blocks once.
      pairs_T: of images, that each task compares.
    """

    def __init__(
        self,
        moment: Moment,
        space: Space,
        blocks: list[Stretch],
        k: int,
        *,
        strip: int,
        there: Callable[[Stretch], bool],
    ) -> None:
        self.space = space
        self._moment, self._blocks, self._there = moment, blocks, there
        self._lists = [no_lists(block.count, k) for block in blocks]
        everyone = range(len(blocks))
        strips = [(row, [row]) for row in everyone]
        for row in everyone:
            for start in range(row + 1, len(blocks), strip):
                strips.append((row, list(everyone[start : start + strip])))
        self.tasks = [self._task(row, columns) for row, columns in strips]
        self.pairs_T = [blocks[row].count * sum(blocks[column].count for column in columns) for row, columns in strips]

    def pairs_done(self) -> int:
        """Pairs of images that were compared."""
        return sum(pairs for task, pairs in zip(self.tasks, self.pairs_T, strict=True) if task.future.done())

    def lists(self) -> Lists:
        """Of all images; waits for them."""
        for task in self.tasks:
            task.future.result()
        indices, similarities = zip(*self._lists, strict=True)
        return Lists(np.concatenate(indices), np.concatenate(similarities))

    def indices(self) -> Ints:
        """See `Neighbours.indices`."""
        return self.lists().indices_RK

    def _task(self, row: int, columns: list[int]) -> Task:
        def arguments() -> tuple[Any, ...]:
            others = [(self._blocks[column], self._lists[column].similarities_RK) for column in columns]
            return self._moment, self.space, self._blocks[row], self._lists[row].similarities_RK, others

        def then(found: tuple[Found, list[Found]]) -> None:
            mine, theirs = found
            self._lists[row] = merged(self._lists[row], mine)
            for column, its in zip(columns, theirs, strict=True):
                self._lists[column] = merged(self._lists[column], its)

        def ready() -> bool:
            return all(self._there(self._blocks[block]) for block in (row, *columns))

        return Task("find", arguments, then, ready)


def strip_length(pairs: int, members: int) -> int:
    """With how many blocks a task compares one, of so many pairs: so few that each member gets several tasks."""
    return max(1, min(_LONGEST_STRIP, pairs // (_TASKS_A_MEMBER * members)))


def members(labels_N: Ints, clusters: range) -> tuple[Ints, Ints]:
    """The images of clusters that follow each other, and the cluster of each, counted from the first of these."""
    members_M = np.flatnonzero((labels_N >= clusters.start) & (labels_N < clusters.stop))
    return members_M, labels_N[members_M] - clusters.start


def groups(sizes_C: Ints, most: int) -> list[range]:
    """Clusters that follow each other and have at most `most` images together, or a single one with more."""
    found: list[range] = []
    begin, images = 0, 0
    for cluster, size in enumerate(sizes_C.tolist()):
        if cluster > begin and images + size > most:
            found.append(range(begin, cluster))
            begin, images = cluster, 0
        images += size
    return [*found, range(begin, len(sizes_C))]
