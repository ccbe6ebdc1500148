"""Trials on Ray Tune. The caller decides which trial comes next and records results; Tune places, runs and stops
trials.

Tune keeps no state of a search: a resumed search passes the trials that are left, and gives the scheduler the earlier
scores. So Tune's own files, which are pickles, are never read, and are removed at the end.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from reidray.config import Settings

_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # every trial has a run folder
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an epoch may have no score
    "TUNE_FORCE_TRIAL_CLEANUP_S": "5",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "RAY_AIR_NEW_OUTPUT": "0",
}
_SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass(frozen=True)
class Asha:
    """When ASHA compares trials, and how many it continues: first after `grace_epochs` epochs, one in `reduction`."""

    epochs: int
    grace_epochs: int
    reduction: int


@dataclass(frozen=True)
class Share:
    """What a trial takes of the cluster, and how many run at a time."""

    cpus: int
    gpus: float
    concurrent: int


Ask = Callable[[], tuple[int, Settings] | None]
Run = Callable[[Settings, Callable[[dict[str, Any]], None]], None]
Told = Callable[[int, Mapping[str, Any]], None]
Ended = Callable[[int, str, str, float], None]


def trial_share(settings: Settings, most: int | None, cluster: Mapping[str, float] | None = None) -> Share:
    """What a trial with these settings takes, and how many the cluster has room for.

    A trial without training workers is one process of run.threads threads, on a GPU where run.device allows and there
    is one. With run.workers it is that many processes, and labellers.

    Args:
      settings: of the search.
      most: trials at a time that were asked for, None for as many as there is room for.
      cluster: CPUs and GPUs; default: those of the cluster that `connect` joined.

    Raises:
      ValueError: there is not room for one.
    """
    there = ray.cluster_resources() if cluster is None else cluster
    run, workers = settings.run, settings.run.workers or 1
    use_gpu = run.device == "cuda" or (run.device == "auto" and there.get("GPU", 0) >= 1)
    cpus = workers * run.threads
    beside = run.bank_shards * run.bank_cpus if run.workers else 0.0
    gpus = float(workers * use_gpu) + (run.labellers * run.labeller_gpus if run.workers else 0.0)
    room = math.floor(there.get("CPU", 0) / (cpus + beside) + 1e-9)
    if gpus:
        room = min(room, math.floor(there.get("GPU", 0) / gpus + 1e-9))
    if room < 1:
        raise ValueError(
            f"a trial needs {cpus + beside:g} CPUs and {gpus:g} GPUs and the cluster has {there.get('CPU', 0):g} and "
            f"{there.get('GPU', 0):g}: lower run.threads or run.workers, or set run.device=cpu"
        )
    return Share(cpus, gpus, min(room, most or room))


def run_trials(
    run: Run,
    ask: Ask,
    *,
    count: int,
    share: Share,
    in_workers: bool,
    asha: Asha | None,
    past: Sequence[Mapping[int, float]],
    folder: Path,
    told: Told,
    ended: Ended,
    max_failures: int,
) -> int:
    """Run trials until `ask` has no more; `connect` comes first.

    Args:
      run: one trial, in a process of its own; module-level, for it is sent by name.
      ask: the next trial's number and settings.
      count: trials that `ask` will hand out.
      share: of `trial_share`.
      in_workers: trials have Ray Train workers, which take the resources; the trial's own process takes none.
      asha: stop trials that lag behind; None: let all end.
      past: scores by epochs of trials that ended earlier, with which later ones are compared.
      folder: of the search, on storage that every node sees.
      told: number and what the trial told, after every epoch.
      ended: number, state, sentence and seconds of a trial that is over.
      max_failures: crashes of a trial's process after which it is given up; -1: never.

    Returns:
      0, or the status to end with where a signal interrupted it.

    Raises:
      Exception: what `told` or `ended` raised, after which no trial goes on.
    """
    interruption = _Interruption()
    own = folder / "ray"
    shutil.rmtree(own, ignore_errors=True)
    os.environ.update(_TUNE_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

    def trainable(config: dict[str, Any]) -> None:
        run(Settings.model_validate_json(config["settings"]), tune.report)

    resources: dict[str, float] = {"CPU": share.cpus, "GPU": share.gpus}
    if in_workers:
        resources = {"node:__internal_head__": 0.001}
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([{key: n for key, n in resources.items() if n}])),
        tune_config=tune.TuneConfig(
            num_samples=count,
            max_concurrent_trials=share.concurrent,
            search_alg=_Asked(lambda: None if interruption.status else ask()),
            scheduler=_scheduler(asha, past),
            trial_dirname_creator=_dirname,
            trial_name_creator=_dirname,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(folder),
            verbose=0,
            callbacks=[_Watch(told, ended, interruption)],
            failure_config=tune.FailureConfig(max_failures=max_failures),
        ),
    )
    with _interruptible(interruption):
        tuner.fit()
    if interruption.status:
        ray.shutdown()  # ends the trials; their checkpoints are all that is needed to go on
    shutil.rmtree(own, ignore_errors=True)
    if interruption.error is not None:
        raise interruption.error
    return interruption.status


def _scheduler(asha: Asha | None, past: Sequence[Mapping[int, float]]) -> TrialScheduler:
    """ASHA with the scores of earlier trials. Its last rung lies before the last epoch, where it stops no trial."""
    if asha is None:
        return FIFOScheduler()
    scheduler = ASHAScheduler(
        time_attr="epochs",
        metric="score",
        mode="max",
        max_t=max(asha.epochs - 1, asha.grace_epochs),
        grace_period=asha.grace_epochs,
        reduction_factor=asha.reduction,
        stop_last_trials=False,
    )
    for number, scores in enumerate(past):
        trial = SimpleNamespace(trial_id=f"past-{number}")
        scheduler.on_trial_add(None, trial)
        for epochs, score in sorted(scores.items()):
            scheduler.on_trial_result(None, trial, {"epochs": epochs, "score": score})
        scheduler.on_trial_remove(None, trial)
    return scheduler


def _dirname(trial: Any) -> str:
    return f"{trial.config['trial']:03}"


class _Asked(Searcher):
    """Tune's interface to `ask`; it has no state that Tune would have to save."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(metric="score", mode="max")
        self._ask = ask

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
        asked = self._ask()
        if asked is None:
            return Searcher.FINISHED
        number, settings = asked
        return {"trial": number, "settings": json.dumps(settings.model_dump(mode="json"))}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


