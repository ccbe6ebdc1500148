"""Market-1501 (Zheng et al., ICCV 2015) and data sets drawn or repacked in its layout.

    root/bounding_box_train/0002_c1s1_000451_03.jpg      person 2, camera 1, sequence 1, frame 451, box 3
    root/query/...
    root/bounding_box_test/-1_c3s1_000000_00.jpg         person -1: junk;  person 0: distractor

    root/market_attribute.mat                            what was noted of the persons: optional; or duke_attribute.mat,
                                                         or the attributes.json of drawn pedestrians

`validation_query` and `validation_gallery` are read as splits of those names when both exist. Names without a sequence
(`0001_c2_f0046182.jpg`, as in DukeMTMC-reID) are accepted too.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from reidray.data.attributes import attributes_beside
from reidray.data.records import JUNK, Dataset, ImageRecord, Split

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
VALIDATION_FOLDERS = {"validation_query": "validation_query", "validation_gallery": "validation_gallery"}
EXAMPLE = "0002_c1s1_000451_03.jpg"

_NAME = re.compile(r"(?P<person>-1|\d{1,9})_c(?P<camera>[1-9]\d{0,4})(?:s\d+)?_[\w-]*\.(?:jpe?g|png)", re.I | re.A)


def read(root: str | os.PathLike[str]) -> Dataset:
    """Lists the images of a folder in Market-1501's layout; no image is opened.

    Junk (person -1; in train and query also person 0) is dropped and counted, as the official evaluation ignores it;
    distractors (person 0) stay in the gallery. Files with other names are left out and counted by reason. The train
    split gets the attributes of its persons where a file of them lies in the root (reidray/data/attributes.py).

    Args:
      root: the folder that holds bounding_box_train, query and bounding_box_test.

    Returns:
      Splits sorted by name; cameras 0-based.

    Raises:
      ValueError: the root or one of the three folders is missing, a folder has no image of the expected name, or the
        file of attributes cannot be used.
    """
    root = Path(root)
    _check(root)
    folders = dict(FOLDERS)
    if all((root / folder).is_dir() for folder in VALIDATION_FOLDERS.values()):
        folders |= VALIDATION_FOLDERS
    ignored: Counter[str] = Counter()
    splits = {
        split: _read_split(split, root, folder, keep_distractors=split.endswith("gallery"), ignored=ignored)
        for split, folder in folders.items()
    }
    train = splits["train"]
    assert train.persons is not None
    splits["train"] = replace(train, attributes=attributes_beside(root, train.persons, split="train"))
    return Dataset("market1501", root, splits, dict(sorted(ignored.items())))


def _check(root: Path) -> None:
    expected = ", ".join(FOLDERS.values())
    if not root.exists():
        raise ValueError(f"{root}: expected a folder with {expected}, but nothing is there; check data.root.")
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder with {expected}, got a file; unpack it or check data.root.")
    missing = [folder for folder in FOLDERS.values() if not (root / folder).is_dir()]
    if missing:
        inner = sorted(path for path in root.iterdir() if all((path / name).is_dir() for name in FOLDERS.values()))
        hint = f"did you mean {inner[0]}?" if inner else "check data.root."
        raise ValueError(f"{root}: expected the folders {expected}, but found no {', '.join(missing)}; {hint}")


def _read_split(split: str, root: Path, folder: str, *, keep_distractors: bool, ignored: Counter[str]) -> Split:
    names = []
    with os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.is_file():
                names.append(entry.name)
            else:
                ignored["not a file"] += 1
    images: list[ImageRecord] = []
    persons: list[int] = []
    num_junk = 0
    for name in sorted(names):
        match = _NAME.fullmatch(name)
        if match is None:
            is_image = name.lower().endswith((".jpg", ".jpeg", ".png"))
            ignored["name does not tell person and camera" if is_image else "not an image"] += 1
            continue
        person = int(match["person"])
        if person < 0 or (person == 0 and not keep_distractors):
            num_junk += 1
            continue
        images.append(ImageRecord(root / folder / name, f"{folder}/{name}", int(match["camera"]) - 1))
        persons.append(person)
    if num_junk:
        ignored[JUNK] += num_junk
    if not images:
        raise ValueError(
            f"{root / folder}: expected images with names like {EXAMPLE}, got {len(names)} files and none of them "
            f"usable; check data.root."
        )
    return Split(split, tuple(images), tuple(persons))
