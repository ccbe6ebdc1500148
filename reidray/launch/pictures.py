"""The pictures of a run folder: curves, ranked lists, part masks over images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from reidray.config import Settings
from reidray.features.grid import mask_to_pixels
from reidray.methods import make_method
from reidray.report import draw_masks, draw_ranked_lists
from reidray.storage.masks_file import read_masks
from reidray.storage.runfolder import RunFolder
from reidray.training.context import evaluation_splits, open_split
from reidray.training.images import Samples
from reidray.training.loop import new_model


def draw_all(settings: Settings, packed: str, folder: RunFolder, examples: dict[str, Any] | None) -> None:
    """Draw everything from the run folder, and from the examples of its last evaluation (None: there was none)."""
    from reidray.report.plots import draw_plots  # Matplotlib is slow to import, and a run begins without it

    draw_plots(folder)
    if examples is None:
        return
    query, gallery = (open_split(settings, packed, name) for name in evaluation_splits(settings))
    if examples["queries"]:
        draw_ranked_lists(
            folder.pictures / "ranked_lists.png",
            list(query.rows(np.array(examples["queries"]))),
            [list(gallery.rows(np.array(ranked))) for ranked in examples["ranked"]],
            examples["right"],
            [query.source.name(index) for index in examples["queries"]],
        )
    if examples["masks"]:
        _part_masks(settings, packed, folder, query, examples)


def part_caution(settings: Settings, examples: Mapping[str, Any] | None) -> str | None:
    """A sentence where the network predicts no part of a body on any of the examples; None where it does."""
    background = make_method(settings).num_parts - 1
    parts = [np.array(cells) for cells in (examples or {}).get("parts", ())]
    if not parts or any((cells != background).any() for cells in parts):
        return None
    return (
        "caution: the network calls every cell of the examples background, so that features of parts say nothing: "
        "train longer, or leave the settings of the losses of masks at their defaults"
    )


def _part_masks(settings: Settings, packed: str, folder: RunFolder, query: Samples, examples: dict[str, Any]) -> None:
    """The predicted parts over images, the true ones below where they are known."""
    chosen = np.array(examples["masks"])
    size, grid = (settings.data.height, settings.data.width), new_model(settings).grid
    parts = [mask_to_pixels(torch.tensor(cells), grid, size).numpy() for cells in examples["parts"]]
    truth_Nhw = read_masks(f"{packed}/{evaluation_splits(settings)[0]}")
    truth = None
    if truth_Nhw is not None:
        rows = np.arange(size[0]) * truth_Nhw.shape[1] // size[0]
        columns = np.arange(size[1]) * truth_Nhw.shape[2] // size[1]
        truth = truth_Nhw[chosen][:, rows][:, :, columns]
    names = [query.source.name(index).split("/")[-1] for index in chosen]
    draw_masks(
        folder.pictures / "part_masks.png",
        query.rows(chosen),
        np.stack(parts),
        names,
        num_parts=make_method(settings).num_parts,
        truth_BHW=truth,
    )
