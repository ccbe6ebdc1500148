"""Which files of a folder are images that are read, by their names alone, and what is said of the others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from reidray.data.left_out import LeftOut

EXTENSIONS = ("jpg", "jpeg", "jfif", "png", "bmp", "webp", "tif", "tiff", "gif")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would execute them in a printed name
_OF_OTHER_FORMATS = {
    **dict.fromkeys(("heic", "heif"), "HEIC"),
    **dict.fromkeys(("jp2", "j2k", "jpx"), "JPEG 2000"),
    **dict.fromkeys(("dng", "cr2", "cr3", "nef", "arw"), "raw image of a camera"),
    **dict.fromkeys(("mp4", "avi", "mov", "mkv", "webm"), "video"),
    **dict.fromkeys(("ppm", "pgm", "pbm", "pnm"), "PPM"),
    **{"avif": "AVIF", "jxl": "JPEG XL", "svg": "SVG", "psd": "Photoshop", "ico": "ICO", "tga": "TGA", "exr": "EXR"},
    **{"npy": "NumPy array", "zip": "archive", "tar": "archive", "7z": "archive", "rar": "archive", "gz": "archive"},
}


def not_read(kind: str) -> str:
    """The reason for which a file of another format is left out."""
    return f"format that is not read: {kind}"


def why_not(name: str) -> str | None:
    """Why a file of this name is left out, a short text for all of a kind; None where it may be an image.

    Args:
      name: relative to the root of the data, with its folders.
    """
    extension = os.path.splitext(name)[1][1:].lower()  # noqa: PTH122 (a hundred thousand names)
    if extension not in EXTENSIONS:
        other = _OF_OTHER_FORMATS.get(extension)
        return "not an image" if other is None else not_read(other)
    try:
        name.encode()
    except UnicodeEncodeError:
        return "name is not UTF-8"
    return "name has control characters" if _CONTROL.search(name) else None


def walk(root: Path, left_out: LeftOut) -> Iterator[str]:
    """The image files below a folder, at any depth, in no order: their names relative to it, with "/" between folders.

    Every other file is counted by reason. Links to folders and hidden folders (a leading dot) are not entered.

    Args:
      root: the folder.
      left_out: takes what is no image.
    """
    waiting = [("", os.fspath(root))]
    while waiting:
        prefix, place = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                name = prefix + entry.name
                is_folder = entry.is_dir()
                if entry.name.startswith("."):
                    left_out.add("hidden (the name begins with a dot)", name)
                elif is_folder and entry.is_symlink():
                    left_out.add("link to a folder, not followed", name)
                elif is_folder:
                    waiting.append((f"{name}/", entry.path))
                elif (reason := why_not(name)) is not None:
                    left_out.add(reason, name)
                elif not entry.is_file():
                    left_out.add("not a file", name)
                else:
                    yield name


def in_words(names: Sequence[str], most: int = 3) -> str:
    """The first names of many, as a sentence shows them."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
