"""The run on Ray: actors owned by the driver, and a Ray Train group of DDP workers that use them.

The driver makes the memory bank, the labellers and a mailbox, then the workers, and hands out the handles. A worker
that dies takes its group with it; Ray Train starts the group anew, and it goes on from the newest checkpoint with the
same actors, whose tables it puts back to that checkpoint's. A shard of the bank that dies is started again, empty, and
takes the group with it by refusing to serve it. A labeller that dies is started again and does what it was doing once
more. The workers' controller is replaced by the driver; the driver by `--resume`.
"""

from __future__ import annotations

import errno
import itertools
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from reidray.actors.cluster import chosen_workers, give_back_places, room_beside
from reidray.actors.mailbox import Mailbox
from reidray.actors.metrics import Exporter, RunMetrics, measured, of_bank, of_labeller, of_worker
from reidray.actors.placing import OnRay, placed
from reidray.bank import BankShard, MemoryBank
from reidray.config import Settings
from reidray.launch.evaluator import Evaluator
from reidray.launch.services import layouts, worker_context
from reidray.training.beside import BesideTraining
from reidray.training.label_service import LabelService
from reidray.training.labelling import Labeller
from reidray.training.loop import train
from reidray.training.ranks import ProcessGroup
from reidray.training.resume import History

Place = Callable[..., OnRay]
"""`reidray.actors.placing.placed`, of actors that end with the run."""

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


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
    restarts = settings.run.max_failures
    mailbox = place(Mailbox, threads=1, restarts=-1, spread=False)
    bank, labellers = _services(place, settings, packed, run_dir.name)
    aside = room_beside(settings, there, workers, use_gpu=use_gpu)
    handed = {
        "settings": settings,
        "packed": packed,
        "run_dir": str(run_dir),
        "bank": bank,
        "labellers": labellers,
        "mailbox": mailbox,
        "evaluator": _evaluator(place, settings, packed, run_dir, use_gpu=use_gpu) if aside else None,
    }
    if aside:
        report({"kind": "message", "text": "epochs are evaluated beside training: there is room (run.evaluate_beside)"})
    reported = _measured(report, RunMetrics(run_dir.name))
    report({"kind": "message", "text": "starting the workers"})
    for failures in itertools.count():
        trainer = _trainer(settings, run_dir, handed, workers, use_gpu=use_gpu)
        try:
            with _Drained(mailbox, reported):
                history: History = trainer.fit().return_value
            break
        except ray.exceptions.RayActorError as error:  # the controller of the workers, which Ray Train does not replace
            _raise_failure(mailbox)
            if 0 <= restarts <= failures:
                raise _stopped(settings, run_dir, error) from error
            give_back_places(error.actor_id)
            report({"kind": "message", "text": "the controller of the workers died: starting it and them again"})
        except ray.train.TrainingFailedError as error:
            _raise_failure(mailbox)
            raise _stopped(settings, run_dir, error) from error
    _raise_failure(mailbox)
    return history


def _services(place: Place, settings: Settings, packed: str, name: str) -> tuple[MemoryBank, LabelService]:
    """Memory bank and labellers as actors; `name` is the run's, in metrics."""
    run = settings.run
    everywhere: dict[str, Any] = {"restarts": run.max_failures, "label": run.service_label}
    shards = []
    for number in range(run.bank_shards):
        shard = measured(BankShard, of_bank, {"run": name, "shard": str(number)})
        own: dict[str, Any] = {"threads": 1, "cpus": run.bank_cpus, "beside": ("write",)}
        shards.append(place(shard, f"bank shard {number}", **own, **everywhere))
    bank = MemoryBank(shards, layouts(settings, packed))
    members = []
    for number in range(run.labellers):
        labeller = measured(Labeller, of_labeller, {"run": name, "labeller": str(number)})
        own = {"threads": run.labeller_threads, "gpus": run.labeller_gpus}
        members.append(place(labeller, settings, bank, f"labeller {number}", **own, **everywhere))
    return bank, LabelService(members, settings, bank)


def _evaluator(place: Place, settings: Settings, packed: str, run_dir: Path, *, use_gpu: bool) -> OnRay:
    """Evaluates epochs on what is left free, which it takes from the placement of others."""
    run = settings.run
    room: dict[str, Any] = {"threads": run.threads, "cpus": run.threads, "gpus": int(use_gpu)}
    return place(Evaluator, settings, packed, str(run_dir), restarts=run.max_failures, **room)


