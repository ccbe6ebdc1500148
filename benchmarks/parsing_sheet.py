"""Part clustering on images whose true parts nobody knows: how many cells turn with the image, and a sheet to look at.

    python benchmarks/parsing_sheet.py --sheet sheet.png data.dataset=market1501 data.root=DIR \
        data.height=256 data.width=128 model.backbone=osnet_x0_25 model.weights=FILE

For each switch of the part clustering: the share of the cells whose part is the same in the mirrored image, mirrored
back; the same with the masks one column apart, as a measure of how much that says; the foreground's share of all cells.
Start weights, the first 400 training images. The sheet has the images, and a row of masks a switch.
Pictures of people are not for publication: keep the sheet to yourself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parsing_quality import maps, parsed
from PIL import Image

from reidray.features.grid import mask_to_pixels
from reidray.launch.prepare import prepared
from reidray.launch.services import num_cpus
from reidray.parsing import gram_matrices
from reidray.report.pieces import coloured, scaled
from reidray.settings_io import from_words, settings_from
from reidray.storage.weights import load_weights
from reidray.threads import set_threads
from reidray.training.context import open_split
from reidray.training.loop import new_model

IMAGES, SHOWN = 400, 14
SWITCHES: dict[str, dict[str, Any]] = {
    "as printed": {"classes": 3, "centre_prior": 0.0, "eta": 0.5},
    "2 classes": {"classes": 2, "centre_prior": 0.0, "eta": 0.5},
    "centre prior .15, 2 classes": {"classes": 2, "centre_prior": 0.15, "eta": 0.5},
    "centre prior .15, 3 classes": {"classes": 3, "centre_prior": 0.15, "eta": 0.5},
}
BACKGROUND = 3  # after head, torso and legs


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="PNG to write")
    parser.add_argument("words", nargs="*", metavar="section.name=value")
    options = parser.parse_args()
    settings = settings_from([*from_words(options.words)]).resolved(Path.cwd())
    set_threads(1)
    images = open_split(settings, prepared(settings, lambda _: None, processes=num_cpus()), "train")
    model = new_model(settings).eval()
    if settings.model.weights != "none":
        load_weights(model, settings.model.weights)
    pixels = images.rows(np.arange(min(IMAGES, images.source.count)))
    map_BDHW, mirrored_BDHW = (maps(model, one) for one in (pixels, pixels[:, :, ::-1]))
    table, masks = {}, []
    for name, switch in SWITCHES.items():
        parts, turned = (parts_of(one, switch) for one in (map_BDHW, mirrored_BDHW))
        back = turned[:, :, ::-1]
        table[name] = {
            "same_when_mirrored": round(100 * float((parts == back).mean()), 1),
            "one_column_apart": round(100 * float((parts[:, :, 1:] == back[:, :, :-1]).mean()), 1),
            "foreground": round(100 * float((parts != BACKGROUND).mean()), 1),
        }
        masks.append(parts)
    print(json.dumps({"images": len(pixels), "cells": list(map_BDHW.shape[2:]), "table": table}, indent=1))
    if options.sheet:
        own = np.random.default_rng(0).choice(len(pixels), SHOWN, replace=False)
        rows = [[scaled(image) for image in pixels[own]]]
        rows += [overlaid(pixels[own], parts[own], model.grid) for parts in masks]
        sheet = np.concatenate([np.concatenate([np.asarray(one) for one in row], axis=1) for row in rows])
        Image.fromarray(sheet).save(options.sheet)


def parts_of(map_BDHW: torch.Tensor, switch: dict[str, Any]) -> np.ndarray:
    """Parts of each cell [B, H, W]."""
    return np.asarray(parsed(gram_matrices(map_BDHW).numpy(), map_BDHW.shape[2:], **switch).parts_BHW)


def overlaid(pixels_BHW3: np.ndarray, parts_Bhw: np.ndarray, grid: Any) -> list[Any]:
    """Images with their parts in colour over them."""
    size = pixels_BHW3.shape[1:3]
    return [
        coloured(
            pixels,
            np.where((mask := mask_to_pixels(torch.from_numpy(parts), grid, size).numpy()) == BACKGROUND, -1, mask),
        )
        for pixels, parts in zip(pixels_BHW3, parts_Bhw.astype(np.int64), strict=True)
    ]


if __name__ == "__main__":
    main()
