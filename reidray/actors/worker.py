"""What a training worker runs, in its process: the context of its training, put together from what the driver sent."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import ray.train
import torch

from reidray.actors.metrics import Exporter, of_worker
from reidray.actors.remote import OnRay
from reidray.bank import MemoryBank
from reidray.config import Settings
from reidray.disk import DISK_ERRORS
from reidray.errors import PassingError
from reidray.launch.evaluator import Evaluator
from reidray.launch.services import worker_context
from reidray.training.background_evaluation import BackgroundEvaluation
from reidray.training.history import History
from reidray.training.label_service import LabelService
from reidray.training.loop import train
from reidray.training.ranks import ProcessGroup

_LOOK_SECONDS = 0.1


class Handed(TypedDict):
    """What the driver sends to every worker.

    Items:
      settings: the run's, with absolute paths.
      packed, run_dir: places on storage that every node sees.
      bank, labellers, mailbox: the driver's actors. Of the labellers some may have ended for good: the others go on.
      evaluator: evaluates beside training, where there is room for it.
    """

    settings: Settings
    packed: str
    run_dir: Path
    bank: MemoryBank
    labellers: list[OnRay]
    mailbox: OnRay
    evaluator: OnRay | None


def work(handed: Handed) -> History | None:
    """Train; the history comes from rank 0.

    A ValueError or a full disk is something that a person can put right and a restart cannot: it goes to the mailbox,
    and the group that Ray Train starts in place of this one finds it there and ends at once.
    """
    if handed["mailbox"].submit("failure").result() is not None:
        return None
    mailbox_name, _ = handed["mailbox"].submit("sent").result()
    ranks = ProcessGroup()
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    labellers = LabelService(_left(handed), handed["settings"], handed["bank"])
    context = worker_context(
        handed["settings"],
        handed["packed"],
        handed["run_dir"],
        handed["bank"],
        labellers,
        lambda event: send(handed["mailbox"], event),
        ranks,
        device,
    )
    context.filed = lambda: _await_filed(handed["mailbox"], mailbox_name)
    evaluator = handed["evaluator"]
    if evaluator is not None and ranks.broadcast(not evaluator.ended()):  # all ranks or none, or they wait for ever
        here = Evaluator(handed["settings"], handed["packed"], str(handed["run_dir"]))
        context.background = BackgroundEvaluation(evaluator, here.evaluate, handed["settings"].run.start_timeout)
    exporter = Exporter(
        context.spans,
        of_worker,
        {"run": handed["run_dir"].name, "rank": str(ranks.rank)},
        lambda: _queues(handed["bank"], labellers),
    )
    try:
        history = train(context)
    except (ValueError, OSError) as error:
        passing = isinstance(error, PassingError | OSError)
        if isinstance(error, ValueError) or error.errno in DISK_ERRORS:
            handed["mailbox"].submit("fail", str(error), f"in a worker:\n{traceback.format_exc()}", passing).result()
        raise
    finally:
        exporter.close()
        context.checkpoints.close()
    return history if ranks.rank == 0 else None


def _left(handed: Handed) -> list[OnRay]:
    """The labellers that have not ended for good."""
    left = [labeller for labeller in handed["labellers"] if not labeller.ended()]
    if not left:
        sentence = "no labeller is left: each died too often (run.max_failures)"
        handed["mailbox"].submit("fail", sentence, "", True).result()
        raise RuntimeError("no labeller is left")
    return left


def send(mailbox: OnRay, event: Mapping[str, Any]) -> None:
    """An event to the driver; nobody waits."""
    mailbox.submit("put", dict(event))


def _await_filed(mailbox: OnRay, name: str) -> None:
    """Until the driver has filed what was sent so far, however long that takes.

    Args:
      mailbox: where it was sent.
      name: that the mailbox gave itself when this worker began.

    Raises:
      RuntimeError: the mailbox was started again since, and lost what had come and was not filed; or the driver
        cannot file, which is the end of the run.
    """
    _, sent = mailbox.submit("sent").result()
    while True:
        now, handled = mailbox.submit("handled").result()
        if now != name:
            raise RuntimeError("figures were lost on their way to the run's files: going on from the checkpoint before")
        if handled >= sent:
            return
        if mailbox.submit("failure").result() is not None:
            raise RuntimeError("the driver cannot file figures")
        time.sleep(_LOOK_SECONDS)


def environment(settings: Settings) -> dict[str, str]:
    """Variables of a worker's process."""
    threads = str(settings.run.threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**dict.fromkeys(names, threads), "WDS_SECURE": "1"}


def _queues(bank: MemoryBank, labellers: LabelService) -> dict[str, float]:
    writes, steps = bank.queue()
    return {
        "reidray_bank_pending_writes": writes,
        "reidray_bank_lag_steps": steps,
        "reidray_labeller_pending_shards": labellers.queue(),
    }
