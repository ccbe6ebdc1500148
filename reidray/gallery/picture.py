"""The ranked list of a search, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from reidray.arrays import Bytes
from reidray.data.decode import BadImage, decode
from reidray.gallery.opened import Match
from reidray.report.pieces import INK, PAPER, cut, font_of, save

_CELL, _GAP, _LINE = 160, 12, 18  # pixels
_MOST_PIXELS = 50_000_000


def draw_matches(path: Path, photos: Sequence[str | Path], found: Sequence[Sequence[Match]]) -> None:
    """Draws a row a photo: the photo, then what was found, with similarity, camera and name below each.

    An image that is not where it was is a grey box with its name.

    Args:
      path: of the PNG.
      photos: the files that were searched by.
      found: what `Gallery.search` gave for each.
    """
    font = font_of(13)
    across = 1 + max(len(matches) for matches in found)
    below = 3 * _LINE
    width = _GAP + across * (_CELL // 2 + 40 + _GAP)
    page = Image.new("RGB", (width, _GAP + len(found) * (_CELL + below + _GAP)), PAPER)
    pen = ImageDraw.Draw(page)
    for row, (photo, matches) in enumerate(zip(photos, found, strict=True)):
        top = _GAP + row * (_CELL + below + _GAP)
        cells = [(_pixels(Path(photo)), ["searched by", Path(photo).name])]
        for match in matches:
            camera = "" if match.camera is None else f", camera {match.camera}"
            cells.append(
                (None if match.path is None else _pixels(match.path), [f"{match.similarity:.3f}{camera}", match.name])
            )
        for place, (pixels, lines) in enumerate(cells):
            left = _GAP + place * (_CELL // 2 + 40 + _GAP)
            room = _CELL // 2 + 40
            if pixels is None:
                pen.rectangle((left, top, left + room - 1, top + _CELL - 1), fill=(225, 225, 225))
                pen.text((left + 6, top + _CELL // 2), "not found", fill=INK, font=font)
            else:
                image = _fitted(pixels, room, _CELL)
                page.paste(image, (left + (room - image.width) // 2, top))
            for line, text in enumerate(lines):
                pen.text((left, top + _CELL + 4 + line * _LINE), cut(text, room, font), fill=INK, font=font)
    save(page, path)


def _pixels(path: Path) -> Bytes | None:
    try:
        return decode(path.read_bytes(), name=str(path), max_pixels=_MOST_PIXELS)
    except (BadImage, OSError):
        return None


def _fitted(pixels: Bytes, width: int, height: int) -> Image.Image:
    share = min(width / pixels.shape[1], height / pixels.shape[0])
    size = (max(1, round(pixels.shape[1] * share)), max(1, round(pixels.shape[0] * share)))
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC)
