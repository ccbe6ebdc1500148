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
from reidray.data.image_files import EXTENSIONS, why_not
from reidray.data.left_out import LeftOut
from reidray.data.records import Dataset, ImageRecord, Split, Tracklet

FOLDERS = ("train", "query", "gallery")  # also the names of the splits
_OPTIONAL = ("validation_query", "validation_gallery")
FRAME = re.compile(
    rf"(?P<person>\d{{4,9}})_?C(?P<camera>\d{{1,9}})_?F(?P<frame>\d{{1,6}})(?:_?\w*)\.(?:{'|'.join(EXTENSIONS)})",
    re.IGNORECASE | re.ASCII,
)
_EXAMPLE = "0001_C6_F0001_X30823.jpg"
_UNNAMED = "name does not tell person, camera and frame"
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
    left_out, missing = LeftOut(), Counter[str]()
    splits = {folder: _split(root, folder, left_out, missing) for folder in folders}
    notes: tuple[str, ...] = ()
    if any(-1 in split.cameras for split in splits.values()):
        splits = {name: _with_next_cameras(split) for name, split in splits.items()}
        notes = ("there is a camera 0: cameras are numbered from 0 here",)
    train = splits["train"]
    assert train.persons is not None
    attributes = attributes_beside(root, train.persons, split="train")
    splits["train"] = replace(train, attributes=attributes)
    ignored = dict(sorted({**left_out.counts(), **+missing}.items()))
    notes += left_out.cautions(_UNNAMED, f"names like {_EXAMPLE}")
    return Dataset("dukemtmc_video", root, splits, ignored, left_out.names(), notes)


def _with_next_cameras(split: Split) -> Split:
    """The same with one added to all cameras."""
    assert split.tracklets is not None
    images = tuple(replace(image, camera=image.camera + 1) for image in split.images)
    return replace(
        split, images=images, tracklets=tuple(replace(one, camera=one.camera + 1) for one in split.tracklets)
    )


def _split(root: Path, folder: str, left_out: LeftOut, missing: Counter[str]) -> Split:
    images: list[ImageRecord] = []
    persons: list[int] = []
    tracklets: list[Tracklet] = []
    for person in _folders(root, root / folder, left_out):
        for place in _folders(root, person, left_out):
            frames = _frames(root, place, left_out)
            if not frames:
                continue
            shown = {(match["person"], match["camera"]) for match in frames}
            if len(shown) > 1:
                raise ValueError(
                    f"{place}: expected the frames of one person in one camera, got {frames[0].string} and "
                    f"{next(match.string for match in frames if match.group(1, 2) != frames[0].group(1, 2))}"
                )
            missing[MISSING] += max(int(frames[-1]["frame"]) - len(frames), 0)
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


def _folders(root: Path, place: Path, left_out: LeftOut) -> list[Path]:
    """The folders in a folder, in order; other files are left out."""
    inside = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    for path in inside:
        if not path.is_dir():
            left_out.add("file outside of the folders of tracklets", path.relative_to(root).as_posix())
    return [path for path in inside if path.is_dir()]


def _frames(root: Path, place: Path, left_out: LeftOut) -> list[re.Match[str]]:
    """The frames of a tracklet, in the order of their numbers."""
    found = []
    for name in os.listdir(place):  # noqa: PTH208 (a tracklet may have thousands)
        match = FRAME.fullmatch(name)
        if match is None:
            left_out.add(why_not(name) or _UNNAMED, f"{place.relative_to(root).as_posix()}/{name}")
        else:
            found.append(match)
    return sorted(found, key=lambda match: (int(match["frame"]), match.string))
