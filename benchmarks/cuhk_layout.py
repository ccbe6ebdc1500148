"""CUHK01 and CUHK03 in Market-1501's layout with persons for training, validation and test, for benchmarks/grid.py.

    python benchmarks/cuhk_layout.py SOURCE OUTPUT

SOURCE holds CUHK01/campus/PPPPNNN.png (971 persons, images 001 and 002 of one camera, 003 and 004 of the other) and
CUHK03's detected boxes of camera pair 1 as detected/{train,val}/NNNN_KK.jpg (843 persons, KK below 05 of the first
camera); either may be missing. OUTPUT gets cuhk01/ and cuhk03/, with links to the files or copies of them.

Persons are shuffled (seed 0) and divided: of CUHK01 400 are for the test and 86 for validation, of CUHK03 300 and 100;
the others are trained on. The first image of each person and camera is a query, the others are the gallery. Both data
sets have official protocols, which these are not: figures compare methods with each other, not with papers.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

FOLDERS = {
    "train": ("bounding_box_train", "bounding_box_train"),
    "validation": ("validation_query", "validation_gallery"),
    "test": ("query", "bounding_box_test"),
}
HELD_OUT = {"cuhk01": {"test": 400, "validation": 86}, "cuhk03": {"test": 300, "validation": 100}}

Images = dict[int, list[tuple[int, int, Path]]]
"""Camera, number and file of each image by person."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    found = {"cuhk01": cuhk01(options.source), "cuhk03": cuhk03(options.source)}
    if not any(found.values()):
        parser.error(f"{options.source} has neither CUHK01/campus/*.png nor detected/train/*.jpg")
    for name, images in found.items():
        if images:
            counts = write(options.output / name, images, HELD_OUT[name])
            print(f"{name}: {len(images)} persons, images {counts}")


def cuhk01(source: Path) -> Images:
    """Of the folder campus."""
    images: Images = {}
    for path in sorted((source / "CUHK01" / "campus").glob("*.png")):
        if match := re.fullmatch(r"(\d{4})(\d{3})", path.stem):
            view = int(match[2])
            images.setdefault(int(match[1]), []).append((1 if view <= 2 else 2, view, path))
    return images


def cuhk03(source: Path) -> Images:
    """Of detected boxes; persons of the second folder are numbered on from those of the first."""
    images: Images = {}
    for folder, first in (("train", 1), ("val", 744)):
        for path in sorted((source / "detected" / folder).glob("*.jpg")):
            number, column = map(int, path.stem.split("_"))
            images.setdefault(first + number, []).append((1 if column < 5 else 2, column, path))
    return images


def write(root: Path, images: Images, held_out: Mapping[str, int]) -> dict[str, int]:
    """Links all images under their names in Market-1501's layout; how many are in each folder."""
    shutil.rmtree(root, ignore_errors=True)
    persons = sorted(images)
    random.Random(0).shuffle(persons)
    splits, first = dict.fromkeys(persons, "train"), 0
    for split, count in held_out.items():
        splits.update(dict.fromkeys(persons[first : first + count], split))
        first += count
    for folder in {folder for both in FOLDERS.values() for folder in both}:
        (root / folder).mkdir(parents=True)
    counts: dict[str, int] = {}
    for person, own in sorted(images.items()):
        cameras = set()
        for camera, number, path in sorted(own):
            folder = FOLDERS[splits[person]][camera in cameras]
            cameras.add(camera)
            link(path, root / folder / f"{person:04d}_c{camera}s1_{number:06d}_00{path.suffix}")
            counts[folder] = counts.get(folder, 0) + 1
    return counts


def link(path: Path, place: Path) -> None:
    """A hard link, or a copy where that cannot be."""
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)


if __name__ == "__main__":
    main()