class _Watch(tune.Callback):
    """Passes events of trials to the caller, in the driver; an error of the caller ends the search."""

    def __init__(self, told: Told, ended: Ended, interruption: _Interruption) -> None:
        self._told, self._ended, self._interruption = told, ended, interruption
        self._started: dict[str, float] = {}
        self._last: dict[str, Mapping[str, Any]] = {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ARG002
        self._started.setdefault(trial.trial_id, time.perf_counter())

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:  # noqa: ARG002
        self._last[trial.trial_id] = result
        self._hand(self._told, trial.config["trial"], result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ARG002
        last = self._last.get(trial.trial_id, {})
        self._end(trial, last.get("state", "stopped"), last.get("sentence", ""))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ARG002
        told = Path(trial.error_file).read_text("utf-8") if trial.error_file else ""
        lines = told.strip().splitlines() or ["the process of the trial died"]
        self._end(trial, "crashed", lines[-1])

    def _end(self, trial: Any, state: str, sentence: str) -> None:
        started = self._started.pop(trial.trial_id, time.perf_counter())
        self._hand(self._ended, trial.config["trial"], state, sentence, time.perf_counter() - started)

    def _hand(self, what: Callable[..., None], *arguments: Any) -> None:
        try:
            what(*arguments)
        except Exception as error:  # Tune would make a traceback of it
            self._interruption.error = self._interruption.error or error
            self._interruption.begin(1)


@dataclass
class _Interruption:
    """Why no further trial runs: the exit status, and the caller's error."""

    status: int = 0
    error: Exception | None = None

    def begin(self, status: int) -> None:
        """End Tune's loop after its present step: it listens to SIGUSR1."""
        self.status = status
        signal.raise_signal(signal.SIGUSR1)


@contextmanager
def _interruptible(interruption: _Interruption) -> Iterator[None]:
    """SIGINT and SIGTERM end Tune's loop after its present step; a second signal ends the process at once.

    The handler does not raise: most signals arrive while Ray's own code runs, which does not pass exceptions on.
    """

    def handle(number: int, frame: Any) -> None:  # noqa: ARG001
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        interruption.begin(_SIGNALS[signal.Signals(number)])

    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    user = signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until Tune listens
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGUSR1, user)
