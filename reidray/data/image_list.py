"""A list of images as a data set: a CSV or Parquet file with the column path, and as many of the others as are known.

path,person,camera,tracklet,split
door1/0001.jpg,anna,door1,,train        paths are relative to the list's folder, or absolute
door2/0417.jpg,anna,door2,,query        splits: train (where it says nothing), query, gallery, validation_query,
door1/0418.jpg,anna,door1,,gallery      validation_gallery; test is gallery
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reidray.data.image_files import in_words, why_not
from reidray.data.left_out import FEW, LeftOut, shown
from reidray.data.named_samples import SPLITS, Row, data_set
from reidray.data.records import Dataset

COLUMNS = ("path", "person", "camera", "tracklet", "split")

_NOT_THERE = "file of the list that is not there"
_PARQUET = b"PAR1"
_DELIMITERS = (",", ";", "\t")


def read(file: str | os.PathLike[str]) -> Dataset:
    """Reads a list; no image is opened.

    Args:
      file: CSV (UTF-8, with the names of its columns in the first line; comma, semicolon or tab) or Parquet.

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
    found = [(line, _texts(row)) for line, row in _table(file)]
    places = {line: os.path.normpath(file.parent.absolute() / row["path"]) for line, row in found if row.get("path")}
    if not places:
        raise ValueError(f"{file}: expected images in its column path, got none; check data.root.")
    base = _base(file.parent.absolute(), list(places.values()))
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
            left_out.add(_NOT_THERE, name)
        else:
            path = Path(places[line])
            rows.append(Row(path, name, split, row.get("person"), row.get("camera"), row.get("tracklet")))
    if not rows:
        raise ValueError(
            f"{file}: expected images, got {len(lines):,} paths and none that is one (such as "
            f"{in_words([shown(name) for _, name in lines])}); paths are relative to the folder of the list"
        )
    missing = left_out.names().get(_NOT_THERE, ())
    notes = []
    if len(missing) > FEW:
        notes.append(f"caution: {len(missing):,} of {len(lines):,} images are not there, such as {in_words(missing)}")
    return data_set("list", base, rows, left_out, notes)


def is_list(file: Path) -> bool:
    """Whether a file is a list with a column path, as far as its beginning tells."""
    try:
        return next(_table(file), None) is not None
    except (ValueError, OSError):
        return False


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
    name = {None: "train", "test": "gallery"}.get(split, split)
    if name not in SPLITS:
        raise ValueError(f"{file}, line {line}: expected a split of {', '.join(SPLITS)}, got {shown(str(split))!r}")
    return name


def _table(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a list with the columns that are read, and their lines from 1."""
    with file.open("rb") as stream:
        is_parquet = stream.read(4) == _PARQUET
    yield from _parquet(file) if is_parquet else _csv(file)


def _parquet(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(file).names
        _check_columns(file, names)
        table = pq.read_table(file, columns=[name for name in names if name in COLUMNS])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: expected a whole Parquet file, got a damaged one ({error})") from error
    rows = (row for batch in table.to_batches() for row in batch.to_pylist())
    yield from enumerate(rows, start=1)


def _csv(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=max(_DELIMITERS, key=first.count), strict=True)
            names = [name.strip().lower() for name in reader.fieldnames or []]
            _check_columns(file, names)
            reader.fieldnames = names
            for row in reader:
                if None in row:
                    raise ValueError(
                        f"{file}, line {reader.line_num}: expected {len(names)} columns, got more; put a path with "
                        "commas in quotes"
                    )
                yield reader.line_num, {name: row[name] for name in names if name in COLUMNS}
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file}: expected a CSV file in UTF-8, got something else ({error}); check data.root"
        ) from error


def _check_columns(file: Path, names: list[str]) -> None:
    if names.count("path") != 1 or len(set(names)) != len(names):
        got = ", ".join(shown(name)[:40] for name in names[:8]) or "nothing"
        raise ValueError(
            f"{file}: expected a list of images with the columns {', '.join(COLUMNS)}, of which only path is needed, "
            f"got {got}; name the columns in the first line"
        )
