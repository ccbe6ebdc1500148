"""The labellers of a run, as workers see them: shards go to them by turns, an epoch is labelled by one or by all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch

from reidray.arrays import Array, Ints
from reidray.bank import Member, MemoryBank, Pending
from reidray.config import Settings
from reidray.evaluation.doubts import Doubts
from reidray.methods import make_method
from reidray.methods.label_search import Inputs, Labels, Space
from reidray.training.block_search import BlockSearch
from reidray.training.judging import judge_by_blocks
from reidray.training.label_tables import LabelSummary, write_labels
from reidray.training.reading import Arrivals, Moment, block_size

_LOOK_SECONDS = 0.5  # after which the progress of labelling is told again


class LabelService:
    """A pool of labellers.

    A labeller that dies is started again and called again where it lives (`reidray.actors.remote`): everything that
    it is asked for here is harmless twice.

    Args:
      members: the labellers.
      settings: the run's; run.labelling says whether one of them labels an epoch, or all block by block.
      bank: where features are and labels go.
    """

    def __init__(self, members: Sequence[Member], settings: Settings, bank: MemoryBank) -> None:
        self._members = list(members)
        self._settings = settings
        self._bank = bank
        self._parsing: list[Pending] = []
        self._begun: tuple[int, BlockSearch, Future[Labels]] | None = None

    def parse(self, shard: int, arrays: Mapping[str, Array]) -> Pending:
        """Tables of a shard's images (`Method.label_images`), on their way."""
        tables = self._members[shard % len(self._members)].submit("parse", dict(arrays))
        self._parsing = [*(other for other in self._parsing if not other.done()), tables]
        return tables

    def queue(self) -> int:
        """Shards of this caller that labellers have not looked at yet."""
        return sum(not tables.done() for tables in self._parsing)

    def begin(self, inputs: Inputs, generation: int) -> None:
        """Label an epoch while its features still come in, as far as that goes; `label` is to follow.

        Does nothing unless run.label_early is set, all labellers share the work, and labels come from clusters.
        """
        settings = self._settings
        if settings.run.label_early and settings.labels_by_blocks and settings.method.labels == "dbscan":
            self._bank.generation = generation
            self._begin_by_blocks(inputs, early=True)

    def share_begun(self) -> float:
        """Of the search that `begin` began, the share that is done."""
        return 0.0 if self._begun is None else self._begun[1].share_done()

    def label(
        self, inputs: Inputs, generation: int, progress: Callable[[float], None] = lambda _: None
    ) -> LabelSummary:
        """Label an epoch, see `reidray.training.labeller.Labeller.label`; waits.

        Args:
          progress: called now and then with the share of the search that is done, where labellers work block by block.

        Raises:
          ValueError: no cluster was found.
        """
        if not self._settings.labels_by_blocks:
            summary: LabelSummary = self._members[0].submit("label", inputs, generation).result()
            return summary
        self._bank.generation = generation
        if self._begun is None or self._begun[0] != inputs.epoch:
            self._begin_by_blocks(inputs, early=False)
        assert self._begun is not None
        (_, search, thread), self._begun = self._begun, None
        try:
            while not wait([thread], timeout=_LOOK_SECONDS).done:
                progress(search.share_done())
        except BaseException:  # Ctrl-C, where there is one process
            search.close()
            raise
        labels = thread.result()
        for member in self._members:
            member.submit("forget")
        return write_labels(self._bank, inputs.epoch, labels, make_method(self._settings))

    def _begin_by_blocks(self, inputs: Inputs, *, early: bool) -> None:
        method = make_method(self._settings)
        last = f"train/{method.features[-1]}"
        arrivals = Arrivals(self._bank, last, inputs.epoch) if early else None
        search = BlockSearch(self._members, self._bank, inputs, self._block(), arrivals, method.searches)

        def labels() -> Labels:
            try:
                return method.label(search)
            finally:
                search.close()

        # OpenMP counts threads for each calling thread.
        threads = torch.get_num_threads()
        thread = ThreadPoolExecutor(1, "label", initializer=torch.set_num_threads, initargs=(threads,))
        self._begun = inputs.epoch, search, thread.submit(labels)
        thread.shutdown(wait=False)

    def judge(
        self, epoch: int, space: Space, labels_N: Ints, progress: Callable[[float], None] = lambda _: None
    ) -> Doubts:
        """How sure the labels of an epoch are, see `reidray.training.judging`; waits."""
        moment = Moment(epoch, self._bank.generation)
        return judge_by_blocks(self._members, self._bank, moment, space, labels_N, self._block(), progress)

    def _block(self) -> int:
        return block_size(self._settings.run.search_block, self._bank.layout("train"))

    def trace(self, epoch: int) -> list[Pending]:
        """Have every labeller keep its spans."""
        return [member.submit("trace", epoch) for member in self._members]

    def traced(self) -> list[Pending]:
        """A `Recording` of each."""
        return [member.submit("traced") for member in self._members]
