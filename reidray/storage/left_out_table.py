"""The names of all files that a pack leaves out, and why: left_out.parquet, a row a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reidray.data.left_out import shown
from reidray.storage.cache import open_folder
from reidray.storage.destination import LEFT_OUT
from reidray.storage.index import PACK_AGAIN

_SCHEMA = pa.schema([("name", pa.string()), ("reason", pa.string())])


def write_left_out(folder: Path, parts: Iterable[Mapping[str, Sequence[str]]]) -> None:
    """Writes the table; nothing where nothing was left out.

    Args:
      folder: of the pack.
      parts: names by reason.
    """
    rows = sorted((shown(name), reason) for part in parts for reason, names in part.items() for name in names)
    if rows:
        names, reasons = zip(*rows, strict=True)
        pq.write_table(pa.table([pa.array(names), pa.array(reasons)], schema=_SCHEMA), folder / LEFT_OUT)


def read_left_out(packed: str) -> Iterator[tuple[str, str]]:
    """The files that a pack leaves out, by name.

    Args:
      packed: folder or URL of the pack.

    Yields:
      Name, relative to the root of the data, and reason; both may be printed.

    Raises:
      ValueError: the table is damaged.
    """
    data = open_folder(packed, None).read(LEFT_OUT)
    if data is None:
        return
    try:
        table = pq.read_table(pa.BufferReader(data), schema=_SCHEMA, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{packed}/{LEFT_OUT}: expected names and reasons, got a damaged file ({error}); {PACK_AGAIN}."
        ) from error
    for name, reason in zip(table["name"].to_pylist(), table["reason"].to_pylist(), strict=True):
        yield shown(name), shown(reason)