def _trainer(settings: Settings, run_dir: Path, handed: dict[str, Any], workers: int, *, use_gpu: bool) -> TorchTrainer:
    run = settings.run
    elastic = run.min_workers is not None and run.min_workers < workers
    return TorchTrainer(
        _worker,
        train_loop_config=handed,
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(run.min_workers, workers) if elastic else workers,
            elastic_resize_monitor_interval_s=run.resize_seconds,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": run.threads, "GPU": int(use_gpu)},
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(run_dir),
            failure_config=FailureConfig(max_failures=run.max_failures, controller_failure_limit=1),
            logging_config=LoggingConfig(log_level="ERROR"),
            worker_runtime_env={"env_vars": _worker_environment(settings)},
        ),
    )


def _stopped(settings: Settings, run_dir: Path, error: Exception) -> ValueError:
    """The sentence for a run that Ray gave up."""
    go_on = f"--resume {run_dir} goes on from the newest checkpoint"
    if isinstance(error, ray.train.ControllerError):
        there = ray.cluster_resources()
        has = f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
        return ValueError(
            f"the workers could not be placed within run.start_timeout={settings.run.start_timeout:g} s (the cluster "
            f"has {has}, a worker takes run.threads={settings.run.threads} CPUs): lower run.workers or give "
            f"run.min_workers; {go_on}; Ray said: {_last_line(error)}"
        )
    return ValueError(
        f"training stopped after {settings.run.max_failures} restarts of its workers; {go_on}; the last error: "
        f"{_last_line(error)}"
    )


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def _measured(report: Callable[[Mapping[str, Any]], None], metrics: RunMetrics) -> Callable[[Mapping[str, Any]], None]:
    """Events go to Ray's metrics as well."""

    def reported(event: Mapping[str, Any]) -> None:
        metrics.handle(event)
        report(event)

    return reported


def _queues(bank: MemoryBank, labellers: LabelService) -> dict[str, float]:
    writes, steps = bank.queue()
    return {
        "reidray_bank_pending_writes": writes,
        "reidray_bank_lag_steps": steps,
        "reidray_labeller_pending_shards": labellers.queue(),
    }


def _raise_failure(mailbox: OnRay) -> None:
    """What a worker said that a person can put right, with the worker's own traceback behind it."""
    failure = mailbox.submit("failure").result()
    if failure is not None:
        sentence, trace = failure
        raise ValueError(sentence) from RuntimeError(f"in a worker:\n{trace}")


def _worker(handed: dict[str, Any]) -> History | None:
    """What every worker runs; the history comes from rank 0.

    A ValueError or a full disk is something that a person can put right and a restart cannot: it goes to the mailbox,
    and the group that Ray Train starts in place of this one finds it there and ends at once.
    """
    mailbox: OnRay = handed["mailbox"]
    if mailbox.submit("failure").result() is not None:
        return None
    ranks = ProcessGroup()
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    context = worker_context(
        handed["settings"],
        handed["packed"],
        Path(handed["run_dir"]),
        handed["bank"],
        handed["labellers"],
        lambda event: _send(mailbox, event),
        ranks,
        device,
    )
    if handed["evaluator"] is not None:
        here = Evaluator(handed["settings"], handed["packed"], handed["run_dir"])
        patience = handed["settings"].run.start_timeout
        context.beside = BesideTraining(handed["evaluator"], here.evaluate, patience)
    exporter = Exporter(
        context.spans,
        of_worker,
        {"run": Path(handed["run_dir"]).name, "rank": str(ranks.rank)},
        lambda: _queues(handed["bank"], handed["labellers"]),
    )
    try:
        history = train(context)
    except (ValueError, OSError) as error:
        if isinstance(error, ValueError) or error.errno in _DISK_ERRORS:
            mailbox.submit("fail", str(error), traceback.format_exc()).result()
        raise
    finally:
        exporter.close()
        context.checkpoints.close()
    return history if ranks.rank == 0 else None


def _send(mailbox: OnRay, event: Mapping[str, Any]) -> None:
    mailbox.submit("put", dict(event))


def _worker_environment(settings: Settings) -> dict[str, str]:
    threads = str(settings.run.threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**dict.fromkeys(names, threads), "WDS_SECURE": "1"}


class _Drained:
    """Hands the mailbox's events on, in a thread, until the block ends; raises what went wrong with that at the end."""

    def __init__(self, mailbox: OnRay, report: Callable[[Mapping[str, Any]], None]) -> None:
        self._mailbox = mailbox
        self._report = report
        self._over = threading.Event()
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
            self._drain()

    def _drain(self) -> None:
        for event in self._mailbox.submit("take").result():
            try:
                self._report(event)
            except Exception as error:  # the run goes on without its reports, and ends with the first such error
                self._error = self._error or error
