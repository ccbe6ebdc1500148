"""TensorBoard events of a run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image


@final
class TensorBoard:
    """Writes scalars below `folder`; opened at the first one, so that a short job never loads TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._purge: int | None = None
        self._writer: Any = None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A point for each name."""
        writer = self._opened()
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def pictures(self, step: int, paths: Mapping[str, Path]) -> None:
        """PNG files by the names that they are shown under."""
        for name, path in paths.items():
            with Image.open(path) as picture:
                pixels_HW3 = np.asarray(picture.convert("RGB"))
            self._opened().add_image(f"pictures/{name}", pixels_HW3, step, dataformats="HWC")

    def _opened(self) -> Any:
        if self._writer is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of TensorBoard's own imports
                from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=self._purge)
            self._purge = None
        return self._writer

    def flush(self) -> None:
        """Writes out what is pending."""
        if self._writer is not None:
            self._writer.flush()

    def resume(self, step: int) -> None:
        """Hides what was written at `step` and later."""
        self.close()
        self._purge = step

    def close(self, *, failed: bool = False) -> None:  # noqa: ARG002 (events do not say how a run ended)
        """Writes out what is pending."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
