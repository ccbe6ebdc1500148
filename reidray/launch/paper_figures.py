"""What figures of papers show, gathered from run folders: parts of the same images, maps of persons.

N = images, B = images shown, L = parts, H, W = cells of a map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reidray.bank import read_snapshot
from reidray.config import Settings
from reidray.features import Network
from reidray.features.grid import mask_to_pixels
from reidray.launch.inference import embed, load_model
from reidray.methods import make_method
from reidray.report.paper_figures import draw_part_rows, draw_person_maps
from reidray.storage.checkpoints import CheckpointStore
from reidray.storage.shards import read_truth
from reidray.training.context import open_split
from reidray.training.images import Samples, SizedTracklets, as_input


@dataclass(frozen=True)
class Run:
    """A run folder and what the figure calls it."""

    title: str
    folder: Path


def draw_parsings(path: Path, runs: Sequence[Run], *, images: int) -> None:
    """Fig. 3: the pseudo parts that part clustering gave the same training images in each run.

    Raises:
      ValueError: runs of other images, or one without pseudo parts.
    """
    rows, chosen, shown, digest = [], None, None, None
    for run in runs:
        checkpoint, _ = CheckpointStore(run.folder / "checkpoints", keep=1).newest()
        if checkpoint is None:
            raise ValueError(f"{run.folder} has no whole checkpoint")
        settings = Settings.model_validate(checkpoint.settings)
        if digest not in (None, checkpoint.history["images"]):
            raise ValueError(
                f"{run.folder} was trained on other images than {runs[0].folder}: compare runs of one data set"
            )
        digest = checkpoint.history["images"]
        split = _opened(settings, "train")
        if isinstance(split, SizedTracklets):
            raise ValueError(f"{run.folder} was trained on tracklets: this figure shows the pseudo parts of images")
        blocks = {key: rows for key, rows in read_snapshot(checkpoint.bank).items() if key.startswith("train/masks/")}
        if not blocks:
            raise ValueError(f"{run.folder} has no pseudo parts: its method is {settings.method.name}, and has none")
        masks_NLHW = np.concatenate(
            [blocks[key] for key in sorted(blocks, key=lambda key: int(key.rpartition("/")[2]))]
        )
        if chosen is None:
            chosen = _spread(len(masks_NLHW), images)
            shown = split.rows(chosen)
        grid, size = make_method(settings).network().grid, (settings.data.height, settings.data.width)
        cells = torch.from_numpy(masks_NLHW[chosen].astype(np.float32)).argmax(1)
        parts_BHW = np.stack([mask_to_pixels(one, grid, size).numpy() for one in cells])
        rows.append((run.title, parts_BHW, masks_NLHW.shape[1]))
    assert shown is not None
    draw_part_rows(path, shown, rows)


def draw_predictions(path: Path, runs: Sequence[Run], *, images: int) -> None:
    """Fig. 4: the parts that each run's network predicts on the same query images.

    Raises:
      ValueError: a run whose network predicts no parts.
    """
    rows, shown = [], None
    for run, model, settings, split in _loaded(runs, "query"):
        chosen = _spread(split.source.count, images)
        own_BHW3 = split.rows(chosen)
        shown = own_BHW3 if shown is None else shown
        parts_BHW, num_parts = _predicted(model, settings, own_BHW3, run)
        rows.append((run.title, parts_BHW, num_parts))
    assert shown is not None
    draw_part_rows(path, shown, rows)


def draw_persons(path: Path, runs: Sequence[Run], *, persons: int) -> None:
    """Fig. 6: the images of some persons of the gallery, placed by t-SNE of each run's features (scikit-learn).

    The persons with the most images are taken. True identities choose and colour the points, nothing else.
    """
    from sklearn.manifold import TSNE

    maps, chosen = [], None
    for run, model, settings, split in _loaded(runs, "gallery"):
        if chosen is None:
            persons_N = read_truth(f"{settings.data.packed}/gallery")
            if persons_N is None:
                raise ValueError(f"{settings.data.packed}/gallery has no identities to colour the points by")
            numbers, sizes = np.unique(persons_N[persons_N > 0], return_counts=True)
            largest = numbers[np.argsort(-sizes, kind="stable")[:persons]]
            chosen = np.flatnonzero(np.isin(persons_N, largest))
            people, cameras = persons_N[chosen], split.source.cameras_N[chosen]
        features_ND = embed(model, settings, split, lambda _: None)[chosen]
        perplexity = min(20.0, (len(chosen) - 1) / 3)
        placed = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(features_ND)
        maps.append((run.title, placed))
    draw_person_maps(path, maps, people, cameras)


def _opened(settings: Settings, name: str) -> Samples:
    assert settings.data.packed is not None
    return open_split(settings, settings.data.packed, name)


def _loaded(runs: Sequence[Run], name: str) -> Iterator[tuple[Run, Network, Settings, Samples]]:
    """The network and a split of each run; the images are the same in all.

    Raises:
      ValueError: a folder is no run, or a run has other images than those before it.
    """
    digests: set[str] = set()
    for run in runs:
        model, settings = load_model(run.folder)
        split = _opened(settings, name)
        digests.add(split.source.digest)
        if len(digests) > 1:
            raise ValueError(
                f"{run.folder} was evaluated on other images than the runs before: compare runs of one data set"
            )
        yield run, model, settings, split


def _spread(count: int, wanted: int) -> np.ndarray:
    """Indices of some images, evenly over all."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64))


@torch.no_grad()
def _predicted(model: Network, settings: Settings, images_BHW3: np.ndarray, run: Run) -> tuple[np.ndarray, int]:
    outputs = model.eval()(as_input(images_BHW3, torch.device("cpu")))
    masks_BLHW = make_method(settings).to_evaluate(outputs).get("masks")
    if masks_BLHW is None:
        raise ValueError(f"{run.folder} predicts no parts: its method is {settings.method.name}")
    size = (settings.data.height, settings.data.width)
    parts = [mask_to_pixels(cells, model.grid, size).numpy() for cells in masks_BLHW.float().argmax(1)]
    return np.stack(parts), masks_BLHW.shape[1]
