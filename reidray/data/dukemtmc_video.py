"""DukeMTMC-VideoReID (Wu et al., CVPR 2018), and drawn tracklets, which are written in its layout.

    root/train/0001/0003/0001_C6_F0001_X30823.jpg    person 1, its tracklet 3, camera 6, frame 1
    root/query/...
    root/gallery/...                                 the queries are among its tracklets, as in the official archive

An older form of the names is 0001C6F0001.jpg. Persons of the gallery whom no query shows are distractors by that alone;
person 0 is one by its number. `validation_query` and `validation_gallery` are read where both exist.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from reidray.data.attributes import attributes_beside
from reidray.data.expected_folders import expect_folders
from reidray.data.records import Dataset, ImageRecord, Split, Tracklet

FOLDERS = ("train", "query", "gallery")  # also the names of the splits
_OPTIONAL = ("validation_query", "validation_gallery")
FRAME = re.compile(
    r"(?P<person>\d{4,9})_?C(?P<camera>[1-9]\d?)_?F(?P<frame>\d{1,6})(?:_?\w*)\.(?:jpe?g|png)", re.IGNORECASE | re.ASCII
)
_EXAMPLE = "0001_C6_F0001_X30823.jpg"
MISSING = "frame that is missing within a tracklet"


def read(root: str | os.PathLike[str]) -> Dataset:
    """Lists the tracklets; no image is opened.

    Files with other names are left out and counted. So are frames that a tracklet lacks between number 1 and its last.

    Args:
      root: the folder that holds train, query and gallery.

    Returns:
      Splits sorted by name; cameras 0-based.

    Raises:
      ValueError: the root or a folder is missing, a folder has no tracklet, a tracklet shows two persons or cameras, or
        the file of attributes cannot be used.
    """
    root = Path(root)
    expect_folders(root, FOLDERS)
    folders = FOLDERS + (_OPTIONAL if all((root / folder).is_dir() for folder in _OPTIONAL) else ())
    ignored: Counter[str] = Counter()
    splits = {folder: _split(root, folder, ignored) for folder in folders}
    train = splits["train"]
    assert train.persons is not None
    attributes = attributes_beside(root, train.persons, split="train")
    splits["train"] = replace(train, attributes=attributes)
    return Dataset("dukemtmc_video", root, splits, dict(sorted((+ignored).items())))


def _split(root: Path, folder: str, ignored: Counter[str]) -> Split:
    images: list[ImageRecord] = []
    persons: list[int] = []
    tracklets: list[Tracklet] = []
    for person in _folders(root / folder, ignored):
        for place in _folders(person, ignored):
            frames = _frames(place, ignored)
            if not frames:
                continue
            shown = {(match["person"], match["camera"]) for match in frames}
            if len(shown) > 1:
                raise ValueError(
                    f"{place}: expected the frames of one person in one camera, got {frames[0].string} and "
                    f"{next(match.string for match in frames if match.group(1, 2) != frames[0].group(1, 2))}"
                )
            ignored[MISSING] += max(int(frames[-1]["frame"]) - len(frames), 0)
            camera, name = int(frames[0]["camera"]) - 1, f"{folder}/{person.name}/{place.name}"
            tracklets.append(Tracklet(name, camera, len(frames)))
            persons.append(int(frames[0]["person"]))
            images += [ImageRecord(place / match.string, f"{name}/{match.string}", camera) for match in frames]
    if not tracklets:
        raise ValueError(
            f"{root / folder}: expected folders of persons with folders of tracklets with images like {_EXAMPLE}, got "
            "none; check data.root."
        )
    return Split(folder, tuple(images), tuple(persons), None, tuple(tracklets))


def _folders(place: Path, ignored: Counter[str]) -> list[Path]:
    """The folders in a folder, in order; other files are counted."""
    inside = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    folders = [path for path in inside if path.is_dir()]
    ignored["file outside of the folders of tracklets"] += len(inside) - len(folders)
    return folders


def _frames(place: Path, ignored: Counter[str]) -> list[re.Match[str]]:
    """The frames of a tracklet, in the order of their numbers."""
    found = []
    for name in os.listdir(place):  # noqa: PTH208 (a tracklet may have thousands)
        match = FRAME.fullmatch(name)
        if match is None:
            is_image = name.lower().endswith((".jpg", ".jpeg", ".png"))
            ignored["name does not tell person, camera and frame" if is_image else "not an image"] += 1
        else:
            found.append(match)
    return sorted(found, key=lambda match: (int(match["frame"]), match.string))
