"""Rows of memories that steps moved, on their way from rank 0 to the memory bank.

To send a message to another process takes its sender time, however little is in it (`update_ms` of
benchmarks/step.py). So what moved goes out every other step: it is the sending that a step waits for, never the bank.
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
    """What the steps of an epoch moved and the bank has not been sent.

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
        """The rows that a step moved in each memory, as they are now; they are not copied."""
        self._step = self._before + step
        for name, rows in moved.items():
            self._moved.setdefault(name, []).append(rows)
        self._steps += 1
        if self._steps == _STEPS:
            self.send()

    def send(self) -> None:
        """Send what has not been sent: before the bank is marked, compared or read. Does not wait."""
        for name, moved in self._moved.items():
            newest_first = np.concatenate([places_U for places_U, _ in reversed(moved)])
            places, first = np.unique(newest_first, return_index=True)
            rows = np.concatenate([rows_USD for _, rows_USD in reversed(moved)])[first]
            self._bank.move_memory(name, self._version, self._step, places, rows)
        self._moved, self._steps = {}, 0
