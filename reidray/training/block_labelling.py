"""An epoch's labelling by many labellers: block tasks, whose lists are merged here, then Jaccard, DBSCAN, centroids.

Each pair of blocks of images is searched once, by whoever is free; a task brings what is near and not known yet, and a
later one is told how near its images' neighbours are by then. Nobody holds all features: a task reads the blocks that
it is about, and what goes on from there are neighbour lists. Tasks write nothing, so a labeller that died over one and
was started again does it again.

N = images, K = neighbours, C = clusters, S = spaces (0 = global, then L parts), M = members of some clusters.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from reidray import dispatch
from reidray.arrays import Floats, Ints
from reidray.bank import Member, MemoryBank
from reidray.config import Settings
from reidray.evaluation.criteria import neighbour_agreement
from reidray.labelling import labels_from_persons
from reidray.neighbours import Found, Lists, merged, no_lists
from reidray.training.label_rules import (
    LabelSummary,
    clustered_space,
    counted,
    list_length,
    serves_twice,
    write_labels,
)
from reidray.training.pool import Task, Work
from reidray.training.reading import Arrivals, Moment, Stretch, stretches

_TASKS_A_MEMBER = 4  # at least, of the search of a space where there are as many pairs of blocks
_LONGEST_STRIP = 8  # blocks that a task compares one block with


class BlockLabelling:
    """An epoch's labelling by all labellers; what it writes is what `Labeller.label` writes, bit for bit.

    Args:
      members: labellers.
      settings: the run's.
      bank: with the generation that writes.
      version: the epoch.
      persons_N: true identities where method.labels=ground_truth asks for them, else None.
      early: begin at once, in a thread, while features still come in; a task then waits for those that it is about.
    """

    def __init__(
        self,
        members: Sequence[Member],
        settings: Settings,
        bank: MemoryBank,
        version: int,
        persons_N: Ints | None,
        *,
        early: bool = False,
    ) -> None:
        self.version = version
        self._members, self._bank = members, bank
        self._epoch = _Epoch(settings, bank, version, len(members), Arrivals(bank, version) if early else None)
        self._work = Work(self._epoch.tasks(persons_N))
        self._thread = threading.Thread(target=self._work.run_all, args=(members,), daemon=True) if early else None
        if self._thread is not None:
            self._thread.start()

    def finish(self) -> LabelSummary:
        """Wait until all is done, and write it.

        Raises:
          ValueError: no cluster was found.
        """
        if self._thread is None:
            self._work.run_all(self._members)
        else:
            self._thread.join()
        self._work.check()
        for member in self._members:
            member.submit("forget")
        labels_N, alphas_NL = self._epoch.labels_N, self._epoch.difficulties()
        centroids_CSD = np.concatenate(self._epoch.centroids_CSD)
        assert labels_N is not None
        write_labels(self._bank, self.version, labels_N, alphas_NL, centroids_CSD)
        return LabelSummary(
            len(centroids_CSD),
            int((labels_N < 0).sum()),
            silhouette=self._epoch.silhouette,
            agreement=neighbour_agreement(alphas_NL),
        )


class Search:
    """The lists of one space, while they grow.

    Args:
      moment, space: whose features, see `reidray.training.reading`.
      blocks: all images.
      k: neighbours of each, itself included; no more than there are images.
      strip: blocks that a task compares one block with.
      then: is told when all lists are complete; returns the tasks that this makes possible.
      there: whether the features of these images are in the bank.
    """

    def __init__(
        self,
        moment: Moment,
        space: int,
        blocks: list[Stretch],
        k: int,
        *,
        strip: int,
        then: Callable[[], Iterable[Task]],
        there: Callable[[Stretch], bool],
    ) -> None:
        self._moment, self._space, self._blocks, self._strip = moment, space, blocks, strip
        self._then, self._there = then, there
        self._lists = [no_lists(block.count, k) for block in blocks]
        self._left = 0

    def tasks(self) -> list[Task]:
        """Each block with itself, then each pair of blocks once."""
        everyone = range(len(self._blocks))
        strips = [(row, [row]) for row in everyone]
        for row in everyone:
            for start in range(row + 1, len(self._blocks), self._strip):
                strips.append((row, list(everyone[start : start + self._strip])))
        self._left = len(strips)
        return [self._task(row, columns) for row, columns in strips]

    def lists(self) -> Lists:
        """Of all images."""
        indices, similarities = zip(*self._lists, strict=True)
        return Lists(np.concatenate(indices), np.concatenate(similarities))

    def _task(self, row: int, columns: list[int]) -> Task:
        def arguments() -> tuple[Any, ...]:
            others = [(self._blocks[column], self._lists[column].similarities_RK) for column in columns]
            return self._moment, self._space, self._blocks[row], self._lists[row].similarities_RK, others

        def done(found: tuple[Found, list[Found]]) -> Iterable[Task]:
            mine, theirs = found
            self._lists[row] = merged(self._lists[row], mine)
            for column, its in zip(columns, theirs, strict=True):
                self._lists[column] = merged(self._lists[column], its)
            self._left -= 1
            return () if self._left else self._then()

        def ready() -> bool:
            return all(self._there(self._blocks[block]) for block in (row, *columns))

        return Task("find", arguments, done, ready)


def strip_length(blocks: int, members: int) -> int:
    """With how many blocks a task compares one: so few that each member gets several tasks."""
    pairs = blocks * (blocks - 1) // 2
    return max(1, min(_LONGEST_STRIP, pairs // (_TASKS_A_MEMBER * members)))


class _Epoch:
    """What is known of an epoch, and what can be done next."""

    def __init__(
        self, settings: Settings, bank: MemoryBank, version: int, members: int, arrivals: Arrivals | None
    ) -> None:
        self._settings = settings
        self._there = (lambda _: True) if arrivals is None else arrivals.of
        self._version = version
        self._moment = Moment(version, bank.generation)
        self._blocks = stretches(bank.layout("train"), settings.run.search_block)
        self._count = sum(block.count for block in self._blocks)
        self._strip = strip_length(len(self._blocks), members)
        self._searches: dict[int, Search] = {}
        self.labels_N: Ints | None = None
        self.silhouette: float | None = None
        self.centroids_CSD: list[Floats] = []

    def tasks(self, persons_N: Ints | None) -> list[Task]:
        """Everything that can begin at once."""
        begin: list[Task] = []
        spaces = range(1 + self._settings.num_parts if self._settings.num_parts else 0)
        if persons_N is None:
            space = clustered_space(self._settings)
            begin += self._search(space, list_length(self._settings), self._cluster)
            spaces = spaces[1:] if serves_twice(self._settings) else spaces
        else:
            begin += self._labelled(labels_from_persons(persons_N))
        for space in spaces:
            begin += self._search(space, self._settings.scwm.difficulty_neighbours + 1, tuple)
        return begin

    def difficulties(self) -> Floats:
        """alpha of each part (SCWM eq. 7), once all lists are complete: [N, L]."""
        if self._settings.num_parts == 0:
            return np.empty((self._count, 0), np.float32)
        k = self._settings.scwm.difficulty_neighbours + 1
        of_spaces = (self._searches[space].lists().indices_RK for space in range(1 + self._settings.num_parts))
        return dispatch.as_numpy(dispatch.difficulty(next(of_spaces)[:, :k], of_spaces))

    def _search(self, space: int, k: int, then: Callable[[], Iterable[Task]]) -> list[Task]:
        search = Search(
            self._moment,
            space,
            self._blocks,
            min(k, self._count),
            strip=self._strip,
            then=then,
            there=self._there,
        )
        self._searches[space] = search
        return search.tasks()

    def _cluster(self) -> list[Task]:
        space = clustered_space(self._settings)

        def arguments() -> tuple[Any, ...]:
            return self._moment, space, *self._searches[space].lists()

        def done(found: tuple[Ints, float]) -> Iterable[Task]:
            labels_N, self.silhouette = found
            return self._labelled(labels_N)

        return [Task("cluster", arguments, done)]

    def _labelled(self, labels_N: Ints) -> list[Task]:
        """Labels are there: centroids can be taken, of as many clusters at once as have a block of images together."""
        self.labels_N = labels_N
        sizes_C = np.bincount(labels_N[labels_N >= 0], minlength=counted(labels_N, self._settings, self._version))
        groups = _groups(sizes_C, self._settings.run.search_block)
        self.centroids_CSD = [np.empty((0, 0, 0), np.float32) for _ in groups]
        return [self._centroids(place, clusters) for place, clusters in enumerate(groups)]

    def _centroids(self, place: int, clusters: range) -> Task:
        def arguments() -> tuple[Any, ...]:
            assert self.labels_N is not None
            members_M = np.flatnonzero((self.labels_N >= clusters.start) & (self.labels_N < clusters.stop))
            return self._moment, members_M, self.labels_N[members_M] - clusters.start

        def done(centroids_CSD: Floats) -> Iterable[Task]:
            self.centroids_CSD[place] = centroids_CSD
            return ()

        return Task("centroids", arguments, done)


def _groups(sizes_C: Ints, most: int) -> list[range]:
    """Clusters that follow each other and have at most `most` images together, or a single one with more."""
    groups: list[range] = []
    begin, images = 0, 0
    for cluster, size in enumerate(sizes_C.tolist()):
        if cluster > begin and images + size > most:
            groups.append(range(begin, cluster))
            begin, images = cluster, 0
        images += size
    return [*groups, range(begin, len(sizes_C))]
