"""What a file that is no image of a format that is read seems to be, by its first bytes."""

from __future__ import annotations

_BEGINNINGS = (
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "archive"),
    (b"\x1f\x8b", "archive"),
    (b"\x93NUMPY", "NumPy array"),
    (b"\x1aE\xdf\xa3", "video"),
    (b"v/1\x01", "EXR"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}


def foreign_format(data: bytes) -> str | None:
    """The name of a format of images, videos, documents or archives that is not read; None where it is none of these.

    Args:
      data: the bytes of any file.
    """
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "video")
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "video"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "PPM"
    if data.lstrip()[:4] == b"<svg" or (data.lstrip()[:5] == b"<?xml" and b"<svg" in data[:1000]):
        return "SVG"
    return next((kind for beginning, kind in _BEGINNINGS if data.startswith(beginning)), None)
