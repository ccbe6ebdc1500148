"""A run from its settings to its folder: prepare the data, train with or without Ray, write what was found."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from reidray import compiled
from reidray.config import Settings
from reidray.disk import DISK_ERRORS
from reidray.errors import PassingError
from reidray.events import message
from reidray.launch.estimate import time_to_come
from reidray.launch.kernels import compiled_beside
from reidray.launch.prepare import IfChanged, packed_in, prepared, with_places
from reidray.launch.services import chosen_device, in_process_services, num_cpus, worker_context
from reidray.methods import make_method
from reidray.report.console import Console
from reidray.report.loggers import check_loggers
from reidray.storage.runfolder import RunFolder, default_run_dir
from reidray.storage.weights import load_weights
from reidray.training.advice import advice
from reidray.training.context import Report, open_split
from reidray.training.history import History
from reidray.training.loop import new_model, train
from reidray.version import __version__

_FIGURES = ("mAP", "rank1", "rank5", "rank10", "mINP")


def launch(
    settings: Settings,
    *,
    resume: Path | None = None,
    watch: Callable[[Mapping[str, Any]], None] | None = None,
    notes: Sequence[str] = (),
    attended: bool = False,
) -> dict[str, Any]:
    """Run a training job to its end and return what result.json says.

    Args:
      settings: as parsed; paths are taken relative to the working directory.
      resume: a run folder to continue.
      watch: is handed every event of the training, after the console has filed it.
      notes: what the run folder's log and the console say first.
      attended: somebody waits for it. It says before the training how long that will take, and compiles kernels that
        are not kept yet beside its beginning.

    Raises:
      ValueError: one sentence for everything a person can put right.
    """
    check_loggers(settings.run.loggers)
    beside = settings.data.packed is None  # nobody asked for a place of the shards
    settings = with_places(settings.resolved(Path.cwd())).with_counted_epochs()
    place = resume or Path(settings.run.dir or default_run_dir(Path.cwd() / "runs", settings, datetime.now()))
    place = place.resolve()
    settings = settings.model_copy(update={"run": settings.run.model_copy(update={"dir": str(place)})})
    folder = RunFolder.open(place) if resume else RunFolder.create(place, settings)
    started = time.perf_counter()
    with (
        locked(place),
        _removed_if_nothing_began(folder, resume),
        Console(folder, settings) as console,
        compiled_beside(settings, console.handle) if attended else nullcontext(),
    ):
        folder.mend()
        console.handle(message(f"run folder {place}"))
        for note in notes:
            console.handle(message(note))
        if not_kept := compiled.caution():
            console.handle(message(not_kept))
        if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") and str(place).startswith(str(Path.cwd())):
            text = "the run folder lies in the job's own copy of the working directory: give run.dir=DIR to keep it"
            console.handle(message(text))
        if unread := settings.without_effect():
            console.handle(message(f"without effect under method.name={settings.method.name}: {', '.join(unread)}"))
        if not any(folder.checkpoints.iterdir()):
            _check_weights(settings, console)
        if settings.run.workers == 0:
            chosen_device(settings)
        if_changed: IfChanged = "use" if resume else "pack"
        packed = prepared(settings, console.handle, processes=num_cpus(), if_changed=if_changed, beside=beside)
        settings = packed_in(settings, packed)
        workers, on_gpu = _check_machines(settings, console)  # after the data: Ray takes long to start
        if attended and resume is None:
            count = open_split(settings, packed, "train").images.source.count
            if (sentence := time_to_come(settings, images=count, workers=workers, on_gpu=on_gpu)) is not None:
                console.handle(message(sentence))
        listeners = [console.handle, _settings_kept(folder, settings), *([watch] if watch else [])]
        try:
            history = _trained(settings, packed, place, lambda event: _tell(listeners, event))
        except KeyboardInterrupt:
            kept = any(folder.checkpoints.glob("epoch_*"))
            text = (
                f"goes on with: reidray train --resume {shlex.quote(str(place))}" if kept else "has no checkpoint yet"
            )
            console.handle(message(f"interrupted; the run {text}"))
            raise
        split = open_split(settings, packed, "train")
        seconds = time.perf_counter() - started
        known = int((split.source.cameras_N >= 0).sum())
        result = summary(settings, history, seconds, place, known=known, taken=split.taken)
        _file_result(folder, result, history.not_kept)
        filed = f"all figures of the run are in {folder.path}/result.json"
        if history.not_kept is not None:
            raise OSError(errno.ENOSPC, f"{history.not_kept}; {filed}")
        try:
            draw_pictures(settings, packed, folder, history)
            write_report(settings, packed, folder, history)
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            raise OSError(error.errno, f"could not write pictures and page: {error.strerror}; {filed}") from error
        if (caution := _part_caution(settings, history)) is not None:
            console.handle(message(caution))
        if result["advice"] is not None:
            console.handle(message(result["advice"]))
        for line in _next_steps(place, settings):
            console.handle(message(line))
    return result


def _file_result(folder: RunFolder, result: Mapping[str, Any], not_kept: str | None) -> None:
    """Writes result.json; on a full disk says what is in it instead."""
    try:
        folder.write_result(result)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(json.dumps(result), file=sys.stderr)
        sentence = f"could not write {folder.path}/result.json: {error.strerror}; the line above is what it would hold"
        raise OSError(error.errno, f"{not_kept}; {sentence}" if not_kept else sentence) from error


def _part_caution(settings: Settings, history: History) -> str | None:
    from reidray.launch.pictures import part_caution  # matplotlib is slow to import

    return part_caution(settings, history.examples)


def _next_steps(place: Path, settings: Settings) -> list[str]:
    """What one does with a finished run."""
    shown = os.path.relpath(place) if place.is_relative_to(Path.cwd()) else str(place)
    page = f"look at {shown}/report.html; " if settings.run.report else ""
    return [
        f"{page}who is in which cluster: {shown}/clusters.parquet; what next:",
        f"  reidray embed --run {shlex.quote(shown)} --output people.parquet IMAGES   (a gallery of your images)",
        "  reidray search --gallery people.parquet PHOTO   (who looks like this?)",
    ]


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """One driver a run folder, for as long as it lives."""
    with (place / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PassingError(
                f"another process is working in the run folder {place}: stop it, or wait for it"
            ) from None
        except OSError as error:
            raise ValueError(
                f"the run folder {place} is on a file system that cannot lock files ({error.strerror}): mount it with "
                "locks, or give another run.dir"
            ) from None
        yield


@contextmanager
def _removed_if_nothing_began(folder: RunFolder, resume: Path | None) -> Iterator[None]:
    """A new run that fails before it has measured anything leaves no folder in the way of the corrected command."""
    try:
        yield
    except (ValueError, OSError):
        begun = folder.evaluations() or folder.epochs() or any(folder.checkpoints.glob("epoch_*"))
        if resume is None and not begun:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _tell(listeners: Sequence[Report], event: Mapping[str, Any]) -> None:
    for listener in listeners:
        listener(event)


def _settings_kept(folder: RunFolder, settings: Settings) -> Report:
    """What a run that goes on was given anew stays with it, once it was found to fit."""

    def report(event: Mapping[str, Any]) -> None:
        if event["kind"] in ("started", "resumed"):
            folder.write_settings(settings)

    return report


def _trained(settings: Settings, packed: str, place: Path, report: Report) -> History:
    """The history of the run: in this process for run.workers=0, else with Ray's workers."""
    if settings.run.workers == 0:
        bank, labellers = in_process_services(settings, packed)
        context = worker_context(settings, packed, place, bank, labellers, report)
        try:
            return train(context)
        finally:
            context.checkpoints.close()
    from reidray.actors.train_group import train_on_ray  # a run without Ray never imports it

    return train_on_ray(settings, packed, place, report)


