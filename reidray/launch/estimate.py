"""How long a run will take, measured before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from reidray.config import Settings
from reidray.counted import counted
from reidray.launch.services import num_cpus
from reidray.report.progress import duration
from reidray.threads import set_threads
from reidray.training.images import as_input
from reidray.training.loop import new_model

_IMAGES = 8
"""Images of the pass that is timed."""

_LONG = 24 * 3600.0


def time_to_come(settings: Settings, *, images: int, workers: int, on_gpu: bool) -> str | None:
    """A sentence on the seconds that training will take, from one pass of the network forward and back.

    Args:
      settings: the run's.
      images: that are extracted in an epoch.
      workers: 0 without Ray.
      on_gpu: whether workers have GPUs.

    Returns:
      None where it cannot be told: GPUs that this process does not see, or a method with stages of its own.
    """
    if (settings.own is not None and settings.own.has_stages) or (on_gpu and not torch.cuda.is_available()):
        return None
    device = torch.device("cuda" if on_gpu else "cpu")
    set_threads(settings.run.threads)
    model = new_model(settings).to(device)
    pixels = np.zeros((_IMAGES, settings.data.height, settings.data.width, 3), np.uint8)
    batch_B3HW = as_input(pixels, device)

    def learn() -> None:
        model.train()
        outputs = model(batch_B3HW)
        sum(rows.float().sum() for rows in outputs if rows is not None and rows.requires_grad).backward()

    @torch.no_grad()
    def extract() -> None:
        model.eval()
        model(batch_B3HW)

    at_once = max(1, workers if on_gpu else min(workers, num_cpus()))
    epochs, steps = settings.train.epochs, settings.train.steps
    update = _seconds(learn, device) / _IMAGES * settings.batch_size / at_once
    extraction = _seconds(extract, device) / _IMAGES * images / at_once
    labellings = epochs + (settings.run.keep_best != "none")  # that one judges the last network
    total = epochs * steps * update + labellings * extraction
    sentence = (
        f"about {duration(total)} to come: {counted(epochs, 'epoch')}, each {counted(steps, 'update')} at "
        f"{_short(update)} and {counted(images, 'image')} to extract in {duration(extraction)} (measured just now; "
        "labelling and evaluation not counted)"
    )
    sentence += "; the first run on a machine compiles its kernels for a minute or more beside that"
    if total > _LONG and not on_gpu and settings.model.backbone != "small":
        sentence += (
            "; without a GPU model.backbone=small model.weights=shipped data.height=96 data.width=48 takes minutes"
        )
    return sentence


def _short(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else duration(seconds)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of the second pass; of the first one where that was long already."""
    spent = 0.0
    for _ in range(2):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent = time.perf_counter() - began
        if spent > 20.0:
            break
    return spent
