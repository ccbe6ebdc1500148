"""What a data set is: named splits of image files, and why other files were left out.

A sample is what gets one feature and one label: an image, or a tracklet, which is consecutive images (frames) of a
person in one camera.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reidray.data.attributes import Attributes, distinct_vectors
from reidray.evaluation import num_answerable

JUNK = "junk (no person, or a bad crop)"


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image file.

    Attributes:
      path: where the file lies.
      name: the posix path relative to the data root; unique in a data set.
      camera: 0-based; -1 when unknown.
    """

    path: Path
    name: str
    camera: int


@dataclass(frozen=True)
class Tracklet:
    """Consecutive images (frames) of one person in one camera.

    Attributes:
      name: unique in a split.
      camera: 0-based; -1 when unknown.
      frames: how many images it has, at least 1.
    """

    name: str
    camera: int
    frames: int


@dataclass(frozen=True)
class Split:
    """Samples in a stable order; the position of a sample is its index.

    Attributes:
      name: "train", "query", "gallery", "validation_query" or "validation_gallery".
      images: sorted by name; with tracklets, the frames of the first, then those of the second, and so on.
      persons: the true identity of each sample, or None when there are no labels. For evaluation only: nothing that
        trains may look at it. 0 is a distractor: somebody no query asks for.
      attributes: what was noted of the person in each sample, or None. Annotations: only a method that says it is
        weakly supervised may look at them.
      tracklets: None where every image is a sample of its own.
    """

    name: str
    images: tuple[ImageRecord, ...]
    persons: tuple[int, ...] | None
    attributes: Attributes | None = None
    tracklets: tuple[Tracklet, ...] | None = None

    def __post_init__(self) -> None:
        if self.tracklets is not None and sum(one.frames for one in self.tracklets) != len(self.images):
            raise ValueError(
                f"split {self.name}: expected the images of {len(self.tracklets)} tracklets, got {len(self.images)}."
            )
        if self.persons is not None and len(self.persons) != len(self):
            raise ValueError(
                f"split {self.name}: expected one person per {self.unit}, got {len(self.persons)} persons for "
                f"{len(self)} {self.unit}s."
            )
        if self.attributes is not None and len(self.attributes.values_NA) != len(self):
            raise ValueError(
                f"split {self.name}: expected attributes of each {self.unit}, got {len(self.attributes.values_NA)} "
                f"rows for {len(self)} {self.unit}s."
            )

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.images) if self.tracklets is None else len(self.tracklets)

    @property
    def unit(self) -> str:
        """What a sample is."""
        return "image" if self.tracklets is None else "tracklet"

    @property
    def cameras(self) -> list[int]:
        """Of each sample."""
        return [one.camera for one in (self.images if self.tracklets is None else self.tracklets)]


@dataclass(frozen=True)
class Dataset:
    """The splits found under a root.

    Attributes:
      name: "market1501", "folder", ...
      root: the folder that was read.
      splits: by name.
      ignored: how many entries of the folders were left out, by reason.
      left_out: their names, by reason, as they may be printed.
      notes: sentences about how the names were understood, cautions among them.
      camera_names: what each camera is called in names, folders or a list; empty where they are numbers counted from 1.
      person_names: likewise for the persons, from person 1 on; for evaluation only.
    """

    name: str
    root: Path
    splits: dict[str, Split]
    ignored: dict[str, int]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    camera_names: tuple[str, ...] = ()
    person_names: tuple[str, ...] = ()


def counts(dataset: Dataset) -> dict[str, int]:
    """The numbers by which one recognises a data set.

    Args:
      dataset: any data set.

    Returns:
      For each split "<split> tracklets" where it has some, "<split> images" and, where identities are known, "<split>
      persons" (distractors not counted); where attributes are known, how many ("<split> attributes"), how many
      different vectors of them ("<split> distinct attribute vectors") and of how many images nothing was noted
      ("<split> images without attributes", or tracklets); "distractors": samples of the gallery with person 0; "junk":
      samples dropped while reading; and how many queries no other camera can answer, if there are any.
    """
    numbers: dict[str, int] = {}
    for name, split in dataset.splits.items():
        if split.tracklets is not None:
            numbers[f"{name} tracklets"] = len(split)
        numbers[f"{name} images"] = len(split.images)
        if split.persons is not None:
            numbers[f"{name} persons"] = len(set(split.persons) - {0})
        if split.attributes is not None:
            numbers[f"{name} attributes"] = len(split.attributes.names)
            numbers[f"{name} distinct attribute vectors"] = distinct_vectors(split.attributes.values_NA)
            numbers[f"{name} {split.unit}s without attributes"] = split.attributes.num_unknown
    gallery = dataset.splits.get("gallery")
    numbers["distractors"] = 0 if gallery is None or gallery.persons is None else gallery.persons.count(0)
    numbers["junk"] = dataset.ignored.get(JUNK, 0)
    query = dataset.splits.get("query")
    if query is not None and gallery is not None and query.persons is not None and gallery.persons is not None:
        sides = np.array(query.persons), np.array(gallery.persons), np.array(query.cameras), np.array(gallery.cameras)
        if lone := len(query) - num_answerable(*sides):
            numbers["queries without an answer in another camera, which no figure counts"] = lone
    return numbers
