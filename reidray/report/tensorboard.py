"""TensorBoard events of a run. The axis of every curve is the number of updates done, so all curves lie together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any


class TensorBoard:
    """Writes scalars below `folder`; opened at the first one, so that a short job never loads TensorBoard."""

    def __init__(self, folder: Path, *, steps_per_epoch: int) -> None:
        self._folder = folder
        self._steps_per_epoch = steps_per_epoch
        self._purge: int | None = None
        self._writer: Any = None

    def steps(self, epoch: int, losses: Mapping[str, Sequence[float]]) -> None:
        """One point a loss term and update of the epoch."""
        for term, values in losses.items():
            for step, value in enumerate(values):
                self._scalar(f"loss/{term}", value, epoch * self._steps_per_epoch + step + 1)

    def epoch(self, group: str, epoch: int, measures: Mapping[str, Any]) -> None:
        """One point a measure at the end of the epoch (-1: before the first); what is no number is left out."""
        for name, value in measures.items():
            if name != "epoch" and isinstance(value, Real) and not isinstance(value, bool):
                self._scalar(f"{group}/{name}", float(value), (epoch + 1) * self._steps_per_epoch)

    def resume(self, epoch: int) -> None:
        """Hides what was written of `epoch` and later ones."""
        self.close()
        self._purge = epoch * self._steps_per_epoch + 1

    def close(self) -> None:
        """Writes out what is pending."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _scalar(self, tag: str, value: float, at: int) -> None:
        if self._writer is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of TensorBoard's own imports
                from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=self._purge)
            self._purge = None
        self._writer.add_scalar(tag, value, at)
