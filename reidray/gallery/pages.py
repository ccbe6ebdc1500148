"""Embeddings of a Parquet file, as they lie in it.

A reader of Parquet takes lists apart and puts them together again, element by element. Where a row group's embeddings
are one page, not compressed and without nulls, which is how `reidray.gallery.file` writes them, the numbers lie in the
file one after another, and the page's header says so. Then they are taken from there, at the speed of memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_HEADER_BYTES = 64
_DATA_PAGE, _PLAIN = 0, 0  # parquet.thrift: PageType, Encoding
_I32, _STRUCT = 5, 12  # types of Thrift's compact protocol


@dataclass(frozen=True)
class Place:
    """Where the embeddings of a row group lie: `rows` rows of float32 from the byte `start` on."""

    start: int
    rows: int


def place_of(group: Any, leaf: str, width: int, data: memoryview) -> Place | None:
    """Where the embeddings of a row group lie, or None where they do not lie together.

    Args:
      group: the row group's metadata.
      leaf: path of the column in the schema.
      width: numbers of an embedding.
      data: the whole file.
    """
    columns = [group.column(number) for number in range(group.num_columns)]
    found = [column for column in columns if column.path_in_schema == leaf]
    values = group.num_rows * width
    if len(found) != 1 or values == 0:
        return None
    column = found[0]
    if column.physical_type != "FLOAT" or column.compression != "UNCOMPRESSED" or column.has_dictionary_page:
        return None
    end = column.data_page_offset + column.total_compressed_size
    if not 0 < column.data_page_offset < end <= len(data):
        return None
    header = _page_header(bytes(data[column.data_page_offset : column.data_page_offset + _HEADER_BYTES]))
    if header != (_DATA_PAGE, values, _PLAIN) or column.num_values != values:
        return None
    return Place(end - 4 * values, group.num_rows)


def _page_header(data: bytes) -> tuple[int, int, int] | None:
    """Of a header in Thrift's compact protocol: the page's type, its number of values, and their encoding."""
    try:
        kind, place = _integer(data, 0, _I32, 1)
        for _ in ("uncompressed_page_size", "compressed_page_size"):
            _, place = _integer(data, place, _I32, 1)
        # data_page_header is field 5; a checksum, field 4, is not written
        if data[place] != (2 << 4 | _STRUCT):
            return None
        values, place = _integer(data, place + 1, _I32, 1)
        encoding, _ = _integer(data, place, _I32, 1)
    except (IndexError, ValueError):
        return None
    return kind, values, encoding


def _integer(data: bytes, place: int, kind: int, step: int) -> tuple[int, int]:
    """A field's number, and the place behind it."""
    if data[place] != (step << 4 | kind):
        raise ValueError("another field")
    number = shift = 0
    while True:
        place += 1
        number |= (data[place] & 0x7F) << shift
        shift += 7
        if data[place] < 0x80:
            return number >> 1 ^ -(number & 1), place + 1
