"""What people hand over to be embedded: folders, files, patterns, arrays, PIL images, alone or in lists."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reidray.arrays import Array, Bytes
from reidray.data import folder
from reidray.data.decode import BadImage, decode

_EXAMPLES = 3


@dataclass(frozen=True)
class Picture:
    """An image that is read when it is needed.

    Attributes:
      name: of a file in a folder its path in that folder, of another file its path, of an array its number.
      source: the folder that the name lies in; "" where there is none.
      camera: 0-based, -1 unknown.
      chosen: the image was asked for by itself, so that an error in it is not passed over.
      read: gives uint8 [h, w, 3], RGB.

    Raises (read):
      BadImage: it cannot be used.
    """

    name: str
    source: str
    camera: int
    chosen: bool
    read: Callable[[], Bytes]


@dataclass
class Pictures:
    """Images in the order in which they were given, and what was left out: names by reason."""

    found: list[Picture] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, names: Iterable[str]) -> None:
        """Counts images that cannot be used."""
        self.left_out.setdefault(reason, []).extend(names)

    def sentences(self, *, list_all: bool = False) -> list[str]:
        """One for each reason, with the first names, or all of them."""
        found = []
        for reason, names in self.left_out.items():
            shown = names if list_all else names[:_EXAMPLES]
            more = ", ..." if len(shown) < len(names) else ""
            found.append(f"left out {len(names):,} ({reason}): {', '.join(shown)}{more}")
        return found


def pictures(given: Any, *, max_pixels: int, max_bytes: int) -> Pictures:
    """Finds the images; no file is opened.

    Args:
      given: a folder (searched at any depth), a file, a pattern such as "crops/*.jpg", an array [h, w, 3] or
        [N, h, w, 3] of uint8, a PIL image, or an iterable of such.
      max_pixels: larger images are left out.
      max_bytes: larger files are left out.

    Raises:
      ValueError: nothing is there, or it is nothing of this kind.
    """
    found = Pictures()
    _add(found, given, max_pixels, max_bytes)
    if not found.found:
        told = "; ".join(found.sentences())
        raise ValueError(f"expected at least one image, got none{': ' if told else ''}{told}")
    return found


def _add(found: Pictures, given: Any, max_pixels: int, max_bytes: int) -> None:
    if isinstance(given, str | os.PathLike):
        _add_path(found, os.fspath(given), max_pixels, max_bytes)
    elif isinstance(given, Image.Image):
        _add_pixels(found, np.asarray(given.convert("RGB")))
    elif isinstance(given, np.ndarray):
        for pixels in given if given.ndim == 4 else [given]:
            _add_pixels(found, pixels)
    elif isinstance(given, Iterable):
        for one in given:
            _add(found, one, max_pixels, max_bytes)
    else:
        raise ValueError(
            f"expected a folder, a file, a uint8 array [height, width, 3] or a PIL image, got {type(given).__name__}"
        )


def _add_pixels(found: Pictures, pixels: Array) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ValueError(
            f"expected an image as uint8 [height, width, 3], RGB, got {pixels.dtype} {list(pixels.shape)}: convert it "
            "first (OpenCV's images are BGR: image[..., ::-1])"
        )
    own = np.ascontiguousarray(pixels)
    found.found.append(Picture(str(len(found.found)), "", -1, True, lambda: own))


def _add_path(found: Pictures, text: str, max_pixels: int, max_bytes: int) -> None:
    path = Path(text).expanduser()
    if (path / "dataset.json").is_file():
        splits = sorted(place.parent.name for place in path.glob("*/split.json"))
        raise ValueError(
            f"{text} is a pack: name one of its splits, {' or '.join(f'{text}/{name}' for name in splits)}"
        )
    if path.is_dir():
        data_set = folder.read(path, option="the folder that was given")
        for reason, names in data_set.left_out.items():
            found.leave_out(reason, names)
        source = str(path.resolve())
        for image in data_set.splits["train"].images:
            found.found.append(_of_file(image.path, image.name, source, image.camera, False, max_pixels, max_bytes))
    elif path.exists():
        found.found.append(_of_file(path, path.name, str(path.parent.resolve()), -1, True, max_pixels, max_bytes))
    elif glob.has_magic(text):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
        if not matches:
            raise ValueError(f"{text}: expected images, but nothing fits this pattern")
        for match in matches:
            if Path(match).is_file():
                file = Path(match)
                place = str(file.parent.resolve())
                found.found.append(_of_file(file, file.name, place, -1, False, max_pixels, max_bytes))
    else:
        raise ValueError(f"{text}: expected an image, a folder of images or a pattern, but nothing is there")


def _of_file(path: Path, name: str, source: str, camera: int, chosen: bool, max_pixels: int, max_bytes: int) -> Picture:
    def read() -> Bytes:
        size = path.stat().st_size
        if size > max_bytes:
            raise BadImage(
                str(path),
                "file too large",
                f"expected at most {max_bytes / 1e6:g} MB, got {size / 1e6:.0f} MB; raise data.max_image_mb.",
            )
        return decode(path.read_bytes(), name=str(path), max_pixels=max_pixels)

    return Picture(name, source, camera, chosen, read)
