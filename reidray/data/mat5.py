"""MATLAB 5 files, as far as tables of numbers and texts need them. The format: MathWorks, "MAT-File Format".

scipy.io.loadmat reads more, but damaged files can end the process in there (a segmentation fault), and this reader may
be given files from anywhere. It takes what it is told about sizes for a claim: nothing is read outside of the bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

MAX_UNPACKED_BYTES = 4 * 2**20
_MAX_DEPTH = 16

# types of what is stored
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15

# classes of what it stands for; numbers are 6 to 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_COMPLEX = 0x800

_Part = tuple[int, memoryview]
"""type and bytes of an element"""


def read(data: bytes) -> dict[str, Any]:
    """Reads the variables of a MATLAB 5 file, compressed or not.

    Args:
      data: the whole file.

    Returns:
      By name: an array of numbers for numbers, in the type in which they are stored; str for a row of characters; an
      array of objects for cells; a dict by field for a 1 x 1 struct; None for everything else (complex and sparse
      numbers, tables of characters, arrays of structs, objects, functions).

    Raises:
      ValueError: what is wrong with the bytes, in a few words.
    """
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data[:10] == b"MATLAB 7.3":
        raise ValueError("it is of MATLAB 7.3, which is HDF5")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or data[124:126] not in (b"\x00\x01", b"\x01\x00"):
        raise ValueError("it does not begin as one")
    content: dict[str, Any] = {}
    room = MAX_UNPACKED_BYTES
    for kind, element in _elements(memoryview(data)[128:], order):
        parts: Iterable[_Part] = [(kind, element)]
        if kind == _COMPRESSED:
            unpacked = _unpacked(element, room)
            room -= len(unpacked)
            parts = _elements(memoryview(unpacked), order)
        for inner_kind, matrix in parts:
            if inner_kind == _MATRIX:
                name, value = _matrix(matrix, order, 0)
                content[name] = value
    return content


def _unpacked(data: memoryview, room: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data, room + 1)
    except zlib.error as error:
        raise ValueError(f"{error}") from error
    if len(unpacked) > room:
        raise ValueError(f"it unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    if not unpacker.eof:
        raise ValueError("it is cut short")
    return unpacked


def _elements(data: memoryview, order: str) -> Iterator[_Part]:
    """Type and bytes of each element: a tag of 8 bytes and what it announces, or up to 4 bytes within the tag."""
    place = 0
    while place < len(data):
        if place + 8 > len(data):
            raise ValueError("it is cut short")
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start = place + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            if size > 4:
                raise ValueError("it holds a small element that is none")
        if start + size > len(data):
            raise ValueError("it is cut short")
        yield kind, data[start : start + size]
        place = start + size if kind == _COMPRESSED else place + 8 * math.ceil((start - place + size) / 8)


def _matrix(data: memoryview, order: str, depth: int) -> tuple[str, Any]:
    """Name and value of an array; see `read`."""
    if depth > _MAX_DEPTH:
        raise ValueError("it holds structs within structs without end")
    parts = list(_elements(data, order))
    if not parts:
        return "", np.empty((0, 0))
    flags = _numbers(parts[0], order)
    if parts[0][0] != _UINT32 or len(flags) != 2:
        raise ValueError("it holds an array without a class")
    kind, is_complex = int(flags[0]) & 0xFF, bool(int(flags[0]) & _COMPLEX)
    if len(parts) < 3 or parts[1][0] != _INT32 or parts[2][0] != _INT8:
        return "", None
    shape = tuple(_numbers(parts[1], order).tolist())
    name, rest = bytes(parts[2][1]).decode("latin-1"), parts[3:]
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError("it holds an array of impossible size")
    if kind == _STRUCT:
        return name, _fields(rest, shape, order, depth)
    if kind == _CELL:
        return name, _cells(rest, shape, order, depth)
    if kind == _CHAR:
        return name, _text(rest, shape, order)
    if 6 <= kind <= 15 and not is_complex:
        return name, _array(rest, shape, order)
    return name, None


def _numbers(part: _Part, order: str) -> np.ndarray:
    kind, data = part
    if kind not in _NUMBERS:
        raise ValueError("it holds numbers of an unknown type")
    stored = np.dtype(f"{order}{_NUMBERS[kind]}")
    if len(data) % stored.itemsize:
        raise ValueError("it holds a part of a number")
    return np.frombuffer(data, stored).astype(stored.newbyteorder("="))


def _array(parts: list[_Part], shape: tuple[int, ...], order: str) -> np.ndarray:
    numbers = _numbers(parts[0], order) if parts else np.empty(0)
    if len(numbers) != math.prod(shape):
        raise ValueError("it holds an array with too few or too many numbers")
    return numbers.reshape(shape, order="F")


def _text(parts: list[_Part], shape: tuple[int, ...], order: str) -> str | None:
    if len(shape) != 2 or shape[0] > 1 or not parts or parts[0][0] not in _TEXTS:
        return None
    kind, data = parts[0]
    coding = _TEXTS[kind]
    if coding in ("utf-16", "utf-32"):
        coding += "-le" if order == "<" else "-be"
    return bytes(data).decode(coding, errors="replace")


def _cells(parts: list[_Part], shape: tuple[int, ...], order: str, depth: int) -> np.ndarray:
    if len(parts) != math.prod(shape):
        raise ValueError("it holds too few or too many cells")
    cells = np.empty(len(parts), object)
    for place, part in enumerate(parts):
        cells[place] = _inner(part, order, depth)
    return cells.reshape(shape, order="F")


def _fields(parts: list[_Part], shape: tuple[int, ...], order: str, depth: int) -> dict[str, Any] | None:
    if shape != (1, 1):
        return None
    if len(parts) < 2 or parts[0][0] != _INT32 or parts[1][0] != _INT8 or len(parts[0][1]) != 4:
        raise ValueError("it holds a struct without names")
    width, names = int(_numbers(parts[0], order)[0]), bytes(parts[1][1])
    values = parts[2:]
    if width < 1 or len(names) != width * len(values):
        raise ValueError("it holds a struct with too few or too many fields")
    words = [names[start : start + width].split(b"\0")[0].decode("latin-1") for start in range(0, len(names), width)]
    return {word: _inner(value, order, depth) for word, value in zip(words, values, strict=True)}


def _inner(part: _Part, order: str, depth: int) -> Any:
    kind, data = part
    if kind != _MATRIX:
        raise ValueError("it holds something other than an array in a cell or field")
    return _matrix(data, order, depth + 1)[1]
