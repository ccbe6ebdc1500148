"""The labellers of a run, as workers see them: shards are parsed by turns, an epoch is labelled by one or by all."""

from __future__ import annotations

from collections.abc import Sequence

from reidray.arrays import Floats, Ints
from reidray.bank import Member, MemoryBank, Pending
from reidray.config import Settings
from reidray.training.block_labelling import BlockLabelling
from reidray.training.label_rules import LabelSummary


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
        self._begun: BlockLabelling | None = None

    def parse(self, shard: int, grams_BPP: Floats, map_size: tuple[int, int]) -> Pending:
        """Parts of a shard's maps, on their way."""
        parts = self._members[shard % len(self._members)].submit("parse", grams_BPP, map_size)
        self._parsing = [*(other for other in self._parsing if not other.done()), parts]
        return parts

    def queue(self) -> int:
        """Shards of this caller that are not parsed yet."""
        return sum(not parts.done() for parts in self._parsing)

    def begin(self, version: int, generation: int) -> None:
        """Label an epoch while its features still come in, as far as that goes; `label` is to follow.

        Does nothing unless run.label_early is set, all labellers share the work, and labels come from clusters.
        """
        settings = self._settings
        if settings.run.label_early and settings.labels_by_blocks and settings.method.labels == "dbscan":
            self._bank.generation = generation
            self._begun = BlockLabelling(self._members, settings, self._bank, version, None, early=True)

    def label(self, version: int, persons_N: Ints | None, generation: int) -> LabelSummary:
        """Label an epoch, see `reidray.training.labelling.Labeller.label`; waits.

        Raises:
          ValueError: no cluster was found.
        """
        if not self._settings.labels_by_blocks:
            summary: LabelSummary = self._members[0].submit("label", version, persons_N, generation).result()
            return summary
        self._bank.generation = generation
        begun, self._begun = self._begun, None
        if begun is None or begun.version != version:
            begun = BlockLabelling(self._members, self._settings, self._bank, version, persons_N)
        return begun.finish()

    def trace(self, epoch: int) -> list[Pending]:
        """Have every labeller keep its spans."""
        return [member.submit("trace", epoch) for member in self._members]

    def traced(self) -> list[Pending]:
        """A `Recording` of each."""
        return [member.submit("traced") for member in self._members]
