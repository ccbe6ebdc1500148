"""Sends the curves of a run to TensorBoard, MLflow and Weights & Biases, behind one interface.

The x-axis of every curve is the number of updates, so that curves can be compared.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Protocol

from reidray.config import Settings
from reidray.disk import write_whole
from reidray.errors import PassingError
from reidray.storage.runfolder import RunFolder


class Logger(Protocol):
    """A program that shows curves."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A point for each name, at the number of updates done."""
        ...

    def flush(self) -> None:
        """Let what has come so far be seen."""
        ...

    def resume(self, step: int) -> None:
        """What was logged at `step` and later will come again."""
        ...

    def close(self, *, failed: bool = False) -> None:
        """Write out what is pending; the run is over, or ended with an error."""
        ...


class Curves:
    """The measures of a run as points of curves, handed to every logger.

    A logger that fails (its server is gone, say) is left out from then on and the run goes on.

    Args:
      loggers: by name.
      steps_per_epoch: updates an epoch.
      complain: is told a sentence where a logger fails.
    """

    def __init__(
        self, loggers: Mapping[str, Logger], *, steps_per_epoch: int, complain: Callable[[str], None] | None = None
    ) -> None:
        self._loggers = dict(loggers)
        self._steps_per_epoch = steps_per_epoch
        self._complain = complain

    def steps(self, epoch: int, losses: Mapping[str, Sequence[float]]) -> None:
        """One point a loss term and update of the epoch."""
        for step, values in enumerate(zip(*losses.values(), strict=True)):
            points = {f"loss/{term}": value for term, value in zip(losses, values, strict=True)}
            self._scalars(epoch * self._steps_per_epoch + step + 1, points)

    def epoch(self, group: str, epoch: int, measures: Mapping[str, Any]) -> None:
        """One point a measure at the end of the epoch (-1: before the first); what is no number is left out."""
        points = {
            f"{group}/{name}": float(value)
            for name, value in measures.items()
            if name != "epoch" and isinstance(value, Real) and not isinstance(value, bool)
        }
        if points:
            self._scalars((epoch + 1) * self._steps_per_epoch, points)
            self._each(lambda logger: logger.flush())

    def resume(self, epoch: int) -> None:
        """`epoch` and later ones will be logged again."""
        self._each(lambda logger: logger.resume(epoch * self._steps_per_epoch + 1))

    def close(self, *, failed: bool = False) -> None:
        """Write out what is pending."""
        self._each(lambda logger: logger.close(failed=failed))

    def _scalars(self, step: int, points: Mapping[str, float]) -> None:
        self._each(lambda logger: logger.scalars(step, points))

    def _each(self, what: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                what(logger)
            except Exception as error:
                if self._complain is None:
                    raise
                del self._loggers[name]
                self._complain(f"run.loggers: {name} fails and is left out from now on ({_first_line(error)})")


def check_loggers(names: Sequence[str]) -> None:
    """See that the packages of run.loggers are there, before anything long begins.

    Raises:
      ValueError: one is missing; the sentence has the line that installs it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"run.loggers={name} needs the package {name}, which is not installed: pip install -e '.[{name}]', or "
                f"leave {name} out"
            )


def open_loggers(folder: RunFolder, settings: Settings) -> dict[str, Logger]:
    """The loggers of run.loggers, each with the run's settings.

    MLflow and W&B know a run by an id of their own, which is kept in the folder's loggers.json: a resumed run goes on
    in the same one.

    Raises:
      PassingError: one cannot be opened: no login, no server.
    """
    kept = folder.path / "loggers.json"
    ids: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    loggers: dict[str, Logger] = {}
    for name in dict.fromkeys(settings.run.loggers):
        try:
            loggers[name], identity = _opened(name, folder, settings, ids.get(name))
        except Exception as error:
            for opened in loggers.values():
                opened.close(failed=True)
            raise PassingError(
                f"run.loggers={name} cannot be opened: {_first_line(error)}{_HINTS.get(name, '')}"
            ) from error
        if identity is not None:
            ids[name] = identity
            write_whole(kept, json.dumps(ids) + "\n")
    return loggers


_HINTS = {
    "mlflow": " (MLFLOW_TRACKING_URI says where the server is)",
    "wandb": " (log in with: wandb login; or set WANDB_MODE=offline)",
}


def _opened(name: str, folder: RunFolder, settings: Settings, known: str | None) -> tuple[Logger, str | None]:
    """A logger and the id of its run, where it has one; packages are loaded only for the loggers that are used."""
    if name == "mlflow":
        from reidray.report.mlflow import MLflow

        mlflow = MLflow(folder.path.name, settings.model_dump(mode="json"), known=known)
        return mlflow, mlflow.id
    if name == "wandb":
        from reidray.report.wandb import WandB

        wandb = WandB(folder.path, settings.model_dump(mode="json"), known=known)
        return wandb, wandb.id
    from reidray.report.tensorboard import TensorBoard

    return TensorBoard(folder.tensorboard), None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
