"""Thumbnails in sheets, and what is said of single images in files of JavaScript: a file each for many images.

B = images of a sheet, H, W = pixels of a picture, h, w = of a thumbnail.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reidray.arrays import Bytes, Ints
from reidray.disk import write_whole
from reidray.report.page.contents import Thumbnails

SHEET = 512
"""Images of a sheet, and of a file of names."""
COLUMNS = 32
_MANY = 20_000  # images from which on thumbnails are smaller
_QUALITY = 82


def thumbnail_size(count: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a thumbnail, for so many pictures of height x width."""
    high = 64 if count > _MANY else 96
    return high, int(np.clip(round(high * width / height), 16, 2 * high))


def thumbnails_of(pictures_BHW3: Bytes, size: tuple[int, int]) -> Bytes:
    """uint8 [B, h, w, 3]."""
    if pictures_BHW3.shape[1:3] == size:
        return pictures_BHW3
    small = np.empty((len(pictures_BHW3), *size, 3), np.uint8)
    for place, picture in enumerate(pictures_BHW3):
        picture_hw3 = Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR, reducing_gap=2.0)
        small[place] = np.asarray(picture_hw3)
    return small


def sheet(thumbnails_Bhw3: Bytes, columns: int = COLUMNS) -> Image.Image:
    """All in one picture, row by row."""
    count, height, width = thumbnails_Bhw3.shape[:3]
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, height, width, 3), np.uint8)
    grid[:count] = thumbnails_Bhw3
    joined = grid.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(joined.reshape(rows * height, columns * width, 3))


def write_sheets(folder: Path, order_N: Ints, thumbnails: Thumbnails, size: tuple[int, int]) -> int:
    """Sheets of all images in the order of the page, sheet-0000.jpg and so on; how many."""
    number = -1
    for number, own in enumerate(_parts(order_N)):
        write_sheet(folder / f"sheet-{number:04d}.jpg", thumbnails_of(thumbnails(own), size))
    return number + 1


def write_sheet(path: Path, thumbnails_Bhw3: Bytes) -> None:
    """A sheet as JPEG."""
    sheet(thumbnails_Bhw3).save(path, format="JPEG", quality=_QUALITY)


def write_part(folder: Path, name: str, value: Any) -> None:
    """A file that hands its value to the page's script; ASCII, so that no name can end a string or a line."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    write_whole(folder / f"{name}.js", f"reidrayPart({json.dumps(name)},{text});\n")


def _parts(order_N: Ints) -> Iterator[Ints]:
    for start in range(0, len(order_N), SHEET):
        yield order_N[start : start + SHEET]
