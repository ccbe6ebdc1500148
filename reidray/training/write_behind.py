"""Sends the memory rows that steps moved from rank 0 to the memory bank, without waiting for the bank.

Sending a message costs the sender time, however small the message is (`update_ms` of benchmarks/step.py). So rows are
sent every second step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np

from reidray.arrays import Floats, Ints
from reidray.bank import MemoryBank

_STEPS = 2  # rows of so many steps go out together

# U = rows that a step moved, S = vectors of a feature, D = their width


@final
class WriteBehind:
    """The rows that were moved and are not sent yet.

    Args:
      bank: with the generation that writes.
      version: of the memories.
      before: updates in earlier epochs, some of which may have moved this version.
    """

    def __init__(self, bank: MemoryBank, version: int, before: int = 0) -> None:
        self._bank = bank
        self._version = version
        self._before = before
        self._step = -1
        self._steps = 0
        self._moved: dict[str, list[tuple[Ints, Floats]]] = {}

    def add(self, step: int, moved: Mapping[str, tuple[Ints, Floats]]) -> None:
        """Add the rows that a step moved, by memory. Arrays are not copied: they must not change."""
        self._step = self._before + step
        for name, rows in moved.items():
            assert len(np.unique(rows[0])) == len(rows[0]), f"a step moves each row of the memory {name} once"
            self._moved.setdefault(name, []).append(rows)
        self._steps += 1
        if self._steps == _STEPS:
            self.send()

    def send(self) -> None:
        """Send the rows that are not sent yet. Needed before the bank is marked, compared or read. Does not wait."""
        for name, moved in self._moved.items():
            newest_first = np.concatenate([places_U for places_U, _ in reversed(moved)])
            places, first = np.unique(newest_first, return_index=True)
            rows = np.concatenate([rows_USD for _, rows_USD in reversed(moved)])[first]
            self._bank.move_memory(name, self._version, self._step, places, rows)
        self._moved, self._steps = {}, 0
