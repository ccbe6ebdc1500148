"""Evaluates networks that it is handed, beside the training that goes on elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from reidray.config import Settings
from reidray.launch.inference import offline_context
from reidray.training.background_evaluation import State
from reidray.training.context import Context
from reidray.training.evaluation import evaluate
from reidray.training.loop import new_model


class Evaluator:
    """A plain object, which the driver makes an actor.

    Args:
      settings: the run's.
      packed: packed shards, on storage that every node sees.
      run_dir: run folder, likewise.
    """

    def __init__(self, settings: Settings, packed: str, run_dir: str) -> None:
        self._settings = settings
        self._where = packed, Path(run_dir)
        self._context: Context | None = None

    def evaluate(self, state: State, epoch: int) -> dict[str, Any]:
        """The figures of `reidray.training.evaluation.evaluate` for a network's tensors after an epoch."""
        if self._context is None:  # once it is asked for: images are decoded once, and only here
            self._context = offline_context(self._settings, *self._where, _silent)
        model = new_model(self._settings)
        model.load_state_dict({name: torch.from_numpy(rows.copy()) for name, rows in state.items()})
        model = model.to(memory_format=torch.channels_last).to(self._context.device)
        return evaluate(self._context, model, epoch)


def _silent(event: Mapping[str, Any]) -> None:
    """Training speaks for the run; an evaluation beside it has no progress of its own."""
