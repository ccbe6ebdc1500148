"""Which data set lies in a folder: data.dataset=auto."""

from __future__ import annotations

import os
import re
from pathlib import Path

from reidray.data import cuhk03_release, dukemtmc, dukemtmc_video, market1501
from reidray.data.cuhk03 import BOXES
from reidray.data.image_files import in_words
from reidray.data.named_folders import MARKET_FOLDERS
from reidray.data.table_file import is_list
from reidray.data.veri776 import LAYOUT as VERI776

_TRAIN = MARKET_FOLDERS["train"]
# What only one data set has in its names, the surest first.
_NAMES = (
    ("msmt17", re.compile(r"\d+_c0\d_.*", re.ASCII), "two digits for the camera"),
    ("market1501", re.compile(r"(-1|\d+)_c\d+s\d+_.*"), "camera and sequence"),
    ("dukemtmc", dukemtmc.NAME, "camera and frame"),
    ("market1501", market1501.LAYOUT.pattern, "person and camera"),  # its rules hold for any numbers
)

_LISTS = (".csv", ".tsv", ".parquet")  # the reader says what such a file lacks


def detect(root: str | os.PathLike[str]) -> tuple[str, str]:
    """The name that data.dataset would take, and what it was known by.

    Raises:
      ValueError: there is no such folder; it is one level above or below a known data set; or its file names could be
        those of several.
    """
    root = Path(root)
    if root.is_file() and (root.suffix.lower() in _LISTS or is_list(root)):
        return "list", "it is a file with a column path"
    if root.is_file():
        raise ValueError(
            f"{root}: expected a folder of images, a data set or a list of images (CSV or Parquet, with a column "
            "path), got another file; unpack it, or check data.root."
        )
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder of images or a data set, but there is none; check data.root.")
    if (found := _known(root)) is not None:
        return found
    inner = sorted(path for path in root.iterdir() if path.is_dir() and _looks_known(path))
    if inner:
        raise ValueError(f"{root}: {inner[0].name} in it is a data set; did you mean data.root={inner[0]}?")
    if _looks_known(root.parent):
        raise ValueError(f"{root} is a part of a data set; did you mean data.root={root.parent}?")
    return "folder", "it has the folders of no known data set"


def _looks_known(root: Path) -> bool:
    return _marked(root) is not None or all((root / folder).is_dir() for folder in MARKET_FOLDERS.values())


def _known(root: Path) -> tuple[str, str] | None:
    return _marked(root) or (_by_names(root) if (root / _TRAIN).is_dir() else None)


def _marked(root: Path) -> tuple[str, str] | None:
    """A data set that has a file or folder as no other has."""
    if (root / "bbox_train").is_dir():
        return "mars", "it has bbox_train"
    if all((root / folder).is_dir() for folder in dukemtmc_video.FOLDERS) and _has_tracklets(root / "train"):
        return "dukemtmc_video", "it has train, query and gallery, with a folder for each tracklet"
    if (root / "list_train.txt").is_file():
        return "msmt17", "it has list_train.txt"
    if all((root / folder).is_dir() for folder in VERI776.folders.values()):
        return "veri776", "it has image_train, image_query and image_test"
    if any(cuhk03_release.config_file(root, name).is_file() for name in BOXES):
        return "cuhk03", "it has the file of the new protocol"
    if cuhk03_release.pictures_file(root) is not None:
        return "cuhk03", "it has cuhk-03.mat"
    if any((root / name / _TRAIN).is_dir() for name in BOXES):
        return "cuhk03", "it has bounding_box_train in detected or labeled"
    return None


def _has_tracklets(train: Path) -> bool:
    """Whether the folders of persons have folders with frames in them; the first one with files tells."""
    persons = sorted(path for path in train.iterdir() if path.is_dir() and not path.name.startswith("."))
    for person in persons:
        for place in sorted(path for path in person.iterdir() if path.is_dir() and not path.name.startswith(".")):
            names = [path.name for path in place.iterdir()]
            if names:
                return any(dukemtmc_video.FRAME.fullmatch(name) for name in names)
    return False


def _by_names(root: Path) -> tuple[str, str]:
    """Of a data set in Market-1501's folders: all names are looked at."""
    names = sorted(path.name for path in (root / _TRAIN).iterdir())
    for data_set, pattern, what in _NAMES:
        for name in names:
            if pattern.fullmatch(name):
                return data_set, f"it has bounding_box_train and names with {what}, such as {name}"
    folders = [name for name in names if (root / _TRAIN / name).is_dir()]
    if folders and len(folders) * 2 > len(names):
        raise ValueError(
            f"{root / _TRAIN}: it has {len(folders):,} folders ({in_words(folders)}) where the images of a data set "
            "are expected: where each folder is a person, set data.dataset=folder data.pattern='{person}/{}'"
        )
    example = f", such as {names[0]}" if names else ""
    raise ValueError(
        f"{root / _TRAIN}: its {len(names):,} names{example} do not tell person and camera as 0002_c1s1_000451_03.jpg "
        "does: say with data.dataset=folder and data.pattern how they are to be read"
    )
