"""The run on Ray: actors owned by the driver, and a Ray Train group of DDP workers that use them.

The driver makes the memory bank, the labellers and a mailbox, then the workers, and hands out the handles. A worker
that dies takes its group with it; Ray Train starts the group anew, and it goes on from the newest checkpoint with the
same actors, whose tables it puts back to that checkpoint's. A shard of the bank that dies is started again, empty, and
takes the group with it by refusing to serve it. A labeller that dies is started again and does what it was doing once
more. The workers' controller is replaced by the driver; the driver by `--resume`.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from reidray.actors.cluster import chosen_workers, give_back_places, room_beside
from reidray.actors.mailbox import Mailbox
from reidray.actors.metrics import RunMetrics, measured, of_bank, of_labeller
from reidray.actors.remote import OnRay, placed
from reidray.actors.watch import Watch
from reidray.actors.worker import Handed, environment, send, work
from reidray.bank import BankShard, MemoryBank
from reidray.config import Settings
from reidray.errors import PassingError
from reidray.events import message
from reidray.launch.evaluator import Evaluator
from reidray.launch.services import layouts
from reidray.training.history import History
from reidray.training.labeller import Labeller

_AWAIT_EACH_OTHER = 30 * 24 * 3600  # seconds: rank 0 may label for hours, and Ray sees it when one of them dies

Place = Callable[..., OnRay]
"""`reidray.actors.remote.placed`, of actors that end with the run."""


def train_on_ray(
    settings: Settings, packed: str, run_dir: Path, report: Callable[[Mapping[str, Any]], None]
) -> History:
    """Train with Ray Train workers; `reidray.actors.cluster.connect` comes first.

    Args:
      settings: the run's, with absolute paths.
      packed: packed shards, on storage that every node sees.
      run_dir: run folder, likewise.
      report: is handed every event, in a thread of this process.

    Returns: the run's history, as `reidray.training.loop.train` does.

    Raises:
      ValueError: what a user can put right, in a worker too.
    """
    with ExitStack() as ends:

        def place(*what: Any, **how: Any) -> OnRay:
            member = placed(*what, **how)
            ends.callback(member.end)
            return member

        return _train_with(place, settings, packed, run_dir, report)


def _train_with(
    place: Place, settings: Settings, packed: str, run_dir: Path, report: Callable[[Mapping[str, Any]], None]
) -> History:
    """With actors that end when this does."""
    there = ray.cluster_resources()
    workers, use_gpu = chosen_workers(settings, there)
    mailbox = place(Mailbox, threads=1, restarts=-1, spread=False)
    shards = _bank_shards(place, settings, run_dir.name)
    bank = MemoryBank(shards, layouts(settings, packed))
    labellers = _labellers(place, settings, bank, run_dir.name)
    aside = room_beside(settings, there, workers, use_gpu=use_gpu)
    handed = Handed(
        settings=settings,
        packed=packed,
        run_dir=run_dir,
        bank=bank,
        labellers=labellers,
        mailbox=mailbox,
        evaluator=_evaluator(place, settings, packed, run_dir, use_gpu=use_gpu) if aside else None,
    )
    if aside:
        _say(mailbox, "epochs are evaluated beside training: there is room (run.evaluate_beside)")
    _say(mailbox, "starting the workers")
    with _Drained(mailbox, _measured(report, RunMetrics(run_dir.name))), _watch(shards, labellers, handed):
        history = _trained(handed, workers, use_gpu=use_gpu)
    _raise_failure(mailbox)
    return history


def _trained(handed: Handed, workers: int, *, use_gpu: bool) -> History:
    """What rank 0 returns; a controller that dies, which Ray Train does not replace, is replaced here."""
    mailbox, run = handed["mailbox"], handed["settings"].run
    each = f"with {run.threads} CPUs (run.threads){' and a GPU' if use_gpu else ''} each"
    wanted = f"{run.min_workers or workers} workers {each}"
    failures = 0
    while True:
        try:
            history: History = _trainer(handed, workers, use_gpu=use_gpu).fit().return_value
            return history
        except SystemExit:  # how Ray Train's own handler answers Ctrl-C
            raise KeyboardInterrupt from None
        except ray.exceptions.RayActorError as error:
            _raise_failure(mailbox)
            if failures == run.max_failures:
                raise _stopped(handed, error, wanted) from error
            failures += 1
            give_back_places(error.actor_id)
            _say(mailbox, "the controller of the workers died: starting it and them again")
        except ray.train.TrainingFailedError as error:
            _raise_failure(mailbox)
            raise _stopped(handed, error, wanted) from error


def _bank_shards(place: Place, settings: Settings, name: str) -> list[OnRay]:
    """The memory bank's actors; `name` is the run's, in metrics."""
    run = settings.run
    shards = []
    for number in range(run.bank_shards):
        kind = measured(BankShard, of_bank, {"run": name, "shard": str(number)})
        own: dict[str, Any] = {"threads": 1, "cpus": run.bank_cpus, "beside": ("write",)}
        shards.append(place(kind, f"bank shard {number}", **own, **_of_services(settings)))
    return shards


def _labellers(place: Place, settings: Settings, bank: MemoryBank, name: str) -> list[OnRay]:
    """The labellers; `name` is the run's, in metrics."""
    run = settings.run
    labellers = []
    for number in range(run.labellers):
        kind = measured(Labeller, of_labeller, {"run": name, "labeller": str(number)})
        own: dict[str, Any] = {"threads": run.labeller_threads, "gpus": run.labeller_gpus}
        labellers.append(place(kind, settings, bank, f"labeller {number}", **own, **_of_services(settings)))
    return labellers


