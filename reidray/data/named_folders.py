"""Data sets whose folders are the splits and whose file names tell person and camera.

Market-1501 is one of them; DukeMTMC-reID, VeRi-776, CUHK03 in its new protocol and a common conversion of MSMT17 differ
in the names of the folders and in what the numbers of persons mean. The form of the file names is read freely: any
number of digits, with a sequence or without, whatever follows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reidray.data.expected_folders import expect_folders
from reidray.data.image_files import EXTENSIONS, in_words, why_not
from reidray.data.left_out import FEW, LeftOut
from reidray.data.records import JUNK, Dataset, ImageRecord, Split

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

UNNAMED = "name does not tell person and camera"
_MOST_NAMED = 10_000  # cameras; a number in a file's name may be anything
_NOT_A_FILE = "not a file"


def image_name(person: str = r"\d{1,9}") -> re.Pattern[str]:
    """The form of a file name that begins with person and camera: 0002_c1s1_000451_03.jpg, 0000_c01_000003.png.

    Args:
      person: regular expression of the number.
    """
    kinds = "|".join(EXTENSIONS)
    return re.compile(
        rf"(?P<person>{person})_c(?P<camera>\d{{1,9}})(?:s\d+)?(?:[_. (-].*)?\.(?:{kinds})", re.IGNORECASE | re.ASCII
    )


_Image = tuple[str, int, int]
"""file name, person and camera, as the name has them"""


@dataclass(frozen=True)
class NamedFolders:
    """How such a data set is laid out.

    Attributes:
      dataset: its name.
      folders: of the splits that must be there. optional: of splits that are read where all of their folders exist.
      pattern: of a file name, with the groups `person` and `camera`.
      example: a file name.
      has_junk: person -1 is junk and person 0 a distractor, as in Market-1501, unless person 0 is somebody who is
        trained on or searched for. Without it every number is a person.
    """

    dataset: str
    folders: Mapping[str, str]
    pattern: re.Pattern[str]
    example: str
    has_junk: bool
    optional: Mapping[str, str]

    def read(self, root: Path) -> Dataset:
        """Lists the images; none is opened.

        Files with other names are left out and counted by reason. Cameras are numbered from 1, or from 0 where there is
        a camera 0. Where person 0 is a person, one is added to all persons, since 0 means a distractor in evaluation.

        Returns:
          Splits sorted by name; cameras 0-based.

        Raises:
          ValueError: the root or a folder is missing, or a folder has no image of the expected name.
        """
        expect_folders(root, self.folders.values())
        folders = dict(self.folders)
        if self.optional and all((root / folder).is_dir() for folder in self.optional.values()):
            folders |= self.optional
        left_out = LeftOut()
        listed: dict[str, Sequence[_Image]] = {}
        notes: list[str] = []
        for split, folder in folders.items():
            listed[split], more = self._list(root, folder, left_out)
            notes += more
        first = 1
        if any(camera == 0 for images in listed.values() for _, _, camera in images):
            first = 0
            notes.append("there is a camera 0: cameras are numbered from 0 here")
        counted, said = self._counted_from_0(listed, folders)
        notes += said + list(left_out.cautions(UNNAMED, f"names like {self.example}"))
        splits = {}
        for split, folder in folders.items():
            more_by = 1 if split in counted else 0
            splits[split] = _split(split, root, folder, listed[split], first, more_by, left_out)
        last = max(camera for images in listed.values() for _, _, camera in images)
        names = tuple(map(str, range(last + 1))) if first == 0 and last < _MOST_NAMED else ()
        return Dataset(self.dataset, root, splits, left_out.counts(), left_out.names(), tuple(notes), names)

    def person(self, name: str) -> int:
        """The number of the person in a file name that fits."""
        match = self.pattern.fullmatch(name)
        assert match is not None
        return int(match["person"])

    def _list(self, root: Path, folder: str, left_out: LeftOut) -> tuple[list[_Image], list[str]]:
        """The images of a folder, and what is to be said of it."""
        inner, others, found = [], [], []
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}"
                if not entry.is_file():
                    left_out.add(_NOT_A_FILE, name)
                    if entry.is_dir():
                        inner.append(entry.name)
                elif (reason := why_not(name)) is not None:
                    left_out.add(reason, name)
                    others.append(entry.name)
                elif (match := self.pattern.fullmatch(entry.name)) is None:
                    left_out.add(UNNAMED, name)
                    others.append(entry.name)
                else:
                    found.append((entry.name, int(match["person"]), int(match["camera"])))
        if not found:
            self._refuse(root / folder, sorted(inner), sorted(others))
        notes = []
        if len(inner) > FEW:
            notes.append(
                f"caution: the {len(inner):,} folders in {folder} ({in_words(sorted(inner))}) are not looked into"
            )
        return sorted(found), notes

    def _refuse(self, place: Path, inner: Sequence[str], others: Sequence[str]) -> None:
        if inner:
            raise ValueError(
                f"{place}: expected images with names like {self.example}, got {len(inner):,} folders "
                f"({in_words(inner)}) and {len(others):,} files, none of them usable: where each folder is a person, "
                "set data.dataset=folder data.pattern='{person}/{}'"
            )
        got = f" (such as {in_words(others)})" if others else ""
        raise ValueError(
            f"{place}: expected images with names like {self.example}, got {len(others)} files and none of them usable"
            f"{got}; check data.root, or say with data.dataset=folder and data.pattern how the names are to be read."
        )

    def _counted_from_0(
        self, listed: Mapping[str, Sequence[_Image]], folders: Mapping[str, str]
    ) -> tuple[set[str], list[str]]:
        """The splits in which 0 is a person, and what is to be said of them."""
        if not self.has_junk:
            return set(listed), []
        found: set[str] = set()
        notes = []
        for split, images in listed.items():
            if split.endswith("gallery") or all(person != 0 for _, person, _ in images):
                continue
            together = [split, *([f"{split.removesuffix('query')}gallery"] if split.endswith("query") else [])]
            found.update(together)
            where = " and ".join(folders[one] for one in together)
            notes.append(
                f"{folders[split]} has images of person 0: 0 is read as a person in {where}, and one is added to all "
                "numbers of persons there"
            )
        return found, notes


def _split(
    split: str,
    root: Path,
    folder: str,
    listed: Sequence[_Image],
    first_camera: int,
    more: int,
    left_out: LeftOut,
) -> Split:
    images: list[ImageRecord] = []
    persons: list[int] = []
    for name, person, camera in listed:
        if person < 0:
            left_out.add(JUNK, f"{folder}/{name}")
            continue
        images.append(ImageRecord(root / folder / name, f"{folder}/{name}", camera - first_camera))
        persons.append(person + more)
    if not images:
        raise ValueError(
            f"{root / folder}: expected images of persons, got {len(listed):,} files, all of them junk (person -1); "
            "check data.root."
        )
    return Split(split, tuple(images), tuple(persons))
