"""The pictures of a run folder: curves, part masks over images, ranked lists."""

from __future__ import annotations

import numpy as np
import torch

from reidray.arrays import Array, Ints
from reidray.config import Settings
from reidray.features import Embedder
from reidray.features.grid import mask_to_pixels
from reidray.launch.inference import embed, load_model
from reidray.report import draw_masks, draw_plots, draw_ranked_lists
from reidray.storage.runfolder import RunFolder
from reidray.storage.shards import read_masks, read_truth
from reidray.training.context import open_split, split_exists
from reidray.training.evaluation import evaluation_splits
from reidray.training.images import SizedImages

_RANKS = 10
_MASKS = 12


def draw_all(settings: Settings, packed: str, folder: RunFolder) -> None:
    """Draw everything from the run folder and its newest checkpoint."""
    draw_plots(folder)
    if settings.evaluate.ranked_lists == 0 or not all(
        split_exists(packed, name) for name in evaluation_splits(settings)
    ):
        return
    model, _ = load_model(folder.path)
    query, gallery = (open_split(settings, packed, name) for name in evaluation_splits(settings))
    queries_QD, masks = embed(model, settings, query, _quiet)
    gallery_GD, _ = embed(model, settings, gallery, _quiet)
    _ranked_lists(settings, packed, folder, query, gallery, queries_QD @ gallery_GD.T)
    if masks is not None:
        _part_masks(settings, packed, folder, model, query, masks)


def _ranked_lists(
    settings: Settings, packed: str, folder: RunFolder, query: SizedImages, gallery: SizedImages, similarities_QG: Array
) -> None:
    """The first ranks of queries spread over the split; the same person in the same camera is left out, as in mAP."""
    query_name, gallery_name = evaluation_splits(settings)
    query_persons, gallery_persons = read_truth(f"{packed}/{query_name}"), read_truth(f"{packed}/{gallery_name}")
    if query_persons is None or gallery_persons is None:
        return
    chosen = _spread(len(query_persons), settings.evaluate.ranked_lists)
    pictures, flags = [], []
    for index in chosen:
        same = (gallery_persons == query_persons[index]) & (gallery.source.cameras_N == query.source.cameras_N[index])
        order = np.argsort(np.where(same, np.inf, -similarities_QG[index]), kind="stable")
        first = order[: min(_RANKS, int((~same).sum()))]
        pictures.append(list(gallery.rows(first)))
        flags.append((gallery_persons[first] == query_persons[index]).tolist())
    names = [query.source.names[index] for index in chosen]
    draw_ranked_lists(folder.pictures / "ranked_lists.png", list(query.rows(chosen)), pictures, flags, names)


def _part_masks(
    settings: Settings, packed: str, folder: RunFolder, model: Embedder, query: SizedImages, masks_NLHW: Array
) -> None:
    """The predicted parts over images, the true ones below where they are known."""
    chosen = _spread(len(masks_NLHW), _MASKS)
    size = (settings.data.height, settings.data.width)
    parts = [mask_to_pixels(torch.from_numpy(masks_NLHW[i].argmax(0)), model.grid, size).numpy() for i in chosen]
    truth_NHW = read_masks(f"{packed}/{evaluation_splits(settings)[0]}")
    truth = None
    if truth_NHW is not None:
        rows = np.arange(size[0]) * truth_NHW.shape[1] // size[0]
        columns = np.arange(size[1]) * truth_NHW.shape[2] // size[1]
        truth = truth_NHW[chosen][:, rows][:, :, columns]
    names = [query.source.names[index].split("/")[-1] for index in chosen]
    draw_masks(
        folder.pictures / "part_masks.png",
        query.rows(chosen),
        np.stack(parts),
        names,
        num_parts=settings.num_parts,
        truth_BHW=truth,
    )


def _spread(count: int, wanted: int) -> Ints:
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))


def _quiet(count: int) -> None:
    """The pictures need no progress bar: the run is over."""
