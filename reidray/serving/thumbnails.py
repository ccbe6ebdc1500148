"""Small pictures of the images of a gallery."""

from __future__ import annotations

import io
import os
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from reidray.arrays import Bytes
from reidray.config import Settings
from reidray.data.decode import BadImage, decode
from reidray.gallery import Gallery, Match
from reidray.training.context import open_split
from reidray.training.images import Samples, SizedTracklets

_LONGEST_SIDE = 320  # pixels
_QUALITY = 85


class Thumbnails:
    """Of images in folders, and of packed splits.

    Args:
      gallery: whose images; a client names a row of it and never a path.
      settings: of the model, for the size of packed images and the largest image that is decoded.
    """

    def __init__(self, gallery: Gallery, settings: Settings) -> None:
        self._gallery, self._settings = gallery, settings
        self._max_pixels = int(settings.data.max_megapixels * 1e6)
        self._max_bytes = int(settings.data.max_image_mb * 1e6)
        self._lock = threading.Lock()
        self._packed = lru_cache(maxsize=4)(self._opened)

    def jpeg(self, row: int) -> bytes | None:
        """JPEG of a row's image, encoded anew; None where the gallery has no such row or its image is gone."""
        if not 0 <= row < len(self._gallery):
            return None
        match = self._gallery.image(row)
        try:
            pixels_HW3 = self._of_file(match) if _file(match) is not None else self._of_pack(match)
        except (BadImage, OSError, ValueError):
            return None
        return None if pixels_HW3 is None else _encoded(pixels_HW3)

    def _of_file(self, match: Match) -> Bytes | None:
        file = _file(match)
        if file is None or file.stat().st_size > self._max_bytes:
            return None
        return decode(file.read_bytes(), name=match.name, max_pixels=self._max_pixels)

    def _of_pack(self, match: Match) -> Bytes | None:
        if not match.source or not ("://" in match.source or (Path(match.source) / "split.json").is_file()):
            return None
        with self._lock:
            samples, indices = self._packed(match.source)
        index = indices.get(match.name)
        if index is None:
            return None
        pixels_HW3: Bytes = samples.rows(np.array([index]))[0]
        return pixels_HW3

    def _opened(self, source: str) -> tuple[Samples, dict[str, int]]:
        parent, name = source.rstrip("/").rsplit("/", 1)
        samples = open_split(self._settings, parent, name)
        names = samples.source.names
        assert isinstance(samples, SizedTracklets) or len(names) == samples.source.count
        return samples, {name: index for index, name in enumerate(names)}


def _file(match: Match) -> Path | None:
    """The image's file, where it lies below the folder that the gallery names."""
    if not match.source:
        return None
    below = Path(os.path.normpath(match.name))
    if below.is_absolute() or below.parts[:1] in ((), (os.pardir,)):
        return None
    return match.path


def _encoded(pixels_HW3: Bytes) -> bytes:
    image = Image.fromarray(pixels_HW3)
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=_QUALITY)
    return written.getvalue()
