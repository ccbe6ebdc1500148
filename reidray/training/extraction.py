"""Extraction: a shard of a split becomes features and, for methods with parts, Gram matrices of its feature maps.

B = images, S = spaces, D = feature width, L = parts, H, W = cells, P = H W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reidray.arrays import Array, Bytes, Floats
from reidray.features import Embedder, Features
from reidray.spans import OFF, Spans
from reidray.training.images import SizedImages, as_input
from reidray.training.prefetch import prefetch


@dataclass(frozen=True)
class ExtractedShard:
    """What extraction leaves of a shard.

    features_BSD: float32, unit length. grams_BPP: float32 inner products of each map's cells, or None.
    masks_BLHW: float16 predicted part masks, or None. map_size: (H, W) cells of a map.
    """

    shard: int
    features_BSD: Floats
    grams_BPP: Floats | None
    masks_BLHW: Array | None
    map_size: tuple[int, int]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The forward pass's precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@torch.no_grad()
def extract_shards(
    model: Embedder,
    images: SizedImages,
    shards: list[int],
    *,
    batch: int,
    device: torch.device,
    precision: str,
    grams: bool,
    progress: Callable[[int], None],
    spans: Spans = OFF,
) -> Iterator[ExtractedShard]:
    """Walk shards in evaluation mode. Batches never cross a shard, so a feature does not depend on who computes it.

    The next shard is decoded while the network is at work on this one.

    Args:
      batch: images at once.
      grams: keep the Gram matrices of the feature maps.
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
        features, gram_parts, masks = [], [], []
        for start in range(0, len(pixels), batch):
            piece = pixels[start : start + batch]
            with spans("forward"):
                with autocast(device, precision):
                    out: Features = model(as_input(piece, device))
                features.append(_numpy(out.features_BSD.float()))
                if grams:
                    gram_parts.append(_numpy(gram_matrices(out.map_BDHW)))
                if out.masks_BLHW is not None:
                    masks.append(_numpy(out.masks_BLHW.half()))
            map_size = (out.map_BDHW.shape[2], out.map_BDHW.shape[3])
            spans.count("extracted images", len(piece))
            progress(len(piece))
        yield ExtractedShard(
            shard=shard,
            features_BSD=np.concatenate(features),
            grams_BPP=np.concatenate(gram_parts) if grams else None,
            masks_BLHW=np.concatenate(masks) if masks else None,
            map_size=map_size,
        )


def gram_matrices(map_BDHW: Tensor) -> Tensor:
    """Inner products of the cells of each map: all that part clustering needs of it, far smaller than the map.

    Returns: float32 [B, P, P], cells in row-major order.
    """
    cells_BDP = map_BDHW.float().flatten(2)
    return torch.bmm(cells_BDP.transpose(1, 2), cells_BDP)


def joined_features(features_BSD: Floats, masks_BLHW: Array | None, *, how: str) -> Floats:
    """The evaluated feature, unit length.

    how: "global": the global feature. "concat": the global feature and the foreground parts', each part scaled by the
    square root of its visibility (the mask's largest value over the cells), so that a part missing in either of two
    images counts little in their similarity.
    """
    if how == "global" or masks_BLHW is None:
        return features_BSD[:, 0]
    visibility_BL = masks_BLHW[:, :-1].astype(np.float32).max(axis=(2, 3))
    parts_BLD = features_BSD[:, 1:-1] * np.sqrt(visibility_BL)[..., None]
    joined = np.concatenate([features_BSD[:, 0], parts_BLD.reshape(len(parts_BLD), -1)], axis=1)
    return joined / np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-12)


def _numpy(tensor: Tensor) -> Array:
    return tensor.cpu().numpy()
