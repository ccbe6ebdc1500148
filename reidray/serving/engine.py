"""Embeds and searches for many clients at once, in batches.

On a CPU a thread decodes the images of a batch and forwards them: what goes from thread to thread is a batch, not an
image. A GPU's one thread only forwards, and others decode for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import torch

from reidray.arrays import Bytes, Floats
from reidray.data.decode import BadImage, decode
from reidray.data.resize import resize_into
from reidray.gallery import Gallery, Match
from reidray.inference import Model
from reidray.launch.services import num_cpus
from reidray.serving.batching import Batched, Batcher

# N = images, B = batch, D = feature width, H, W = size of the network's input

_PIECE = 16
"""Images of an upload that stay together; a large upload is shared out."""

_SMALL = 128 * 64
"""Pixels up to which a CPU's caches hold the maps of 32 images, above them of 16: 64 take up to 1.4 times as long."""

_MOST_QUERIES = 64
"""Searches that share a pass over the gallery."""


@dataclass(frozen=True)
class Upload:
    """An image as a client sent it: the name that the client gave it, and the bytes of the file."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Wanted:
    """What a search is to find: k images, only of `cameras` (None: of all), and not of `not_cameras`."""

    k: int
    cameras: frozenset[str] | None = None
    not_cameras: frozenset[str] = frozenset()


@dataclass(frozen=True)
class About:
    """The model, for people and for clients.

    Attributes:
      model: its id.
      text: method, backbone and size of the input, in words.
      width: D.
    """

    model: str
    text: str
    width: int


class Engine(Protocol):
    """What the application asks. Calls come from one event loop, many at a time."""

    about: About

    async def embed(self, uploads: Sequence[Upload]) -> Floats:
        """float32 [N, D], unit rows. Raises BadImage: one of them cannot be used."""
        ...

    async def search(self, upload: Upload, wanted: Wanted) -> list[Match]:
        """The most similar images of the gallery. Raises BadImage, or ValueError: the gallery cannot be searched."""
        ...


def about(model: Model) -> About:
    """What is told of a model."""
    data = model.settings.data
    text = f"{model.settings.method.name}, {model.settings.model.backbone}, {data.height}x{data.width}"
    return About(model.id, text, model.width)


class LocalEngine:
    """Does the work in this process.

    Args:
      model: of `reidray.load`.
      gallery: with this model.
      threads: how many batches are worked on at a time; None: as many as this process may use processors. On a GPU one
        batch is, and so many images are decoded at a time. A forward pass on a CPU has one thread: several of them
        would wait for each other whenever HTTP or other work takes a processor.
      batched: makes batches of calls.
    """

    def __init__(
        self, model: Model, gallery: Gallery, *, threads: int | None = None, batched: Batched = Batcher
    ) -> None:
        threads = threads or num_cpus()
        data = model.settings.data
        self._model, self._gallery = model, gallery
        self._size = (data.height, data.width)
        self._max_pixels, self._max_bytes = int(data.max_megapixels * 1e6), int(data.max_image_mb * 1e6)
        batch = model.settings.train.extract_batch
        fits = 16 if data.height * data.width > _SMALL else 32
        self._batch = batch if model.on_gpu else min(batch, fits)
        self.about = about(model)
        self._decoders = ThreadPoolExecutor(threads, "decode")
        forwards = 1 if model.on_gpu else threads
        self._forwards = ThreadPoolExecutor(forwards, "forward", initializer=partial(torch.set_num_threads, 1))
        self._searches = ThreadPoolExecutor(1, "search")
        self._forward: Callable[[Any], Any] = batched(
            self._forward_all, most=self._batch, at_once=forwards, size=len, executor=self._forwards
        )
        self._found: Callable[[Any], Any] = batched(
            self._search_all, most=_MOST_QUERIES, at_once=1, size=lambda _: 1, executor=self._searches
        )

    async def embed(self, uploads: Sequence[Upload]) -> Floats:
        """See `Engine`."""
        if len(uploads) <= _PIECE:
            return await self._features(uploads)
        pieces = [uploads[start : start + _PIECE] for start in range(0, len(uploads), _PIECE)]
        return np.concatenate(await asyncio.gather(*map(self._features, pieces)))

    async def search(self, upload: Upload, wanted: Wanted) -> list[Match]:
        """See `Engine`."""
        features_1D = await self.embed([upload])
        found: list[Match] = await self._found((features_1D[0], wanted))
        return found

    def warm(self) -> None:
        """A forward pass and a search, so that the first client does not wait for what is compiled and read then."""
        features_1D = self._model.embed_sized(np.zeros((1, *self._size, 3), np.uint8))
        if len(self._gallery):
            self._search_all([(features_1D[0], Wanted(1))])

    def close(self) -> None:
        """Ends its threads."""
        for pool in (self._decoders, self._forwards, self._searches):
            pool.shutdown(cancel_futures=True)

    async def _features(self, uploads: Sequence[Upload]) -> Floats:
        """float32 [N, D] of a piece."""
        piece: Any = uploads
        if self._model.on_gpu:  # whose only thread is to do nothing else
            piece = await asyncio.get_running_loop().run_in_executor(self._decoders, self._sized, uploads)
        features_ND: Floats | BadImage = await self._forward(piece)
        if isinstance(features_ND, BadImage):
            raise features_ND
        return features_ND

    def _sized(self, uploads: Sequence[Upload]) -> Bytes:
        """uint8 [N, H, W, 3]."""
        sized_NHW3 = np.empty((len(uploads), *self._size, 3), np.uint8)
        for upload, sized_HW3 in zip(uploads, sized_NHW3, strict=True):
            if len(upload.data) > self._max_bytes:
                raise BadImage(
                    upload.name,
                    "file too large",
                    f"expected at most {self._max_bytes / 1e6:g} MB an image, got {len(upload.data) / 1e6:.0f} MB.",
                )
            resize_into(decode(upload.data, name=upload.name, max_pixels=self._max_pixels), sized_HW3)
        return sized_NHW3

    def _forward_all(self, pieces: list[Sequence[Upload] | Bytes]) -> list[Floats | BadImage]:
        """Of each piece, sized already or not, its features, or why it has none: the others have theirs."""
        sized: list[Bytes | BadImage] = [self._sized_or_bad(piece) for piece in pieces]
        good = [piece for piece in sized if not isinstance(piece, BadImage)]
        if good:
            features_BD = self._model.embed_sized(np.concatenate(good))
            ends = accumulate(map(len, good))
            rows = iter([features_BD[end - len(piece) : end] for piece, end in zip(good, ends, strict=True)])
        return [piece if isinstance(piece, BadImage) else next(rows) for piece in sized]

    def _sized_or_bad(self, piece: Sequence[Upload] | Bytes) -> Bytes | BadImage:
        if isinstance(piece, np.ndarray):
            return piece
        try:
            return self._sized(piece)
        except BadImage as error:
            return error

    def _search_all(self, asked: list[tuple[Floats, Wanted]]) -> list[list[Match]]:
        """Searches that want the same share a pass over the gallery."""
        found: list[list[Match]] = [[] for _ in asked]
        for wanted in dict.fromkeys(wanted for _, wanted in asked):
            places = [place for place, (_, own) in enumerate(asked) if own == wanted]
            features_QD = np.stack([asked[place][0] for place in places])
            matches = self._gallery.search_features(
                features_QD, wanted.k, cameras=wanted.cameras, not_cameras=wanted.not_cameras
            )
            for place, own in zip(places, matches, strict=True):
                found[place] = own
        return found
