"""Weights & Biases: a run's settings as its config, its curves as history.

Project, team, login and mode are W&B's own business: WANDB_PROJECT (here "reidray" where it is not set), WANDB_ENTITY,
WANDB_MODE (online, offline, disabled) and its other variables decide.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

_AXIS = "updates"


@final
class WandB:
    """One W&B run; its own files lie in the run folder's wandb/.

    Args:
      folder: the run folder; its name is the run's.
      settings: the settings tree.
      known: id of the run to go on with; None for a new one.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, known: str | None) -> None:
        import wandb

        self._run = wandb.init(
            project=None if os.environ.get("WANDB_PROJECT") else "reidray",
            name=folder.name,
            dir=str(folder),
            id=known,
            resume="allow" if known else None,
            config=dict(settings),
            settings=wandb.Settings(console="off", silent=True),  # the console is ours
        )
        self.id: str = self._run.id
        self._run.define_metric(_AXIS, hidden=True)
        self._run.define_metric("*", step_metric=_AXIS)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A point for each name. The axis is a metric of its own: W&B's steps may not go back, a resumed run's do."""
        self._run.log({**values, _AXIS: step})

    def flush(self) -> None:
        """Nothing to do: W&B's own process has every point at once."""

    def resume(self, step: int) -> None:
        """Points of a step that comes again are logged again, behind those of before."""

    def close(self, *, failed: bool = False) -> None:
        """Send what is pending and end the run."""
        self._run.finish(exit_code=1 if failed else 0)
