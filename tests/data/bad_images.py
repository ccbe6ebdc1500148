"""Makes image files as they are found in the wild: odd ones that must be read, and bad ones that must be refused."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(height: int = 24, width: int = 12, *, seed: int = 0) -> np.ndarray:
    """A smooth coloured picture, so that JPEG changes it little."""
    rows = np.linspace(30, 220, height)[:, None]
    columns = np.linspace(30, 220, width)[None, :]
    third = np.full((height, width), (40 + 37 * seed) % 200, dtype=np.float64)
    return np.stack(np.broadcast_arrays(rows, columns, third), axis=2).round().astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    if kind == "JPEG":
        options = {"quality": 95, "subsampling": 0} | options
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(*, seed: int = 0, height: int = 24, width: int = 12) -> bytes:
    return encoded(picture(height, width, seed=seed))


def several(kind: str, count: int = 3) -> bytes:
    """An animated image, or one of several pages, whose first frame is picture(seed=0)."""
    frames = [Image.fromarray(picture(seed=seed)) for seed in range(count)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def truncated_jpeg(share: float = 0.6) -> bytes:
    data = jpeg(height=128, width=64)
    return data[: int(len(data) * share)]


def damaged_png() -> bytes:
    data = bytearray(encoded(picture(64, 64), "PNG"))
    middle = len(data) // 2
    data[middle : middle + 20] = bytes(20)
    return bytes(data)


def text() -> bytes:
    return b"<html><body>404: this picture has moved</body></html>"


def huge_png(height: int = 8000, width: int = 5000) -> bytes:
    """A 40-megapixel image in a few hundred bytes: an honest header, and no pixels worth decoding."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
