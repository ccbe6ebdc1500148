"""A run from its settings to its folder: prepare the data, train with or without Ray, write what was found."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

from reidray.config import Settings
from reidray.launch.prepare import prepared
from reidray.launch.services import in_process_services, num_cpus, worker_context
from reidray.report.console import Console
from reidray.storage.runfolder import RunFolder, default_run_dir
from reidray.training.loop import History, train
from reidray.version import __version__

_FIGURES = ("mAP", "rank1", "rank5", "rank10", "mINP")


def launch(settings: Settings, *, resume: Path | None = None) -> dict[str, Any]:
    """Run a training job to its end and return what result.json says.

    Args:
      settings: as parsed; paths are taken relative to the working directory.
      resume: a run folder to continue.

    Raises:
      ValueError: one sentence for everything a person can put right.
    """
    settings = settings.resolved(Path.cwd())
    place = resume or Path(settings.run.dir or default_run_dir(Path.cwd() / "runs", settings, datetime.now()))
    place = place.resolve()
    folder = RunFolder.open(place) if resume else RunFolder.create(place, settings)
    started = time.perf_counter()
    with Console(folder, settings) as console:
        console.handle({"kind": "message", "text": f"run folder {place}"})
        packed = prepared(settings, console.handle, processes=num_cpus())
        history = _trained(settings, packed, place, console)
        result = summary(settings, history, time.perf_counter() - started, place)
        folder.write_result(result)
        draw_pictures(settings, packed, folder)
    return result


def _trained(settings: Settings, packed: str, place: Path, console: Console) -> History:
    """The history of the run: in this process for run.workers=0, else with Ray's workers."""
    if settings.run.workers == 0:
        bank, labellers = in_process_services(settings, packed)
        context = worker_context(settings, packed, place, bank, labellers, console.handle)
        try:
            return train(context)
        finally:
            context.checkpoints.close()
    from reidray.actors.train_group import connect, train_on_ray

    console.handle({"kind": "message", "text": "starting Ray"})
    connect(settings)
    return train_on_ray(settings, packed, place, console.handle)


def summary(settings: Settings, history: History, total_seconds: float, place: Path) -> dict[str, Any]:
    """result.json: figures before and after in percent, the last labels, seconds by stage, and what was run."""
    before, after, last = history["before"], history["after"], history["epochs"][-1]
    seconds = {stage: round(spent, 2) for stage, spent in history["seconds"].items()}
    images = len(history["epochs"]) * settings.train.steps * settings.batch_size
    return {
        "before": {name: before[name] for name in _FIGURES},
        "after": {name: after[name] for name in _FIGURES},
        "mAP_trapezoid": {"before": before["mAP_trapezoid"], "after": after["mAP_trapezoid"]},
        "parsing_mIoU": after["parsing_mIoU"],
        "stripes_mIoU": after["stripes_mIoU"],
        "clusters": last["clusters"],
        "outliers": last["outliers"],
        "ARI": last.get("ARI"),
        "AMI": last.get("AMI"),
        "purity": last.get("purity"),
        "seconds": {**seconds, "total": round(total_seconds, 2)},
        "images_per_second": round(images / max(history["seconds"]["train"], 1e-9), 1),
        "method": settings.method.name,
        "labels": settings.method.labels,
        "split": settings.evaluate.split,
        "config_hash": settings.hash(),
        "seed": settings.train.seed,
        "data_seed": settings.data.seed,
        "version": __version__,
        "run_dir": str(place),
    }


def draw_pictures(settings: Settings, packed: str, folder: RunFolder) -> None:
    """Curves, masks and ranked lists into the run folder, from what the run left there."""
    from reidray.launch.pictures import draw_all

    draw_all(settings, packed, folder)
