"""The run on Ray: actors owned by the driver, and a Ray Train group of DDP workers that use them.

The driver makes the memory bank, the labellers and a mailbox, then the workers, and hands out the handles. A worker
that dies takes its group with it; Ray Train starts the group anew, and it goes on from the newest checkpoint with the
same actors, whose tables it puts back to that checkpoint's.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from reidray.actors.mailbox import Mailbox
from reidray.actors.placing import OnRay, placed
from reidray.bank import BankShard, MemoryBank
from reidray.config import Settings
from reidray.launch.services import layouts, worker_context
from reidray.training.labelling import Labeller, LabelService
from reidray.training.loop import History, train
from reidray.training.ranks import ProcessGroup

# Read by the controller and the workers of Ray Train from the environment of the driver.
_TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon a dead worker is noticed
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it prints every line twice
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # logs an error at every start; elastic groups are not used here
}
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def connect(settings: Settings) -> None:
    """Join the cluster that RAY_ADDRESS names (as in a submitted job), or start Ray on this machine.

    The dashboard of a local start listens on 127.0.0.1 only; token authentication is Ray's default there.
    """
    for name, value in _TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(settings.run.start_timeout))
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; else it warns
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        ray.init(address="local", dashboard_host="127.0.0.1", log_to_driver=False, logging_level=logging.ERROR)


def chosen_workers(settings: Settings) -> tuple[int, bool]:
    """How many workers, and whether each has a GPU.

    run.workers where it is given; else one for every GPU of the cluster that labellers leave, else two on CPUs (one
    where there is only one), and never more than there are BN groups in a batch.

    Raises:
      ValueError: the cluster has fewer GPUs or CPUs than asked for.
    """
    there = ray.cluster_resources()
    gpus, cpus = int(there.get("GPU", 0)), int(there.get("CPU", 0))
    for_labellers = math.ceil(settings.run.labellers * settings.run.labeller_gpus)
    if for_labellers > gpus:
        raise ValueError(
            f"run.labellers={settings.run.labellers} x run.labeller_gpus={settings.run.labeller_gpus:g} needs "
            f"{for_labellers} GPUs and the cluster has {gpus}: set run.labeller_gpus=0 to label on CPUs"
        )
    gpus -= for_labellers
    use_gpu = settings.run.device == "cuda" or (settings.run.device == "auto" and gpus > 0)
    most = gpus if use_gpu else min(2, max(1, cpus // settings.run.threads))
    workers = settings.run.workers or max(1, min(most, settings.num_groups))
    if use_gpu and workers > gpus:
        raise ValueError(
            f"{workers} workers with run.device={settings.run.device} need as many GPUs; the cluster has {gpus} for "
            "them: lower run.workers or set run.device=cpu"
        )
    if workers * settings.run.threads > cpus:
        raise ValueError(
            f"run.workers={workers} x run.threads={settings.run.threads} needs {workers * settings.run.threads} CPUs "
            f"and the cluster has {cpus}: lower run.workers or run.threads"
        )
    return workers, use_gpu


def train_on_ray(
    settings: Settings, packed: str, run_dir: Path, report: Callable[[Mapping[str, Any]], None]
) -> History:
    """Train with Ray Train workers; `connect` comes first.

    Args:
      settings: the run's, with absolute paths.
      packed: packed shards, on storage that every node sees.
      run_dir: run folder, likewise.
      report: is handed every event, in a thread of this process.

    Returns: the run's history, as `reidray.training.loop.train` does.

    Raises:
      ValueError: what a user can put right, in a worker too.
    """
    workers, use_gpu = chosen_workers(settings)
    shards = [placed(BankShard, threads=1) for _ in range(settings.run.bank_shards)]
    bank = MemoryBank(shards, layouts(settings, packed))
    threads, gpus = settings.run.labeller_threads, settings.run.labeller_gpus
    members = [placed(Labeller, settings, bank, threads=threads, gpus=gpus) for _ in range(settings.run.labellers)]
    labellers = LabelService(members, settings, bank)
    mailbox = placed(Mailbox, threads=1)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "settings": settings,
            "packed": packed,
            "run_dir": str(run_dir),
            "bank": bank,
            "labellers": labellers,
            "mailbox": mailbox,
        },
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": settings.run.threads, "GPU": int(use_gpu)},
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(run_dir),
            failure_config=FailureConfig(max_failures=settings.run.max_failures, controller_failure_limit=1),
            logging_config=LoggingConfig(log_level="ERROR"),
            worker_runtime_env={"env_vars": _worker_environment(settings)},
        ),
    )
    try:
        with _Drained(mailbox, report):
            result = trainer.fit()
    except (ray.train.TrainingFailedError, ray.exceptions.RayActorError) as error:
        _raise_failure(mailbox)
        raise ValueError(
            f"training stopped after {settings.run.max_failures} restarts of its workers; --resume {run_dir} goes on "
            f"from the newest checkpoint; the last error: {str(error).strip().splitlines()[-1]}"
        ) from error
    _raise_failure(mailbox)
    history: History = result.return_value
    return history


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
    try:
        history = train(context)
    except (ValueError, OSError) as error:
        if isinstance(error, ValueError) or error.errno in _DISK_ERRORS:
            mailbox.submit("fail", str(error), traceback.format_exc()).result()
        raise
    finally:
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
