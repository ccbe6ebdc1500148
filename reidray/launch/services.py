"""What a worker is handed: the bank and the labellers, in this process or as actors, and the context around them."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from reidray.bank import BankShard, InProcess, MemoryBank
from reidray.config import Settings
from reidray.storage.checkpoints import CheckpointStore
from reidray.threads import set_threads
from reidray.training.context import Context, Report, open_split
from reidray.training.label_service import LabelService
from reidray.training.labeller import Labeller
from reidray.training.ranks import OneProcess, Ranks


def layouts(settings: Settings, packed: str) -> dict[str, list[tuple[int, int]]]:
    """First index and number of rows of every shard of the training split, by kind of table: see `Samples`."""
    samples = open_split(settings, packed, "train")
    shards = range(samples.source.num_shards)
    return {
        "train": [samples.source.shard_range(shard) for shard in shards],
        samples.image_tables: [samples.images.source.shard_range(shard) for shard in shards],
    }


def in_process_services(settings: Settings, packed: str) -> tuple[MemoryBank, LabelService]:
    """Bank and labeller as plain objects, for `--workers 0`."""
    shards = [InProcess(BankShard(f"bank shard {place}")) for place in range(settings.run.bank_shards)]
    bank = MemoryBank(shards, layouts(settings, packed))
    return bank, LabelService([InProcess(Labeller(settings, bank))], settings, bank)


def worker_context(
    settings: Settings,
    packed: str,
    run_dir: Path,
    bank: MemoryBank,
    labellers: LabelService,
    report: Report,
    ranks: Ranks | None = None,
    device: torch.device | None = None,
) -> Context:
    """The context of one worker; sets this process's threads."""
    set_threads(settings.run.threads)
    return Context(
        settings=settings,
        ranks=ranks or OneProcess(),
        bank=bank,
        labellers=labellers,
        checkpoints=CheckpointStore(run_dir / "checkpoints", keep=settings.run.keep_checkpoints),
        packed=packed,
        run_dir=run_dir,
        report=report,
        device=device or chosen_device(settings),
    )


def chosen_device(settings: Settings) -> torch.device:
    """The device that run.device asks for.

    Raises:
      ValueError: CUDA is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if settings.run.device == "cuda" and not there:
        raise ValueError(
            "run.device=cuda, but PyTorch sees no CUDA device here: check the driver, or set run.device=auto"
        )
    return torch.device("cuda" if there and settings.run.device != "cpu" else "cpu")


def num_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
