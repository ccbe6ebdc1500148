"""What people hand over to be embedded: folders, files, patterns, arrays, PIL images, alone or in lists."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reidray.arrays import Array, Bytes
from reidray.counted import counted
from reidray.data import folder
from reidray.data.camera_from import CameraFrom
from reidray.data.decode import BadImage, decode
from reidray.data.named_samples import about_cameras

_EXAMPLES = 3
_FIRST_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Picture:
    """An image that is read when it is needed.

    Attributes:
      name: of a file in a folder its path in that folder, of another file its path, of an array its number.
      source: the folder that the name lies in; "" where there is none.
      camera: its name; None: unknown.
      chosen: the image was asked for by itself, so that an error in it is not passed over.
      read: gives uint8 [h, w, 3], RGB.

    Raises (read):
      BadImage: it cannot be used.
    """

    name: str
    source: str
    camera: str | None
    chosen: bool
    read: Callable[[], Bytes]


@dataclass
class Pictures:
    """Images in the order in which they were given.

    Attributes:
      found: the images.
      left_out: names by reason.
      notes: sentences about their cameras.
    """

    found: list[Picture] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

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


@dataclass(frozen=True)
class Limits:
    """Images with more pixels and files with more bytes are left out."""

    max_pixels: int
    max_bytes: int


def pictures(given: Any, limits: Limits, cameras: CameraFrom, *, must_tell: bool = False) -> Pictures:
    """Finds the images; no file is opened.

    Args:
      given: a folder (searched at any depth), a file, a pattern such as "crops/*.jpg", an array [h, w, 3] or
        [N, h, w, 3] of uint8, a PIL image, or an iterable of such.
      limits: of what is read.
      cameras: what tells a camera: in the path below the folder that was given, below the last folder of a pattern that
        has no * in it, or in the name of a file.
      must_tell: refuse files of which none tells a camera.

    Raises:
      ValueError: nothing is there, it is nothing of this kind, or none tells its camera.
    """
    found = Pictures()
    _add(found, given, limits, cameras)
    if not found.found:
        told = "; ".join(found.sentences())
        raise ValueError(f"expected at least one image, got none{': ' if told else ''}{told}")
    of_files = [(one.name, one.camera) for one in found.found if one.source]
    found.notes = about_cameras(of_files)
    if cameras.tells and of_files and not found.notes:
        such = ", ".join(name for name, _ in of_files[:_EXAMPLES])
        none = f"{cameras.expected}, got {counted(len(of_files), 'image')} and none of them so (such as {such})"
        if must_tell:
            above = "name the folder above them, or " if cameras.kind == "folder" else ""
            raise ValueError(f"expected {none}: {above}choose what tells cameras, or none")
        found.notes = [f"no camera is known: expected {none}"]
    return found


def _add(found: Pictures, given: Any, limits: Limits, cameras: CameraFrom) -> None:
    if isinstance(given, str | os.PathLike):
        _add_path(found, os.fspath(given), limits, cameras)
    elif isinstance(given, Image.Image):
        _add_pixels(found, np.asarray(given.convert("RGB")))
    elif isinstance(given, np.ndarray):
        for pixels in given if given.ndim == 4 else [given]:
            _add_pixels(found, pixels)
    elif isinstance(given, Iterable):
        for one in given:
            _add(found, one, limits, cameras)
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
    found.found.append(Picture(str(len(found.found)), "", None, True, lambda: own))


def _add_path(found: Pictures, text: str, limits: Limits, cameras: CameraFrom) -> None:
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
        source, images = str(path.resolve()), data_set.splits["train"].images
        for image, camera in zip(images, cameras.cameras([image.name for image in images]), strict=True):
            found.found.append(_of_file(image.path, image.name, source, camera, False, limits))
    elif path.exists():
        camera = cameras.cameras([path.name])[0]
        found.found.append(_of_file(path, path.name, str(path.parent.resolve()), camera, True, limits))
    elif glob.has_magic(text):
        files = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207  (Path.glob takes no absolute pattern)
        if not files:
            raise ValueError(f"{text}: expected images, but nothing fits this pattern")
        files = [file for file in files if file.is_file()]
        fixed = _FIRST_MAGIC.split(str(path))[0].rpartition("/")[0]
        told = cameras.cameras([str(file)[len(fixed) :].lstrip("/") for file in files])
        for file, camera in zip(files, told, strict=True):
            found.found.append(_of_file(file, file.name, str(file.parent.resolve()), camera, False, limits))
    else:
        raise ValueError(f"{text}: expected an image, a folder of images or a pattern, but nothing is there")


def _of_file(path: Path, name: str, source: str, camera: str | None, chosen: bool, limits: Limits) -> Picture:
    def read() -> Bytes:
        size = path.stat().st_size
        if size > limits.max_bytes:
            raise BadImage(
                str(path),
                "file too large",
                f"expected at most {limits.max_bytes / 1e6:g} MB, got {size / 1e6:.0f} MB; raise data.max_image_mb.",
            )
        return decode(path.read_bytes(), name=str(path), max_pixels=limits.max_pixels)

    return Picture(name, source, camera, chosen, read)
