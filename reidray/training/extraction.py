"""Extraction: a shard of a split becomes what the method keeps of the network's outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from reidray.arrays import Array, Bytes, Ints
from reidray.features import Network
from reidray.spans import OFF, Spans
from reidray.training.images import Samples, SizedImages, SizedTracklets, as_input, staged
from reidray.training.prefetch import prefetch


@dataclass(frozen=True)
class ExtractedShard:
    """What extraction leaves of a shard.

    arrays: by name, with the shard's samples as their first axis. images: with its images, which are frames where
    samples are tracklets.
    """

    shard: int
    arrays: dict[str, Array]
    images: dict[str, Array]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The forward pass's precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@torch.no_grad()
def extract_shards(
    model: nn.Module,
    samples: Samples,
    shards: list[int],
    *,
    batch: int,
    device: torch.device,
    precision: str,
    keep: Callable[[Any], dict[str, Tensor]],
    progress: Callable[[int], None],
    keep_images: Callable[[Any], dict[str, Tensor]] = lambda _: {},
    spans: Spans = OFF,
) -> Iterator[ExtractedShard]:
    """Walk shards in evaluation mode. Batches never cross a shard, so a feature does not depend on who computes it.

    The next images are decoded while the network is at work on these. Of a tracklet all frames count: their vectors are
    averaged before the network finishes them (`reidray.features.Network`).

    Args:
      batch: images at once.
      keep: what of the network's outputs is kept, by name (`Method.to_label`, `Method.to_evaluate`).
      progress: called with the number of samples done.
      keep_images: what is kept of single images (`Method.to_label_images`).
      spans: of this worker: "decode" beside, "data" (the wait for it) and "forward" here; extracted images are counted.
    """
    model.eval()
    forward = _Forward(model, batch, device, precision, keep, keep_images, spans)
    if isinstance(samples, SizedTracklets):
        yield from _of_tracklets(forward, samples, shards, progress)
    else:
        yield from _of_images(forward, samples, shards, progress)


@dataclass(frozen=True)
class _Forward:
    """The network, and how it is run."""

    model: nn.Module
    batch: int
    device: torch.device
    precision: str
    keep: Callable[[Any], dict[str, Tensor]]
    keep_images: Callable[[Any], dict[str, Tensor]]
    spans: Spans

    def ahead(self, decode: Callable[[int], Bytes], count: int) -> Iterator[Tensor]:
        """Images that another thread decodes while these are worked on."""

        def decoded(number: int) -> Tensor:
            with self.spans("decode"):
                return staged(decode(number), self.device)

        ahead = prefetch(decoded, count, depth=1, threads=1)
        for _ in range(count):
            with self.spans("data"):
                images = next(ahead)
            yield images

    def __call__(self, run: Callable[[Any], Any], given: Any) -> Any:
        with self.spans("forward"), autocast(self.device, self.precision):
            return run(given)


def _of_images(
    forward: _Forward, images: SizedImages, shards: list[int], progress: Callable[[int], None]
) -> Iterator[ExtractedShard]:
    decoded = forward.ahead(lambda number: images.shard(shards[number]), len(shards))
    for shard, pixels in zip(shards, decoded, strict=True):
        kept, of_images = _Rows(), _Rows()
        for start in range(0, len(pixels), forward.batch):
            piece = pixels[start : start + forward.batch]
            outputs = forward(forward.model, as_input(piece, forward.device))
            kept.append(forward.keep(outputs))
            of_images.append(forward.keep_images(outputs))
            forward.spans.count("extracted images", len(piece))
            progress(len(piece))
        yield ExtractedShard(shard, kept.joined(), of_images.joined())


def _of_tracklets(
    forward: _Forward, tracklets: SizedTracklets, shards: list[int], progress: Callable[[int], None]
) -> Iterator[ExtractedShard]:
    source, network = tracklets.source, cast(Network, forward.model)
    pieces: list[tuple[int, int]] = []
    for shard in shards:
        first, count = source.frames.shard_range(shard)
        pieces += [
            (start, min(start + forward.batch, first + count)) for start in range(first, first + count, forward.batch)
        ]
    decoded = forward.ahead(lambda number: tracklets.images.rows(np.arange(*pieces[number])), len(pieces))
    for shard in shards:
        first, count = source.frames.shard_range(shard)
        kept, of_images, vectors = _Rows(), _Rows(), _Rows()
        for _ in range(-(-count // forward.batch)):
            piece = next(decoded)
            pooled = forward(network.pool, as_input(piece, forward.device))
            vectors.append({str(place): rows for place, rows in enumerate(pooled[: network.averaged])})
            of_images.append(forward.keep_images(pooled))
            forward.spans.count("extracted images", len(piece))
        start, number = source.shard_range(shard)
        own = slice(start, start + number)
        firsts_N, counts_N = source.firsts_N[own] - first, source.counts_N[own]
        means = [_means(rows, firsts_N, counts_N) for rows in vectors.joined().values()]
        for begin in range(0, number, forward.batch):
            some = [torch.from_numpy(rows[begin : begin + forward.batch]).to(forward.device) for rows in means]
            kept.append(forward.keep(forward(network.finish, some)))
        progress(number)
        yield ExtractedShard(shard, kept.joined(), of_images.joined())


def _means(rows: Array, firsts_N: Ints, counts_N: Array) -> Array:
    """float32 [N, ...]: means of consecutive rows."""
    sums = np.add.reduceat(rows, firsts_N, axis=0, dtype=np.float64)
    means: Array = (sums / counts_N.reshape(-1, *[1] * (sums.ndim - 1))).astype(np.float32)
    return means


class _Rows:
    """What is kept of batch after batch, by name.

    A GPU copies a batch's rows while the processor prepares the next batch: they are waited for when that one is under
    way, and not with it.
    """

    def __init__(self) -> None:
        self._on_their_way: dict[str, Tensor] = {}
        self._sent: torch.cuda.Event | None = None
        self._parts: dict[str, list[Array]] = {}

    def append(self, rows: dict[str, Tensor]) -> None:
        """Those of a batch that was just forwarded."""
        sent = None
        if any(own.is_cuda for own in rows.values()):
            rows = {name: own.to("cpu", non_blocking=True) for name, own in rows.items()}
            sent = torch.cuda.Event()  # type: ignore[no-untyped-call]
            sent.record()
        self._take()
        self._on_their_way, self._sent = rows, sent

    def joined(self) -> dict[str, Array]:
        """All of them, in order."""
        self._take()
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}

    def _take(self) -> None:
        if self._sent is not None:
            self._sent.synchronize()
        for name, rows in self._on_their_way.items():
            self._parts.setdefault(name, []).append(rows.numpy())
        self._on_their_way = {}
