"""Rows of the centroids that steps moved, on their way from rank 0 to the memory bank.

To send a message to another process takes its sender time, however little is in it (`update_ms` of
benchmarks/step.py). So what moved goes out every other step: it is the sending that a step waits for, never the bank.
"""

from __future__ import annotations

from typing import final

import numpy as np

from reidray.arrays import Floats, Ints
from reidray.bank import MemoryBank

_STEPS = 2  # rows of so many steps go out together

# U = clusters in a global batch, S = spaces, D = feature width


@final
class WriteBehind:
    """What the steps of an epoch moved and the bank has not been sent.

    Args:
      bank: with the generation that writes.
      epoch: whose centroids move.
    """

    def __init__(self, bank: MemoryBank, epoch: int) -> None:
        self._bank = bank
        self._epoch = epoch
        self._step = -1
        self._clusters: list[Ints] = []
        self._rows: list[Floats] = []

    def add(self, step: int, clusters_U: Ints, rows_USD: Floats) -> None:
        """The rows that a step moved, as they are now; they are not copied."""
        self._step = step
        self._clusters.append(clusters_U)
        self._rows.append(rows_USD)
        if len(self._clusters) == _STEPS:
            self.send()

    def send(self) -> None:
        """Send what has not been sent: before the bank is marked, compared or read. Does not wait."""
        if not self._clusters:
            return
        newest_first = np.concatenate(self._clusters[::-1])
        clusters, places = np.unique(newest_first, return_index=True)
        rows = np.concatenate(self._rows[::-1])[places]
        self._clusters, self._rows = [], []
        self._bank.update_centroids(self._epoch, self._step, clusters, rows)
