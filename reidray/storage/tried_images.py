"""Image files are read once and tried: those that can be decoded, and why the others cannot be used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from reidray.data.decode import BadImage, decode_first_frame
from reidray.data.image_files import EXTENSIONS, why_not
from reidray.data.records import ImageRecord

_THREADS = 4


@dataclass(frozen=True)
class TriedImage:
    """The bytes of a file that is an image, its size in pixels, and whether it has more frames or pages than one."""

    data: bytes
    height: int
    width: int
    has_more: bool


def tried_images(images: Sequence[ImageRecord], *, max_pixels: int, max_bytes: int) -> Iterator[TriedImage | BadImage]:
    """Reads and tries images on a few threads, a few ahead, in order.

    Args:
      images: to be read.
      max_pixels: images with more cannot be used.
      max_bytes: nor can files with more.
    """
    waiting: deque[Future[TriedImage | BadImage]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        try:
            for record in images:
                waiting.append(threads.submit(_tried, record, max_pixels, max_bytes))
                if len(waiting) >= 8 * _THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _tried(record: ImageRecord, max_pixels: int, max_bytes: int) -> TriedImage | BadImage:
    if (reason := why_not(record.name)) is not None:
        return BadImage(record.name, reason, f"expected one of {', '.join(EXTENSIONS)}.")
    try:
        size = record.path.stat().st_size
        if size > max_bytes:
            return BadImage(record.name, "file too large", f"expected at most {max_bytes} bytes, got {size}.")
        data = record.path.read_bytes()
        pixels_HW3, has_more = decode_first_frame(data, name=record.name, max_pixels=max_pixels)
    except BadImage as bad:
        return bad
    except OSError as error:
        return BadImage(record.name, "cannot be read", f"expected a readable file, got {error}.")
    height, width, _ = pixels_HW3.shape
    return TriedImage(data, height, width, has_more)
