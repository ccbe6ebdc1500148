"""A list of images as a data set: a CSV or Parquet file with the column path, and as many of the others as are known.

`table_file` reads the rows; here they become a data set.

path,person,camera,tracklet,split
door1/0001.jpg,anna,door1,,train        paths are relative to the list's folder, or absolute
door2/0417.jpg,anna,door2,,query        splits: train (where it says nothing), query, gallery, validation_query,
door1/0418.jpg,anna,door1,,gallery      validation_gallery; test is gallery
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reidray.counted import counted
from reidray.data.image_files import in_words, why_not
from reidray.data.left_out import FEW, LeftOut, shown
from reidray.data.named_samples import SPLITS, Row, data_set
from reidray.data.records import Dataset
from reidray.data.table_file import read_table

_NOT_THERE = "file of the list that is not there"


def read(file: str | os.PathLike[str]) -> Dataset:
    """Reads a list; no image is opened.

    Args:
      file: as `reidray.data.table_file.read_table` reads it.

    Returns:
      A data set called "list"; images sorted by name. Names are relative to the list's folder, or, where an image lies
      elsewhere, to the folder that all have in common.

    Raises:
      ValueError: there is no such file, it is no list, lacks the column path, names an unknown split, names an image
        twice, or none of its images is there.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"{file}: expected a CSV or Parquet file with a column path, found none; check data.root.")
    table = read_table(file)
    found = [(line, texts) for line, row in table.rows if (texts := _texts(row))]
    folder = file.parent.absolute()
    places = {line: _place(folder, row["path"]) for line, row in found if row.get("path")}
    if not places:
        raise ValueError(f"{file}: expected images in its column path, got none; check data.root.")
    base = _base(folder, list(places.values()))
    inside = f"{base}/" if str(base) != "/" else "/"
    left_out, rows = LeftOut(), []
    lines: dict[tuple[str, str], int] = {}
    for line, row in found:
        if line not in places:
            raise ValueError(f"{file}, line {line}: expected a path, got none; complete it, or take the line out")
        name, split = places[line][len(inside) :], _split(file, line, row.get("split"))
        before = lines.setdefault((split, name), line)
        if before != line:
            raise ValueError(
                f"{file}, line {line}: expected each image once in a split, got {shown(name)} as in line {before}; "
                "take one out"
            )
        if (reason := why_not(name)) is not None:
            left_out.add(reason, name)
        elif not os.path.isfile(places[line]):  # noqa: PTH113 (a hundred thousand names)
            if table.guessed is not None and not name.isascii():
                raise ValueError(
                    f"{file}, line {line}: expected text in UTF-8, got other bytes, and {shown(name)}, which they "
                    f"are in {table.guessed}, is not there; save the list as UTF-8"
                )
            left_out.add(_NOT_THERE, name)
        else:
            path = Path(places[line])
            rows.append(Row(path, name, split, row.get("person"), row.get("camera"), row.get("tracklet")))
    if not rows:
        raise ValueError(
            f"{file}: expected images, got {counted(len(lines), 'path')} and none that is one (such as "
            f"{in_words([shown(name) for _, name in lines])}); paths are relative to the folder of the list"
        )
    missing = left_out.names().get(_NOT_THERE, ())
    notes = [] if table.guessed is None else [f"{file.name} is not UTF-8: it is read as {table.guessed}"]
    if len(missing) > FEW:
        notes.append(f"caution: {len(missing):,} of {len(lines):,} images are not there, such as {in_words(missing)}")
    return data_set("list", base, rows, left_out, notes)


def _place(folder: Path, path: str) -> str:
    """The place of an image; backslashes are those of Windows, where no file has them in its name."""
    place = os.path.normpath(folder / path)
    if "\\" in path and not os.path.isfile(place):  # noqa: PTH113 (a hundred thousand names)
        return os.path.normpath(folder / path.replace("\\", "/"))
    return place


def _base(folder: Path, places: list[str]) -> Path:
    inside = all(place.startswith(f"{folder}{os.sep}") for place in places)
    return folder if inside else Path(os.path.commonpath([os.path.dirname(place) for place in places]))  # noqa: PTH120


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    """What a row says, without what it leaves empty."""
    found = {name: _text(value) for name, value in row.items()}
    return {name: text for name, text in found.items() if text}


def _text(value: Any) -> str:
    if value is None or value != value:  # a missing number may be a NaN
        return ""
    whole = isinstance(value, float) and value.is_integer()  # whole numbers beside missing ones may be stored so
    return str(int(value) if whole else value).strip()


def _split(file: Path, line: int, split: str | None) -> str:
    name = "train" if split is None else split.lower()
    name = "gallery" if name == "test" else name
    if name not in SPLITS:
        raise ValueError(f"{file}, line {line}: expected a split of {', '.join(SPLITS)}, got {shown(str(split))!r}")
    return name