def _of_services(settings: Settings) -> dict[str, Any]:
    return {"restarts": settings.run.max_failures, "label": settings.run.service_label}


def _evaluator(place: Place, settings: Settings, packed: str, run_dir: Path, *, use_gpu: bool) -> OnRay:
    """The evaluator of epochs beside training; it reserves CPUs, and a GPU where workers have one."""
    run = settings.run
    room: dict[str, Any] = {"threads": run.threads, "cpus": run.threads, "gpus": int(use_gpu)}
    return place(Evaluator, settings, packed, str(run_dir), restarts=run.max_failures, **room)


def _watch(shards: list[OnRay], labellers: list[OnRay], handed: Handed) -> Watch:
    """Watches the actors, so that no call waits for ever for one that has no machine.

    Without a labeller the run goes on while other labellers are left. Without the last one, or without a shard of the
    bank, it ends.
    """
    run, mailbox = handed["settings"].run, handed["mailbox"]
    where = f" with the label run.service_label={run.service_label}" if run.service_label else ""
    by_name = {
        f"bank shard {number} (run.bank_cpus={run.bank_cpus:g}{where})": shard for number, shard in enumerate(shards)
    }
    left = {
        f"labeller {number} (run.labeller_gpus={run.labeller_gpus:g}{where})": one
        for number, one in enumerate(labellers)
    }

    def lost(name: str, waited: float) -> None:
        sentence = f"waited {waited:.0f} s for a machine for {name}"
        if left.pop(name, None) and left:
            _say(mailbox, f"{sentence}: going on without it")
            return
        sentence = f"{sentence}; the cluster has {_has()}: give it what is asked for, or ask for less; "
        mailbox.submit("fail", sentence + _go_on(handed), "the driver saw it", True).result()

    return Watch({**by_name, **left}, run.start_timeout, lambda sentence: _say(mailbox, sentence), lost)


def _trainer(handed: Handed, workers: int, *, use_gpu: bool) -> TorchTrainer:
    run = handed["settings"].run
    elastic = run.min_workers is not None and run.min_workers < workers
    return TorchTrainer(
        work,
        train_loop_config=dict(handed),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=_AWAIT_EACH_OTHER),
        scaling_config=ScalingConfig(
            num_workers=(run.min_workers, workers) if elastic else workers,
            elastic_resize_monitor_interval_s=run.resize_seconds,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": run.threads, "GPU": int(use_gpu)},
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(handed["run_dir"]),
            failure_config=FailureConfig(max_failures=run.max_failures, controller_failure_limit=1),
            logging_config=LoggingConfig(log_level="ERROR"),
            worker_runtime_env={"env_vars": environment(handed["settings"])},
        ),
    )


def _stopped(handed: Handed, error: Exception, wanted: str) -> PassingError:
    """The sentence for a run that Ray gave up."""
    run = handed["settings"].run
    if isinstance(error, ray.train.ControllerError):
        return PassingError(
            f"the workers could not be placed, waiting run.start_timeout={run.start_timeout:g} s at a time: wanted "
            f"{wanted}, the cluster has {_has()} in all: lower run.workers or give run.min_workers; {_go_on(handed)}; "
            f"Ray said: {_last_line(error)}"
        )
    return PassingError(
        f"training stopped after {run.max_failures} restarts of its workers; {_go_on(handed)}; the last error: "
        f"{_last_line(error)}"
    )


def _has() -> str:
    there = ray.cluster_resources()
    return f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"


def _go_on(handed: Handed) -> str:
    return f"--resume {handed['run_dir']} goes on from the newest checkpoint"


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def _measured(report: Callable[[Mapping[str, Any]], None], metrics: RunMetrics) -> Callable[[Mapping[str, Any]], None]:
    """Events go to Ray's metrics as well."""

    def reported(event: Mapping[str, Any]) -> None:
        metrics.handle(event)
        report(event)

    return reported


def _say(mailbox: OnRay, sentence: str) -> None:
    send(mailbox, message(sentence))


def _raise_failure(mailbox: OnRay) -> None:
    """What was said that a person can put right, with where it was noticed behind it."""
    failure = mailbox.submit("failure").result()
    if failure is not None:
        sentence, trace, passing = failure
        raise (PassingError if passing else ValueError)(sentence) from RuntimeError(trace)


class _Drained:
    """Hands the mailbox's events on, in a thread, until the block ends.

    A mailbox that could not be asked is asked again: it keeps its events until they have been handled. An event that
    could not be handled is the last one: the workers, whose next checkpoint waits for it, end, and its error is raised
    at the end of the block.
    """

    def __init__(self, mailbox: OnRay, report: Callable[[Mapping[str, Any]], None]) -> None:
        self._mailbox = mailbox
        self._report = report
        self._over = threading.Event()
        self._name, self._handled = "", 0
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._drain()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while not self._over.wait(0.25):
            with suppress(ray.exceptions.RayError):  # asked once more at the end, whose error is raised
                self._drain()

    def _drain(self) -> None:
        name, events = self._mailbox.submit("take", self._name, self._handled).result()
        if name != self._name:
            self._name, self._handled = name, 0
        for event in events if self._error is None else ():
            try:
                self._report(event)
            except Exception as error:
                self._error = error
                trace = f"in the driver:\n{traceback.format_exc()}"
                self._mailbox.submit("fail", str(error), trace, isinstance(error, OSError)).result()
                return
            self._handled += 1
