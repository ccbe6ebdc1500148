"""Extraction: a shard of a split becomes what the method keeps of the network's outputs.

B = images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reidray.arrays import Array, Bytes
from reidray.spans import OFF, Spans
from reidray.training.images import SizedImages, as_input
from reidray.training.prefetch import prefetch


@dataclass(frozen=True)
class ExtractedShard:
    """What extraction leaves of a shard: arrays by name, with the shard's images as their first axis."""

    shard: int
    arrays: dict[str, Array]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The forward pass's precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@torch.no_grad()
def extract_shards(
    model: nn.Module,
    images: SizedImages,
    shards: list[int],
    *,
    batch: int,
    device: torch.device,
    precision: str,
    keep: Callable[[Any], dict[str, Tensor]],
    progress: Callable[[int], None],
    spans: Spans = OFF,
) -> Iterator[ExtractedShard]:
    """Walk shards in evaluation mode. Batches never cross a shard, so a feature does not depend on who computes it.

    The next shard is decoded while the network is at work on this one.

    Args:
      batch: images at once.
      keep: what of the network's outputs is kept, by name (`Method.to_label`, `Method.to_evaluate`).
      progress: called with the number of images done.
      spans: of this worker: "decode" beside, "data" (the wait for it) and "forward" here; extracted images are counted.
    """
    model.eval()

    def decode(number: int) -> Bytes:
        with spans("decode"):
            return images.shard(shards[number])

    decoded = prefetch(decode, len(shards), depth=1, threads=1)
    for shard in shards:
        with spans("data"):
            pixels = next(decoded)
        kept: dict[str, list[Array]] = {}
        for start in range(0, len(pixels), batch):
            piece = pixels[start : start + batch]
            with spans("forward"):
                with autocast(device, precision):
                    outputs = model(as_input(piece, device))
                for name, rows in keep(outputs).items():
                    kept.setdefault(name, []).append(rows.cpu().numpy())
            spans.count("extracted images", len(piece))
            progress(len(piece))
        yield ExtractedShard(shard, {name: np.concatenate(parts) for name, parts in kept.items()})
