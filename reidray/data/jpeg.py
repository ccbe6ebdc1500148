"""Decodes plain JPEG files with libjpeg-turbo directly: twice as fast as PIL, where simplejpeg is installed.

PIL decodes with libjpeg-turbo as well (where it does not, nothing is decoded here), with the same arithmetic: the
pixels are equal. Files that are not plain, and all for which the library warns, are left to PIL, which decides what a
damaged file is.
"""

# H, W = height and width in pixels

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import features

from reidray.arrays import Bytes

try:
    from simplejpeg import decode_jpeg
except ImportError:
    decode_jpeg = None

_COMMENT, _JFIF, _QUANTISATION, _HUFFMAN, _RESTART, _FRAME, _SCAN = 0xFE, 0xE0, 0xDB, 0xC4, 0xDD, 0xC0, 0xDA
_SAMPLINGS = (b"\x11", b"\x11\x11\x11", b"\x21\x11\x11", b"\x22\x11\x11")  # grey, 4:4:4, 4:2:2, 4:2:0
_MOST_PIXELS = 2**24  # PIL has limits of its own, above this

_decode: Callable[..., Any] | None = decode_jpeg if features.check_feature("libjpeg_turbo") else None


def decode_plain(data: bytes, *, max_pixels: int) -> Bytes | None:
    """Decodes a plain JPEG file.

    Args:
      data: the bytes of any file.
      max_pixels: largest height times width that is decoded.

    Returns:
      uint8 [H, W, 3], the pixels that PIL gives; None where PIL must be asked.
    """
    if _decode is None or not is_plain(data, max_pixels=min(max_pixels, _MOST_PIXELS)):
        return None
    try:
        pixels_HW3: Bytes = _decode(data, "RGB", strict=True)
    except Exception:  # a warning counts: PIL decides whether the file is damaged or only unusual
        return None
    return pixels_HW3


def is_plain(data: bytes, *, max_pixels: int) -> bool:
    """Whether the header is that of a grey or colour picture of 8 bits in one baseline scan, with nothing beside it.

    A file with EXIF (which may turn the picture), a colour profile, an Adobe marker, progressive scans, or an unusual
    table or length is not plain.
    """
    try:
        return data[:2] == b"\xff\xd8" and _leads_to_one_scan(data, max_pixels)
    except IndexError:
        return False


def _leads_to_one_scan(data: bytes, max_pixels: int) -> bool:
    place, components = 2, 0
    while data[place] == 0xFF:
        kind, size = data[place + 1], data[place + 2] << 8 | data[place + 3]
        start, place = place + 4, place + 2 + size
        if size < 2 or place > len(data):
            return False
        if kind == _FRAME:
            height, width = data[start + 1] << 8 | data[start + 2], data[start + 3] << 8 | data[start + 4]
            if components or data[start] != 8 or not 0 < height * width <= max_pixels:
                return False
            components = data[start + 5]
            if size != 8 + 3 * components or data[start + 7 : place : 3] not in _SAMPLINGS:
                return False
        elif kind == _QUANTISATION:
            if (size - 2) % 65 or any(data[table] > 3 for table in range(start, place, 65)):
                return False
        elif kind == _JFIF:
            if size != 16 or data[start : start + 5] != b"JFIF\x00":
                return False
        elif kind == _SCAN:
            return components > 0 and data[start] == components and size == 6 + 2 * components
        elif kind not in (_HUFFMAN, _RESTART, _COMMENT):
            return False
    return False
