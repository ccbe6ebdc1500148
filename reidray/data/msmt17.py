"""MSMT17 (Wei et al., CVPR 2018), in each form that people have.

    root/list_train.txt, list_val.txt, list_query.txt, list_gallery.txt
        a line: 0000/0000_000_01_0303morning_0008_0.jpg 0       path below the folder, person; the third number is the
                                                                camera, 1 to 15
    root/train, root/test                        version 1
    root/mask_train_v2, root/mask_test_v2        version 2, faces blurred, the same lists

    root/bounding_box_train/0000_c01_0000.jpg    converted to Market-1501's folders; also query, bounding_box_test

Persons begin at 0 in the training lists and again in the test lists: one is added, since 0 means a distractor in
evaluation. There is no junk. 32,621 images of 1,041 persons with the validation list, which belongs to the training
persons; 11,659 queries and a gallery of 82,161, of 3,060 persons.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from reidray.data.left_out import LeftOut
from reidray.data.named_folders import MARKET_FOLDERS, NamedFolders, image_name
from reidray.data.records import Dataset, ImageRecord, Split

FOLDERS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))
LISTS = {"train": "list_train.txt", "val": "list_val.txt", "query": "list_query.txt", "gallery": "list_gallery.txt"}
CONVERTED = NamedFolders(
    dataset="msmt17",
    folders=MARKET_FOLDERS,
    pattern=image_name(),
    example="0000_c01_0000.jpg",
    has_junk=False,
    optional={},
)
_LINE = re.compile(r"(?P<path>\S+?_\d+_(?P<camera>\d+)_\S*\.jpg)\s+(?P<person>\d+)")


def read(root: str | os.PathLike[str], *, validation: bool = True) -> Dataset:
    """Lists the images; none is opened.

    Args:
      root: of the data set.
      validation: the images of list_val.txt are trained on as well, as in most unsupervised code. A conversion to
        Market-1501's folders is taken as it is.

    Returns:
      train, query and gallery, sorted by name; cameras 0-based.

    Raises:
      ValueError: the folder, a list or a file of a list is missing, or a line is not of the form above.
    """
    root = Path(root)
    if (root / MARKET_FOLDERS["train"]).is_dir():
        return CONVERTED.read(root)
    train, test = _folders(root)
    there = {folder: _images(root / folder) for folder in (train, test)}
    parts = [_listed(root, which, train, there) for which in (("train", "val") if validation else ("train",))]
    images = [one for part in parts for one in part]
    splits = {"train": _split("train", images)}
    for split in ("query", "gallery"):
        splits[split] = _split(split, _listed(root, split, test, there))
    listed = {image.name for split in splits.values() for image in split.images}
    left_out = LeftOut()
    for folder, names in there.items():
        for name in names:
            if f"{folder}/{name}" not in listed:
                left_out.add("in none of the lists that are read", f"{folder}/{name}")
    return Dataset("msmt17", root, splits, left_out.counts(), left_out.names())


def _images(folder: Path) -> set[str]:
    """The files in the folders of persons: folder and name of each."""
    return {
        f"{person.name}/{image.name}"
        for person in os.scandir(folder)
        if person.is_dir()
        for image in os.scandir(person.path)
    }


def _folders(root: Path) -> tuple[str, str]:
    if not root.is_dir():
        raise ValueError(f"{root}: expected the folder of MSMT17, but there is none; check data.root.")
    found = next((pair for pair in FOLDERS if all((root / name).is_dir() for name in pair)), None)
    if found is None:
        inner = sorted(path for path in root.iterdir() if path.is_dir() and (path / LISTS["train"]).is_file())
        hint = f"did you mean {inner[0]}?" if inner else "check data.root."
        raise ValueError(
            f"{root}: expected the folders train and test (version 1), mask_train_v2 and mask_test_v2 (version 2) or "
            f"bounding_box_train (converted), and found none of these pairs; {hint}"
        )
    return found


def _listed(root: Path, which: str, folder: str, there: Mapping[str, set[str]]) -> list[tuple[ImageRecord, int]]:
    """The images of a list and their persons, from 1; `there` are the files of each folder."""
    place = root / LISTS[which]
    if not place.is_file():
        raise ValueError(f"{place} is missing: MSMT17 has {', '.join(LISTS.values())}; unpack all of it")
    found, missing = [], []
    for number, line in enumerate(place.read_text().splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(
                f"{place}, line {number}: expected a path with person and camera and a number, such as "
                f"0000/0000_000_01_0303morning_0008_0.jpg 0, got {line.strip()[:80]!r}"
            )
        if match["path"] not in there[folder]:
            missing.append(match["path"])
            continue
        name = f"{folder}/{match['path']}"
        found.append((ImageRecord(root / name, name, int(match["camera"]) - 1), int(match["person"]) + 1))
    if missing:
        raise ValueError(
            f"{place} names {len(missing):,} images that are not in {root / folder}, such as {missing[0]}: unpack all "
            "of it"
        )
    if not found:
        raise ValueError(f"{place} names no image")
    return found


def _split(name: str, images: list[tuple[ImageRecord, int]]) -> Split:
    ordered = sorted(images, key=lambda one: one[0].name)
    return Split(name, tuple(image for image, _ in ordered), tuple(person for _, person in ordered))
