"""Decodes image files from untrusted sources.

Only JPEG, PNG, BMP, WebP, TIFF and GIF are decoded, whatever the file is called. The size is read from the header and
checked before any pixel is decoded. A truncated file is an error, never a half-grey picture. PIL decides which files
are images and which pixels they have; plain JPEGs are decoded without PIL, to the same pixels (`reidray.data.jpeg`).
"""

# H, W = height and width in pixels

from __future__ import annotations

import io
import os
import threading
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from reidray.arrays import Bytes
from reidray.data.foreign_formats import foreign_format
from reidray.data.image_files import not_read
from reidray.data.jpeg import decode_plain

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")

_OF_SEVERAL_FRAMES = ("PNG", "WEBP", "TIFF", "GIF")

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# `catch_warnings` changes a list that all threads share, so headers are read one at a time; pixels are not.
_header_lock = threading.Lock()


def _renew_lock() -> None:
    global _header_lock
    _header_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


class BadImage(ValueError):  # noqa: N818
    """An image that cannot be used; `reason` is the same short text for all images of a kind, to count by."""

    def __init__(self, name: str, reason: str, sentence: str) -> None:
        super().__init__(f"{name}: {sentence}")
        self.name, self.reason, self.sentence = name, reason, sentence

    def __reduce__(self) -> tuple[type[BadImage], tuple[str, str, str]]:
        return BadImage, (self.name, self.reason, self.sentence)


def decode(data: bytes, *, name: str, max_pixels: int) -> Bytes:
    """Decodes an image to RGB, upright (EXIF orientation applied), transparency on black.

    Args:
      data: the bytes of a JPEG, PNG, BMP, WebP, TIFF or GIF file; any colour mode, 8 or 16 bits. Of an animated one, or
        of one with several pages, the first frame counts.
      name: of the image, for error messages.
      max_pixels: largest height times width that is accepted.

    Returns:
      uint8 [H, W, 3], H and W at least 1; its memory is the caller's.

    Raises:
      BadImage: empty, no image, too large, cut short or damaged; one sentence.
    """
    return _decoded(data, name, max_pixels, frames=False)[0]


def decode_first_frame(data: bytes, *, name: str, max_pixels: int) -> tuple[Bytes, bool]:
    """As `decode`, and whether the file has more frames or pages than the first."""
    return _decoded(data, name, max_pixels, frames=True)


def _decoded(data: bytes, name: str, max_pixels: int, *, frames: bool) -> tuple[Bytes, bool]:
    pixels_HW3 = decode_plain(data, max_pixels=max_pixels)
    if pixels_HW3 is not None:
        return pixels_HW3, False
    try:
        with _open(data, name, max_pixels) as image:
            image.load()
            upright = _orientation(image)
            colours = _rgb(image)
            if upright is not None:
                colours = colours.transpose(upright)
            return np.array(colours, dtype=np.uint8), frames and _has_more(image)
    except BadImage:
        raise
    except Exception as error:  # a decoder may raise anything on invalid bytes
        raise _damaged(name, error) from error


def _has_more(image: Image.Image) -> bool:
    """Whether there is a second frame or page; where that is damaged, there is none that could be used."""
    if image.format not in _OF_SEVERAL_FRAMES:
        return False
    try:
        with _header_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.seek(1)
    except Exception:
        return False
    return True


def decode_mask(data: bytes, *, name: str, max_pixels: int) -> Bytes:
    """Decodes a picture whose values are part numbers (one 8-bit channel, or a palette's indices).

    Args:
      data: the bytes of the file.
      name: of the mask, for error messages.
      max_pixels: largest height times width that is accepted.

    Returns:
      uint8 [H, W].

    Raises:
      BadImage: as `decode`, or more than one channel.
    """
    try:
        with _open(data, name, max_pixels) as image:
            if image.mode not in ("L", "P", "1"):
                raise BadImage(name, "not a mask", f"expected a mask with one 8-bit channel, got mode {image.mode}.")
            return np.array(image, dtype=np.uint8)
    except BadImage:
        raise
    except Exception as error:
        raise _damaged(name, error) from error


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    if not data:
        raise BadImage(name, "empty file", "expected an image, got an empty file; fetch it again or leave it out.")
    try:
        with _header_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(name, "far more", max_pixels) from error
    except UnidentifiedImageError as error:
        kind = foreign_format(data)
        raise BadImage(
            name,
            "not an image" if kind is None else not_read(kind),
            f"expected a JPEG, PNG, BMP, WebP, TIFF or GIF image, got {kind or 'something else'} ({len(data)} bytes); "
            "convert it or leave it out.",
        ) from error
    width, height = image.size
    if not width * height:
        raise _damaged(name, ValueError("it has no pixels"))
    if width * height > max_pixels:
        raise _too_large(name, f"{width} x {height}", max_pixels)
    return image


def _too_large(name: str, got: str, max_pixels: int) -> BadImage:
    return BadImage(
        name,
        "too many pixels",
        f"expected at most {max_pixels} pixels, got {got}; shrink it or raise data.max_megapixels.",
    )


def _damaged(name: str, error: Exception) -> BadImage:
    return BadImage(
        name,
        "cut short or damaged",
        f"expected a whole image, got one that is cut short or damaged ({error}); fetch it again or leave it out.",
    )


def _orientation(image: Image.Image) -> Image.Transpose | None:
    if image.format == "JPEG" and "exif" not in image.info:
        return None
    try:
        with _header_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block does not make the picture unusable
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bits of grey; PIL's own conversion clips instead of scaling
        grey_HW = np.clip(np.asarray(image, dtype=np.int64), 0, 65535) >> 8
        return Image.fromarray(grey_HW.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        black = Image.new("RGBA", opaque.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, opaque).convert("RGB")
    return image.convert("RGB")
