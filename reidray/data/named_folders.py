"""Data sets whose folders are the splits and whose file names tell person and camera.

Market-1501 is one of them; DukeMTMC-reID, VeRi-776, CUHK03 in its new protocol and a common conversion of MSMT17 differ
in the names of the folders, in the form of the file names, and in what the numbers of persons mean.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reidray.data.expected_folders import expect_folders
from reidray.data.records import JUNK, Dataset, ImageRecord, Split

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


@dataclass(frozen=True)
class NamedFolders:
    """How such a data set is laid out.

    Attributes:
      dataset: its name.
      folders: of the splits that must be there. optional: of splits that are read where all of their folders exist.
      pattern: of a file name, with the groups `person` and `camera` (numbered from 1).
      example: a file name.
      has_junk: person -1 is junk and person 0 a distractor, as in Market-1501. Without it every number is a person,
        also 0: one is added to all, since 0 means a distractor in evaluation.
    """

    dataset: str
    folders: Mapping[str, str]
    pattern: re.Pattern[str]
    example: str
    has_junk: bool
    optional: Mapping[str, str]

    def read(self, root: Path) -> Dataset:
        """Lists the images; none is opened.

        Files with other names are left out and counted by reason.

        Returns:
          Splits sorted by name; cameras 0-based.

        Raises:
          ValueError: the root or a folder is missing, or a folder has no image of the expected name.
        """
        expect_folders(root, self.folders.values())
        folders = dict(self.folders)
        if self.optional and all((root / folder).is_dir() for folder in self.optional.values()):
            folders |= self.optional
        ignored: Counter[str] = Counter()
        splits = {split: self._split(split, root, folder, ignored) for split, folder in folders.items()}
        return Dataset(self.dataset, root, splits, dict(sorted(ignored.items())))

    def _split(self, split: str, root: Path, folder: str, ignored: Counter[str]) -> Split:
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
            match = self.pattern.fullmatch(name)
            if match is None:
                is_image = name.lower().endswith((".jpg", ".jpeg", ".png"))
                ignored["name does not tell person and camera" if is_image else "not an image"] += 1
                continue
            person = int(match["person"])
            if not self.has_junk:
                person += 1
            elif person < 0 or (person == 0 and not split.endswith("gallery")):
                num_junk += 1
                continue
            images.append(ImageRecord(root / folder / name, f"{folder}/{name}", int(match["camera"]) - 1))
            persons.append(person)
        if num_junk:
            ignored[JUNK] += num_junk
        if not images:
            raise ValueError(
                f"{root / folder}: expected images with names like {self.example}, got {len(names)} files and none of "
                "them usable; check data.root."
            )
        return Split(split, tuple(images), tuple(persons))
