"""What parts are worth on images whose true parts nobody knows: mAP of a frozen network that is pooled in several ways.

    python benchmarks/parts_of_crops.py data.dataset=market1501 data.root=DIR evaluate.split=validation \
        data.height=160 data.width=64 model.backbone=osnet_x0_25 model.weights=FILE

The network keeps its start weights. A part's feature is the mean of the map over the part, standardised by the training
images, at unit length; parts are joined, and beside them stands the whole picture. "parsed" has the parts that the part
clustering finds in the image itself, "stripes" as many equal stripes, "stripes inside" the stripes of the parsed
foreground. All have three parts of the same width from the same map.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawn_hard import masked_means, ranked
from parsing_quality import parsed
from parsing_sheet import SWITCHES

from reidray.command import parse
from reidray.config import Settings
from reidray.launch.prepare import prepared
from reidray.launch.services import num_cpus
from reidray.parsing import gram_matrices
from reidray.storage.weights import load_weights
from reidray.threads import set_threads
from reidray.training.context import open_split
from reidray.training.images import as_input
from reidray.training.loop import new_model

# B = images, H, W = cells, P = vectors of an image, D = width of the map
PARTS, BATCH = 3, 64
SWITCH = SWITCHES["centre prior .15, 2 classes"]  # the default


def main() -> None:
    """The command."""
    settings = parse(sys.argv[1:], prog="benchmarks/parts_of_crops.py", description=__doc__ or "").settings
    settings = settings.resolved(Path.cwd())
    set_threads(1)
    packed = prepared(settings, lambda _: None, processes=num_cpus())
    model = new_model(settings).eval()
    if settings.model.weights != "none":
        load_weights(model, settings.model.weights)
    found = ranked(settings, packed, lambda name: pooled_split(settings, packed, name, model))
    print(json.dumps({way: round(mAP, 1) for way, mAP in found.items()}, indent=1))


def ways(parts_BHW: torch.Tensor) -> dict[str, torch.Tensor]:
    """The ways to pool a map as weights [B, P, H, W] of its cells, from the parsed parts, the background last."""
    height = parts_BHW.shape[1]
    parsed_BPHW = (parts_BHW[:, None] == torch.arange(PARTS)[:, None, None]).float()
    stripes_H = torch.arange(height) * PARTS // height
    stripes_PHW = (stripes_H == torch.arange(PARTS)[:, None]).float()[:, :, None]
    inside_B1HW = parsed_BPHW.sum(1, keepdim=True)
    whole_B1HW = torch.ones_like(inside_B1HW)
    stripes_BPHW = stripes_PHW.expand_as(parsed_BPHW)
    apart = {"parsed": parsed_BPHW, "stripes": stripes_BPHW, "stripes inside": stripes_BPHW * inside_B1HW}
    return {
        "whole": whole_B1HW,
        "whole inside": inside_B1HW,
        **apart,
        **{f"{name} and whole": torch.cat([whole_B1HW, parts_BPHW], 1) for name, parts_BPHW in apart.items()},
    }


def pooled_split(settings: Settings, packed: str, name: str, model: Any) -> dict[str, torch.Tensor]:
    """The pooled map of each image of a split, way by way [B, P, D]."""
    images = open_split(settings, packed, name)
    batches: list[dict[str, torch.Tensor]] = []
    with torch.no_grad():
        for first in range(0, images.source.count, BATCH):
            indices = np.arange(first, min(first + BATCH, images.source.count))
            map_BDHW = model.backbone(as_input(images.rows(indices), torch.device("cpu")))
            parts = np.asarray(parsed(gram_matrices(map_BDHW).numpy(), map_BDHW.shape[2:], **SWITCH).parts_BHW)
            weights = ways(torch.from_numpy(parts.astype(np.int64)))
            batches.append({way: masked_means(map_BDHW, weights_BPHW) for way, weights_BPHW in weights.items()})
    return {way: torch.cat([batch[way] for batch in batches]) for way in batches[0]}


if __name__ == "__main__":
    main()