def _check_weights(settings: Settings, console: Console) -> None:
    """Load the start weights once, before anything long begins, and say what did not match."""
    if settings.model.weights == "none":
        return
    report = load_weights(new_model(settings), settings.model.weights)
    console.handle(message(f"start weights: {report.loaded} tensors from {report.origin}"))
    for renaming, count in report.renamed.items():
        if renaming != "* -> *":
            console.handle(message(f"  {count} tensors renamed {renaming} (read as {report.rule})", detail=True))
    if report.copied:
        text = f"  {report.copied} tensors of the parts' embedding layers begin as copies of embeddings.0"
        console.handle(message(text, detail=True))
    for what, keys in (("not in the file, newly drawn", report.missing), ("in the file, not used", report.unexpected)):
        if keys:
            layers = ", ".join(dict.fromkeys(key.rpartition(".")[0] or key for key in keys))
            console.handle(message(f"  {len(keys)} tensors {what}: {layers}", detail=True))


def _check_machines(settings: Settings, console: Console) -> tuple[int, bool]:
    """Join or start Ray and see that there is what run.workers and run.device ask for: how many, and whether GPUs."""
    if settings.run.workers == 0:
        return 0, chosen_device(settings).type == "cuda"
    from reidray.actors.cluster import awaited_workers, connect  # a run without Ray never imports it

    address = os.environ.get("RAY_ADDRESS")
    console.handle(message(f"joining Ray at {address}" if address else "starting Ray"))
    connect(settings)
    workers, use_gpu = awaited_workers(settings, lambda text: console.handle(message(text)))
    many = "workers" if workers > 1 else "worker"
    where = "with a GPU each" if use_gpu else "on CPUs"
    console.handle(message(f"to train: {workers} {many} {where}"))
    return workers, use_gpu


