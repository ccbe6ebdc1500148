"""The page of a run, put together: what the run folder, its newest checkpoint and the packed images say."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reidray.config import Settings
from reidray.features.grid import mask_to_pixels
from reidray.launch.inference import load_model
from reidray.launch.prepare import packed_place
from reidray.launch.run_labels import labels_of_checkpoint, write_who_is_where
from reidray.methods import make_method
from reidray.report.page import MAPPED, ComparedRun, RankedList, RunContents, write_comparison, write_page
from reidray.report.pictures import draw_masks
from reidray.report.tensorboard import TensorBoard
from reidray.storage import read_truth
from reidray.storage.cache import open_folder
from reidray.storage.checkpoints import CheckpointStore
from reidray.storage.kept_labels import LastLabels, read_cameras, read_labels, read_last
from reidray.storage.runfolder import RunFolder
from reidray.training.context import evaluation_splits, open_split, split_exists
from reidray.training.history import History
from reidray.training.images import Samples, as_input

_MASKS = 12  # images that parts are drawn over


def write_run_page(
    settings: Settings, packed: str, folder: RunFolder, history: History, last: LastLabels | None
) -> Path:
    """Writes report.html and its folder into a run folder, and the projector's files for TensorBoard.

    Args:
      settings: of the run.
      packed: place of the packed images.
      history: of the run, or of its newest checkpoint.
      last: the last labelling, None where nothing was kept of it.

    Returns:
      the page.
    """
    samples = open_split(settings, packed, "train")
    _draw_missing_masks(settings, folder, samples)
    run = contents(settings, packed, folder, samples, history.examples, last)
    page = write_page(folder.path, run)
    if "tensorboard" in settings.run.loggers:
        board = TensorBoard(folder.tensorboard)
        updates = len(run.steps)
        board.pictures(updates, {path.stem: path for path in sorted(folder.pictures.glob("*.png"))})
        board.close()
        if last is not None and len(last.sample_M):
            from reidray.report.projector import write_projector

            columns = {"cluster": last.labels_N, "camera": run.cameras_N, "doubt": last.doubts.doubts_N}
            if run.persons_N is not None:
                columns["person"] = run.persons_N
            chosen = np.unique(np.linspace(0, len(last.sample_M) - 1, min(MAPPED, len(last.sample_M))).astype(np.int64))
            images_M = last.sample_M[chosen]
            write_projector(
                folder.tensorboard,
                last.features_MD[chosen],
                [run.names[image] for image in images_M],
                {name: values[images_M] for name, values in columns.items()},
                samples.rows(images_M),
            )
    return page


def report_again(place: Path, packed: str | None) -> Path:
    """The page of a run that is over, or stopped; clusters.parquet too.

    Args:
      place: the run folder.
      packed: where its packed images lie now, None: where they were.

    Raises:
      ValueError: it is no run folder, has no whole checkpoint, or its images are not there.
    """
    folder = RunFolder.open(place)
    settings = folder.settings()
    checkpoint, _ = CheckpointStore(folder.checkpoints, keep=1).newest()
    if checkpoint is None:
        raise ValueError(f"{place} has no whole checkpoint yet: there is nothing to report")
    where = packed or packed_place(settings)
    if not split_exists(where, "train"):
        raise ValueError(f"the packed images of {place} are not at {where}: give --packed DIR")
    data = settings.data.model_copy(update={"packed": where})
    settings = settings.model_copy(update={"data": data})
    if read_last(folder.path) is None:
        labels_of_checkpoint(settings, where, folder)
    last = write_who_is_where(settings, where, folder)
    return write_run_page(settings, where, folder, History.from_tree(checkpoint.history), last)


def compare_runs(places: Sequence[Path], output: Path) -> None:
    """A page of several runs beside each other.

    Raises:
      ValueError: a folder is no run folder.
    """
    runs = []
    names = _told_apart(places)
    for place, name in zip(places, names, strict=True):
        folder = RunFolder.open(place)
        page = folder.path / "report.html"
        address = os.path.relpath(page, output.absolute().parent) if page.is_file() else None
        runs.append(ComparedRun(name, _figures_alone(folder), address))
    write_comparison(output, runs)


def contents(
    settings: Settings,
    packed: str,
    folder: RunFolder,
    samples: Samples,
    examples: Mapping[str, Any] | None,
    last: LastLabels | None,
) -> RunContents:
    """What the page is made from."""
    return RunContents(
        title=folder.path.name,
        settings=settings.model_dump(mode="json"),
        epochs=folder.epochs(),
        steps=folder.steps(),
        evaluations=folder.evaluations(),
        result=folder.result(),
        unit=samples.unit,
        names=samples.source.names,
        cameras_N=samples.source.cameras_N,
        thumbnails=samples.rows,
        persons_N=read_truth(f"{packed}/train"),
        last=last,
        labels=read_labels(folder.path),
        ranked=_ranked(settings, packed, examples),
        skipped=_skipped(packed),
        masks=(folder.pictures / "part_masks.png").is_file(),
        commands=_next(folder.path),
    )


def _skipped(packed: str) -> dict[str, int]:
    """The files that packing could not use: reason -> how many; none where the pack is gone."""
    try:
        described = json.loads(open_folder(packed, None).read("dataset.json") or b"{}")
    except (OSError, ValueError):
        return {}
    return {reason: int(entry["count"]) for reason, entry in described.get("skipped", {}).items()}


def _next(place: Path) -> list[tuple[str, str]]:
    """The lines that most people want next."""
    here = Path.cwd()
    run = shlex.quote(str(place.relative_to(here) if place.is_relative_to(here) else place))
    return [
        (f"reidray embed --run {run} --output people.parquet IMAGES", "A gallery of images"),
        ("reidray search --gallery people.parquet PHOTO", "Who in the gallery looks like this"),
        (f"reidray evaluate --run {run} DATA", "The figures on another data set with known persons"),
        (f"reidray export --run {run} --format onnx --output model.onnx", "The model for a tracker"),
    ]


def _ranked(settings: Settings, packed: str, examples: Mapping[str, Any] | None) -> list[RankedList]:
    """The worst ranked lists first; of an older run those that it kept, the most wrong answers first."""
    if examples is None or not examples["queries"]:
        return []
    query, gallery = (open_split(settings, packed, name) for name in evaluation_splits(settings))
    kept = examples.get("worst") or examples
    scores = kept.get("precisions", [None] * len(kept["queries"]))
    names, others = query.source.names, gallery.source.names
    found = [
        RankedList(
            names[index],
            [others[place] for place in ranked],
            right,
            np.concatenate([query.rows(np.array([index])), gallery.rows(np.array(ranked, np.int64))]),
            score,
        )
        for index, ranked, right, score in zip(kept["queries"], kept["ranked"], kept["right"], scores, strict=True)
    ]
    return sorted(found, key=lambda one: sum(one.right) if one.score is None else one.score)


@torch.no_grad()
def _draw_missing_masks(settings: Settings, folder: RunFolder, samples: Samples) -> None:
    """The parts that the network finds in some training images, where no evaluation has drawn any."""
    path, num_parts = folder.pictures / "part_masks.png", make_method(settings).num_parts
    if path.exists() or not num_parts:
        return
    count = samples.source.count
    chosen = np.unique(np.linspace(0, count - 1, min(_MASKS, count)).astype(np.int64))
    model, _ = load_model(folder.path)
    images_BHW3 = samples.rows(chosen)
    outputs = model.eval()(as_input(images_BHW3, torch.device("cpu")))
    masks_BLHW = make_method(settings).to_evaluate(outputs).get("masks")
    if masks_BLHW is None:
        return
    size = (settings.data.height, settings.data.width)
    parts = [mask_to_pixels(cells, model.grid, size).numpy() for cells in masks_BLHW.float().argmax(1)]
    names = [samples.source.name(index).rsplit("/", 1)[-1] for index in chosen]
    draw_masks(path, images_BHW3, np.stack(parts), names, num_parts=num_parts)


def _figures_alone(folder: RunFolder) -> RunContents:
    """What is compared of a run, and what its own page warns of: without its images, which may be gone."""
    clusters = [epoch for epoch in folder.epochs() if "clusters" in epoch]
    if not clusters:
        raise ValueError(f"{folder.path} has no finished epoch yet: there is nothing to compare")
    settings, who = folder.settings(), folder.path / "clusters.parquet"
    last = read_last(folder.path) if who.is_file() else None
    return RunContents(
        title=folder.path.name,
        settings=settings.model_dump(mode="json"),
        epochs=folder.epochs(),
        steps=folder.steps(),
        evaluations=folder.evaluations(),
        result=folder.result(),
        unit="images",
        names=[],
        cameras_N=np.empty(0, np.int32) if last is None else read_cameras(who),
        thumbnails=lambda indices: np.empty((len(indices), 2, 1, 3), np.uint8),
        last=last,
        skipped=_skipped(packed_place(settings)),
    )


def _told_apart(places: Sequence[Path]) -> list[str]:
    """Names of folders; with so many of their parents that no two are the same."""
    absolute = [place.absolute() for place in places]
    for depth in range(1, max(len(place.parts) for place in absolute) + 1):
        names = ["/".join(place.parts[-depth:]) for place in absolute]
        if len(set(names)) == len(names):
            return names
    raise ValueError("a run is named twice: compare different ones")
