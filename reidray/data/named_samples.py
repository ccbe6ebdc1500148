"""From rows that name person, camera and tracklet, in any words, to a data set with numbers for them.

The numbers of persons and cameras are places in their lists of names, in natural order (cam2 before cam10); the lists
stay with the data set. Persons are numbered from 1, over all splits: 0 means a distractor.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reidray.counted import counted
from reidray.data.image_files import in_words
from reidray.data.left_out import LeftOut, shown
from reidray.data.records import Dataset, ImageRecord, Split, Tracklet

SPLITS = ("train", "query", "gallery", "validation_query", "validation_gallery")

_DIGITS = re.compile(r"(\d+)")
_MANY_CAMERAS = 64


@dataclass(frozen=True, slots=True)
class Row:
    """An image and what is known of it; None where nothing is.

    Attributes:
      path: of the file. name: unique in a data set.
      split: one of SPLITS.
      person, camera, tracklet: any text; digits alone are a number, so that 08 is 8.
    """

    path: Path
    name: str
    split: str
    person: str | None = None
    camera: str | None = None
    tracklet: str | None = None


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts numbers within texts by their size."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(text) if part)


def data_set(name: str, root: Path, rows: Sequence[Row], left_out: LeftOut, notes: Iterable[str]) -> Dataset:
    """The data set of some rows.

    With a tracklet in any row, samples are tracklets: the rows of a split with equal person, camera and tracklet, in
    natural order; a row without one is a tracklet of one frame. A query without a person is left out where others have
    one; an image of the gallery without one is a distractor. The training split has persons where all its rows do.

    Args:
      name: of the data set.
      root: of the data.
      rows: in any order.
      left_out: takes what is left out.
      notes: sentences to go on from.

    Returns:
      Splits sorted by name, in the order of SPLITS.
    """
    of_tracklets = any(row.tracklet is not None for row in rows)
    cameras = _numbers((row.camera for row in rows), first=0)
    persons = _numbers((row.person for row in rows), first=1)
    said = [*notes, *about_cameras([(row.name, row.camera) for row in rows])]
    splits = {}
    for split in SPLITS:
        own = sorted((row for row in rows if row.split == split), key=lambda row: row.name)
        if split.endswith("query") and any(row.person is not None for row in own):
            for row in own:
                if row.person is None:
                    left_out.add("query without a person", row.name)
            own = [row for row in own if row.person is not None]
        if own:
            splits[split] = _split(split, own, persons, cameras, of_tracklets=of_tracklets)
    train = [row for row in rows if row.split == "train"]
    unknown = sum(row.person is None for row in train)
    if 0 < unknown < len(train):
        said.append(
            f"caution: {unknown:,} of {len(train):,} training images have no person: no figure compares labels with "
            "persons"
        )
    return Dataset(name, root, splits, left_out.counts(), left_out.names(), tuple(said), tuple(cameras), tuple(persons))


def _numbers(texts: Iterable[str | None], *, first: int) -> dict[str, int]:
    """Numbers of different texts, in natural order."""
    found = sorted({plain(text) for text in texts if text is not None}, key=natural)
    return {text: place for place, text in enumerate(found, start=first)}


def plain(text: str) -> str:
    """A name as it is compared: digits alone are a number, so that 08 is 8."""
    return str(int(text)) if text.isdecimal() else text


def about_cameras(named: Sequence[tuple[str, str | None]]) -> list[str]:
    """Sentences about the cameras of images, given as names of images with their cameras; none where none is known."""
    counts = Counter(plain(camera) for _, camera in named if camera is not None)
    if not counts:
        return []
    each = [f"{shown(name)} ({counted(counts[name], 'image')})" for name in sorted(counts, key=natural)]
    sentences = [f"{counted(len(each), 'camera')}: {in_words(each, 8)}"]
    unknown = len(named) - sum(counts.values())
    if unknown:
        such = next(name for name, camera in named if camera is None)
        sentences.append(
            f"caution: {unknown:,} of {len(named):,} images have no camera, such as {shown(such)}: they count as of an "
            "unknown one"
        )
    if len(each) > _MANY_CAMERAS:
        sentences.append(f"caution: {len(each):,} is a large number of cameras; are these persons or tracklets?")
    return sentences


def _split(
    name: str, rows: Sequence[Row], persons: Mapping[str, int], cameras: Mapping[str, int], *, of_tracklets: bool
) -> Split:
    def camera(row: Row) -> int:
        return -1 if row.camera is None else cameras[plain(row.camera)]

    def person(row: Row) -> int:
        return 0 if row.person is None else persons[plain(row.person)]

    def record(row: Row) -> ImageRecord:
        return ImageRecord(row.path, row.name, camera(row))

    known = [row.person is not None for row in rows]
    has_truth = any(known) if name.endswith("gallery") else all(known)
    if not of_tracklets:
        truth = tuple(person(row) for row in rows) if has_truth else None
        return Split(name, tuple(record(row) for row in rows), truth)
    groups: dict[tuple[str | None, ...], list[Row]] = {}
    for row in rows:
        own = (row.name,) if row.tracklet is None else (row.person, row.camera, row.tracklet)
        groups.setdefault(own, []).append(row)
    tracks = [sorted(frames, key=lambda row: natural(row.name)) for frames in groups.values()]
    tracks.sort(key=lambda frames: frames[0].name)
    return Split(
        name,
        tuple(record(row) for frames in tracks for row in frames),
        tuple(person(frames[0]) for frames in tracks) if has_truth else None,
        None,
        tuple(Tracklet(frames[0].name, camera(frames[0]), len(frames)) for frames in tracks),
    )