def summary(
    settings: Settings, history: History, total_seconds: float, place: Path, *, known: int, taken: int = 1
) -> dict[str, Any]:
    """result.json: figures before and after in percent, the last labels, seconds by stage, and what was run.

    known: training samples whose camera is known. taken: images of a sample that a training step takes.
    """
    method = make_method(settings)
    reported = len(history.epochs) - 1 if history.selected is None else history.selected[0]
    labelled = [figures for figures in history.epochs[: reported + 1] if "clusters" in figures]
    last = labelled[-1]  # the epoch whose labels were in use
    measured = all(history.evaluations[when] is not None for when in ("before", "after"))
    before, after = (history.evaluations[when] or {} if measured else {} for when in ("before", "after"))
    seconds = {stage: round(spent, 2) for stage, spent in history.seconds.items()}
    total_seconds = max(total_seconds, sum(seconds.values()))  # a resumed run was at work before
    images = history.updates * settings.batch_size * taken
    return {
        "before": {name: before[name] for name in _FIGURES} if measured else None,
        "after": {name: after[name] for name in _FIGURES} if measured else None,
        "mAP_trapezoid": {"before": before["mAP_trapezoid"], "after": after["mAP_trapezoid"]} if measured else None,
        **_chosen(settings, history, place),
        "parsing_mIoU": after.get("parsing_mIoU"),
        "stripes_mIoU": after.get("stripes_mIoU"),
        "clusters": last["clusters"],
        "outliers": last["outliers"],
        "ARI": last.get("ARI"),
        "AMI": last.get("AMI"),
        "purity": last.get("purity"),
        "seconds": {**seconds, "total": round(total_seconds, 2)},
        "images_per_second": round(images / max(history.seconds["train"], 1e-9), 1),
        **{name: last.get(name) for name in method.reported},
        "camera_cycle": last.get("camera_cycle"),
        "advice": advice(settings, history.epochs, known),
        "method": settings.method.name,
        "supervision": "supervised" if settings.method.labels == "ground_truth" else method.supervision,
        "labels": settings.method.labels,
        "split": settings.evaluate.split,
        "config_hash": settings.hash(),
        "seed": settings.train.seed,
        "data_seed": settings.data.seed,
        "version": __version__,
        "run_dir": str(place),
    }


def _chosen(settings: Settings, history: History, place: Path) -> dict[str, Any]:
    """Which network is reported, where that is not simply the last one; the best by the truth, where asked for."""
    found: dict[str, Any] = {}
    last = history.evaluations.get("last")
    if history.selected is not None:
        found["selected"] = {"epoch": history.selected[0], "criterion": history.selected[1]}
        found["last"] = None if last is None else {name: last[name] for name in _FIGURES}
    if settings.evaluate.report_best:
        lines = [line for line in RunFolder(place).evaluations() if line["when"] != "before"]
        best = max(lines, key=lambda line: line["mAP"], default=None)
        names = ("epoch", *_FIGURES)
        found["best_by_truth"] = None if best is None else {name: best[name] for name in names}
    return found


def draw_pictures(settings: Settings, packed: str, folder: RunFolder, history: History) -> None:
    """Curves, masks and ranked lists into the run folder, from what the run left there."""
    from reidray.launch.pictures import draw_all  # matplotlib is slow to import

    draw_all(settings, packed, folder, history.examples)


def write_report(settings: Settings, packed: str, folder: RunFolder, history: History) -> None:
    """clusters.parquet into the run folder, and report.html unless run.report says no."""
    from reidray.launch.run_labels import write_who_is_where  # loads what a run that fails early does not need

    last = write_who_is_where(settings, packed, folder)
    if settings.run.report:
        from reidray.launch.run_page import write_run_page

        write_run_page(settings, packed, folder, history, last)
