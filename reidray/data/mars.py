"""MARS (Zheng et al., ECCV 2016): tracklets of Market-1501's persons and cameras.

    root/bbox_train/0001/0001C1T0001F001.jpg     person 1, camera 1, tracklet 1, frame 1
    root/bbox_test/00-1/00-1C1T0001F001.jpg      person -1: junk; person 0: distractor
    root/info/train_name.txt, test_name.txt      a name a line
    root/info/tracks_train_info.mat, tracks_test_info.mat
                                                 a row a tracklet: first and last line (from 1), person, camera
    root/info/query_IDX.mat                      rows of tracks_test_info (from 1) that are queries

The info files are those of the authors' evaluation code (MARS-evaluation on GitHub, folder info).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from reidray.arrays import Ints
from reidray.data import mat5
from reidray.data.expected_folders import expect_folders
from reidray.data.records import JUNK, Dataset, ImageRecord, Split, Tracklet

_NAME = re.compile(r"(?:\d{4}|00-1)C\d+T\d+F\d+\.jpg", re.ASCII)
_MOST_BYTES = 64 * 2**20
_FETCH = "fetch the folder info of MARS-evaluation again"


def read(root: str | os.PathLike[str], *, queries_in_gallery: bool = True) -> Dataset:
    """Lists the tracklets; no image is opened.

    Junk (person -1) is dropped and counted in tracklets.

    Args:
      root: the folder that holds bbox_train, bbox_test and info.
      queries_in_gallery: the gallery of the official code, which has all 11,310 tracklets that are not junk; without
        them 9,330, as in torchreid, and 140 of the 1,980 queries have no answer.

    Returns:
      Splits in the order of the info files; cameras 0-based; a tracklet is named after its first frame.

    Raises:
      ValueError: a folder, an info file or an image is missing, or an info file is not of the form above.
    """
    root = Path(root)
    expect_folders(root, ("bbox_train", "bbox_test", "info"), f"check data.root; for info, {_FETCH}")
    train = _tracks(root, "train")
    test = _tracks(root, "test")
    queries = _numbers(root / "info" / "query_IDX.mat", "query_IDX", 1).ravel()
    if len(queries) and not (queries.min() >= 1 and queries.max() <= len(test)):
        raise ValueError(f"{root}/info/query_IDX.mat: expected rows 1 to {len(test):,}, got others; {_FETCH}.")
    is_query = np.zeros(len(test), bool)
    is_query[queries - 1] = True
    is_junk = np.array([person < 0 for _, person, _ in test], bool)
    in_gallery = ~is_junk if queries_in_gallery else ~is_junk & ~is_query
    splits = {
        "train": _split("train", train, np.ones(len(train), bool)),
        "query": _split("query", test, is_query),
        "gallery": _split("gallery", test, in_gallery),
    }
    junk = tuple(frames[0].name for frames, person, _ in test if person < 0)
    return Dataset("mars", root, splits, {JUNK: len(junk)} if junk else {}, {JUNK: junk} if junk else {})


_Track = tuple[list[ImageRecord], int, int]
"""frames, person, camera from 0"""


def _split(name: str, tracks: list[_Track], taken_N: np.ndarray) -> Split:
    chosen = [track for track, taken in zip(tracks, taken_N, strict=True) if taken]
    images = tuple(image for frames, _, _ in chosen for image in frames)
    tracklets = tuple(Tracklet(frames[0].name, camera, len(frames)) for frames, _, camera in chosen)
    return Split(name, images, tuple(person for _, person, _ in chosen), None, tracklets)


def _tracks(root: Path, part: str) -> list[_Track]:
    """Frames, person and camera of each tracklet of bbox_<part>."""
    names, images = _names(root, part), []
    table_N4 = _numbers(root / "info" / f"tracks_{part}_info.mat", f"track_{part}_info", 4)
    where = f"{root}/info/tracks_{part}_info.mat"
    for row, (first, last, person, camera) in enumerate(table_N4.tolist(), start=1):
        if not (1 <= first <= last <= len(names) and camera >= 1):
            raise ValueError(
                f"{where}: expected in row {row} lines from 1 to {len(names):,} and a camera from 1, got {first}, "
                f"{last}, {camera}; {_FETCH}."
            )
        frames = names[first - 1 : last]
        prefix = f"{'00-1' if person < 0 else f'{person:04d}'}C{camera}T"
        if not all(name.startswith(prefix) for name in frames):
            raise ValueError(
                f"{where}: row {row} is of person {person} in camera {camera}, its frames such as {frames[0]} are not; "
                f"{_FETCH}."
            )
        folder = f"bbox_{part}"
        records = [
            ImageRecord(root / folder / name[:4] / name, f"{folder}/{name[:4]}/{name}", camera - 1) for name in frames
        ]
        images.append((records, person, camera - 1))
    return images


def _names(root: Path, part: str) -> list[str]:
    """The names of a list, all of them files of bbox_<part>."""
    path, folder = root / "info" / f"{part}_name.txt", root / f"bbox_{part}"
    if not path.is_file():
        raise ValueError(f"{path}: expected the names of the images, found none; {_FETCH}.")
    try:
        names = path.read_text().split()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a text of names, got something else ({error}); {_FETCH}.") from error
    odd = next((name for name in names if _NAME.fullmatch(name) is None), None)
    if odd is not None or not names:
        raise ValueError(f"{path}: expected names like 0001C1T0001F001.jpg, got {odd!r}; {_FETCH}.")
    there: set[str] = set()
    for person in sorted({name[:4] for name in names}):
        if (folder / person).is_dir():
            there.update(os.listdir(folder / person))  # noqa: PTH208 (a person may have tens of thousands)
    lacking = [name for name in names if name not in there]
    if lacking:
        raise ValueError(
            f"{path} names {len(lacking):,} images that are not in {folder}, such as {lacking[0][:4]}/{lacking[0]}: "
            "unpack the archive again."
        )
    return names


def _numbers(path: Path, variable: str, columns: int) -> Ints:
    """A table of whole numbers of a MATLAB 5 file; with one column, a row or a column."""
    if not path.is_file():
        raise ValueError(f"{path}: expected the file, found none; {_FETCH}.")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path}: expected at most {_MOST_BYTES} bytes, got {path.stat().st_size}; {_FETCH}.")
    try:
        table: Any = mat5.read(path.read_bytes()).get(variable)
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a MATLAB 5 file, got one that cannot be read ({error}); {_FETCH}."
        ) from error
    table = table if isinstance(table, np.ndarray) else np.empty(0)
    fits = table.ndim == 2 and (table.shape[1] == columns if columns > 1 else 1 in table.shape)
    fits = fits and table.size > 0 and table.dtype.kind in "iuf"
    if not fits or not np.array_equal(np.round(table), table) or np.abs(table).max() > 2**31:
        raise ValueError(f"{path}: expected {variable}, whole numbers in {columns} columns, got another; {_FETCH}.")
    numbers: Ints = table.astype(np.int64)
    return numbers
