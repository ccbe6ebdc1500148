"""The rows of a list of images: CSV in the forms that programs write, or Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reidray.counted import counted
from reidray.data.image_files import why_not
from reidray.data.left_out import shown

COLUMNS = ("path", "person", "camera", "tracklet", "split")

_PARQUET = b"PAR1"
_DELIMITERS = (",", ";", "\t", "|")
_TOLD = re.compile(r"sep=([,;\t|])[,;\t|]*\s*", re.IGNORECASE)
_BEGINNING = 1 << 16  # bytes by which a file without a telling name is known
_GUESS = "Windows-1252"


@dataclass(frozen=True)
class Table:
    """The rows of a list.

    Attributes:
      rows: the line of each, from 1 (of Parquet the row), and what it says in the columns that are read.
      guessed: the encoding that a CSV file is taken to be in; None where it tells it.
    """

    rows: Sequence[tuple[int, Mapping[str, Any]]]
    guessed: str | None = None


def read_table(file: Path) -> Table:
    """Reads a list of images.

    Args:
      file: Parquet; or CSV with comma, semicolon, tab or bar, in UTF-8, in UTF-16 with its mark, or in Windows-1252.
        Its first line names the columns, in any case; without names there is one column, of paths. Blank lines do not
        count, nor blank cells behind the last column, nor a first line such as sep=; that tells Excel the delimiter.

    Raises:
      ValueError: it is no such file, or lacks the column path.
    """
    with file.open("rb") as stream:
        data = stream.read(len(_PARQUET))
        if data == _PARQUET:
            return Table(_parquet(file))
        return _csv(file, data + stream.read())


def is_list(file: Path) -> bool:
    """Whether a file is a list with a column path, as far as its beginning tells."""
    try:
        with file.open("rb") as stream:
            data = stream.read(_BEGINNING)
        if data.startswith(_PARQUET):
            return bool(_parquet(file))
        if len(data) == _BEGINNING:  # whole lines, and whole characters of UTF-16
            end = data.rfind(b"\n") + 1
            data = data[: end - end % 2]
        return bool(_csv(file, data).rows)
    except (ValueError, OSError):
        return False


def _parquet(file: Path) -> list[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        written = pq.read_schema(file).names
        names = [name.strip().lower() for name in written]
        _check_columns(file, names)
        kept = {name: own for name, own in zip(names, written, strict=True) if name in COLUMNS}
        table = pq.read_table(file, columns=list(kept.values()))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: expected a whole Parquet file, got a damaged one ({error})") from error
    rows = (row for batch in table.to_batches() for row in batch.to_pylist())
    return [(line, {name: row[own] for name, own in kept.items()}) for line, row in enumerate(rows, start=1)]


def _csv(file: Path, data: bytes) -> Table:
    text, guessed = _decoded(file, data)
    first = next((line for line in text[:_BEGINNING].splitlines() if line.strip()), "")
    told = _TOLD.fullmatch(first)
    delimiter = told[1] if told else max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, Mapping[str, Any]]] = []
    names: list[str] | None = None
    try:
        for row in reader:
            cells = len(row)
            while cells and not row[cells - 1].strip():  # spreadsheets write as many cells as the widest row has
                cells -= 1
            if not cells or (told and names is None and row[0].lower() == "sep="):
                continue
            if names is None:
                names, is_data = _names(file, reader.line_num, row)
                if not is_data:
                    continue
            if cells > len(names):
                raise ValueError(
                    f"{file}, line {reader.line_num}: expected {counted(len(names), 'column')}, got {cells:,}; put "
                    "a path with commas in quotes"
                )
            values = zip(names, row, strict=False)
            rows.append((reader.line_num, {name: value for name, value in values if name in COLUMNS}))
    except csv.Error as error:
        raise ValueError(
            f"{file}, line {reader.line_num}: expected a row of a CSV file, got something else ({error}); check the "
            "quotes there, or data.root"
        ) from error
    if names is None:
        _check_columns(file, [])
    return Table(rows, guessed)


def _names(file: Path, line: int, row: Sequence[str]) -> tuple[list[str], bool]:
    """The names of the columns, and whether the first row is one of data already."""
    names = [name.strip().lower() for name in row]
    if "path" not in names and any(why_not(value.strip()) is None for value in row):
        if not any(names[1:]):
            return ["path"], True
        got = ", ".join(shown(value)[:40] for value in row[:8])
        raise ValueError(
            f"{file}, line {line}: expected the names of the columns ({', '.join(COLUMNS)}; only path is needed), got "
            f"data ({got}); write them in a first line"
        )
    _check_columns(file, names)
    return names, False


def _decoded(file: Path, data: bytes) -> tuple[str, str | None]:
    """The text of a CSV file, and the encoding where it had to be guessed."""
    for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        if data.startswith(mark):
            try:
                return data.decode("utf-16"), None
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{file}: expected UTF-16, as its first bytes say, got something else ({error}); save the list as "
                    "UTF-8"
                ) from error
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise ValueError(
            f"{file}, line {line}: expected text in UTF-8, got a zero byte (UTF-16 without its mark, or no text); save "
            "the list as UTF-8, or check data.root"
        )
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        try:
            return data.decode("cp1252"), _GUESS
        except UnicodeDecodeError:
            raise ValueError(
                f"{file}, line {line}: expected text in UTF-8, got the byte 0x{data[error.start]:02x}; save the list "
                "as UTF-8"
            ) from error


def _check_columns(file: Path, names: Sequence[str]) -> None:
    named = [name for name in names if name]
    if named.count("path") != 1 or len(set(named)) != len(named):
        got = ", ".join(shown(name)[:40] for name in names[:8]) or "nothing"
        raise ValueError(
            f"{file}: expected a list of images with the columns {', '.join(COLUMNS)}, of which only path is needed, "
            f"got {got}; name the columns in the first line"
        )
