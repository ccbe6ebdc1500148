"""MLflow: a run's settings as parameters, its curves as metrics.

Server, experiment and login are MLflow's own business: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and its other
variables decide.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, final

_AT_ONCE = 500  # metrics in a request; MLflow takes at most 1000
_PARAMETERS_AT_ONCE = 100
_SECONDS = 10.0  # between two requests


@final
class MLflow:
    """One MLflow run; points are sent in batches, the last one when an epoch has ended.

    Args:
      name: of a new run.
      settings: the settings tree; logged when the run is new.
      known: id of the run to go on with; None for a new one.
    """

    def __init__(self, name: str, settings: Mapping[str, Any], *, known: str | None) -> None:
        import mlflow
        from mlflow.entities import Metric, Param

        self._mlflow, self._metric = mlflow, Metric
        self._client = mlflow.MlflowClient()
        self._waiting: list[Any] = []
        self._sent = time.monotonic()
        self.id: str = mlflow.start_run(run_id=known, run_name=None if known else name).info.run_id
        if known is None:
            parameters = [Param(key, str(value)) for key, value in flat(settings).items()]
            for first in range(0, len(parameters), _PARAMETERS_AT_ONCE):
                self._client.log_batch(self.id, params=parameters[first : first + _PARAMETERS_AT_ONCE])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A point for each name."""
        now = int(time.time() * 1000)
        self._waiting += [self._metric(name, value, now, step) for name, value in values.items()]
        if len(self._waiting) >= _AT_ONCE or time.monotonic() - self._sent >= _SECONDS:
            self.flush()

    def resume(self, step: int) -> None:
        """Points of a step that comes again are logged again: MLflow keeps both and shows the later one."""

    def close(self, *, failed: bool = False) -> None:
        """Send what is pending and end the run."""
        try:
            self.flush()
        finally:
            self._mlflow.end_run("FAILED" if failed else "FINISHED")

    def flush(self) -> None:
        """Send what is pending."""
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), _AT_ONCE):
            self._client.log_batch(self.id, metrics=waiting[first : first + _AT_ONCE])
        self._sent = time.monotonic()


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A settings tree by dotted names."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
