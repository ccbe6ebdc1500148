"""What a data set is: named splits of image files, and why other files were left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reidray.data.attributes import Attributes, distinct_vectors

JUNK = "junk (no person, or a bad crop)"


@dataclass(frozen=True)
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
class Split:
    """Images in a stable order; the position of an image is its index.

    Attributes:
      name: "train", "query", "gallery", "validation_query" or "validation_gallery".
      images: sorted by name.
      persons: the true identity of each image, or None when there are no labels. For evaluation only: nothing that
        trains may look at it. 0 is a distractor: somebody no query asks for.
      attributes: what was noted of the person in each image, or None. Annotations: only a method that says it is
        weakly supervised may look at them.
    """

    name: str
    images: tuple[ImageRecord, ...]
    persons: tuple[int, ...] | None
    attributes: Attributes | None = None

    def __post_init__(self) -> None:
        if self.persons is not None and len(self.persons) != len(self.images):
            raise ValueError(
                f"split {self.name}: expected one person per image, got {len(self.persons)} persons for "
                f"{len(self.images)} images."
            )
        if self.attributes is not None and len(self.attributes.values_NA) != len(self.images):
            raise ValueError(
                f"split {self.name}: expected attributes of each image, got {len(self.attributes.values_NA)} rows for "
                f"{len(self.images)} images."
            )


@dataclass(frozen=True)
class Dataset:
    """The splits found under a root.

    Attributes:
      name: "market1501", "folder", ...
      root: the folder that was read.
      splits: by name.
      ignored: how many entries of the folders were left out, by reason.
    """

    name: str
    root: Path
    splits: dict[str, Split]
    ignored: dict[str, int]


def counts(dataset: Dataset) -> dict[str, int]:
    """The numbers by which one recognises a data set.

    Args:
      dataset: any data set.

    Returns:
      For each split "<split> images" and, where identities are known, "<split> persons" (distractors not counted),
      where attributes are known, how many ("<split> attributes"), how many different vectors of them ("<split> distinct
      attribute vectors") and of how many images nothing was noted ("<split> images without attributes");
      "distractors": images of the gallery with person 0; "junk": images dropped while reading.
    """
    numbers: dict[str, int] = {}
    for name, split in dataset.splits.items():
        numbers[f"{name} images"] = len(split.images)
        if split.persons is not None:
            numbers[f"{name} persons"] = len(set(split.persons) - {0})
        if split.attributes is not None:
            numbers[f"{name} attributes"] = len(split.attributes.names)
            numbers[f"{name} distinct attribute vectors"] = distinct_vectors(split.attributes.values_NA)
            numbers[f"{name} images without attributes"] = split.attributes.num_unknown
    gallery = dataset.splits.get("gallery")
    numbers["distractors"] = 0 if gallery is None or gallery.persons is None else gallery.persons.count(0)
    numbers["junk"] = dataset.ignored.get(JUNK, 0)
    return numbers
