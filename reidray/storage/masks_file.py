"""True part masks of a packed split, for figures alone: masks.safetensors, one tensor [N, H, W] of all images.

Masks may be many times larger than the images themselves, so they are written one by one, and read where they lie.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from reidray.arrays import Bytes
from reidray.data.decode import decode_mask
from reidray.data.records import ImageRecord
from reidray.disk import disk_errors
from reidray.storage import index as indexing
from reidray.storage.cache import LocalFolder, open_folder

_NAME = "masks"
_ALIGNMENT = 8  # of the data, by the format


def write_masks(folder: Path, root: Path, kept: Sequence[ImageRecord], *, max_pixels: int) -> None:
    """Writes the masks of a split, where every image has one.

    Args:
      folder: of the packed split.
      root: of the data set; the mask of an image <name> is masks/<name>, as PNG.
      kept: the images, in the order of the split.
      max_pixels: larger masks are refused.

    Raises:
      ValueError: a mask that cannot be read, or that has another size than the first.
    """

    def path_of(record: ImageRecord) -> Path:  # made when they are needed: a path takes more memory than its record
        return root / "masks" / PurePosixPath(record.name).with_suffix(".png")

    if not kept or not all(path_of(record).is_file() for record in kept):
        return
    shape = _mask(path_of(kept[0]), max_pixels).shape
    size = len(kept) * shape[0] * shape[1]
    described = {_NAME: {"dtype": "U8", "shape": [len(kept), *shape], "data_offsets": [0, size]}}
    header = json.dumps(described).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    with disk_errors(), (folder / indexing.MASKS).open("xb", buffering=2**20) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for path in map(path_of, kept):
            mask_HW = _mask(path, max_pixels)
            if mask_HW.shape != shape:
                raise ValueError(f"{path}: expected a mask of {shape} as the first, got {mask_HW.shape}; redraw them.")
            file.write(mask_HW.tobytes())


def _mask(path: Path, max_pixels: int) -> Bytes:
    return decode_mask(path.read_bytes(), name=str(path), max_pixels=max_pixels)


def read_masks(folder: str | os.PathLike[str]) -> Bytes | None:
    """The true part masks of a packed split; for evaluation only.

    Args:
      folder: <packed>/<split>, path or URL.

    Returns:
      uint8 [N, H, W] in the order of the images, or None when there are none. Those of a folder of this machine are
      mapped, not read: they take memory where they are looked at.

    Raises:
      ValueError: the file is damaged or holds another number of masks.
    """
    from safetensors import SafetensorError

    place = open_folder(folder, None)
    shown = f"{place.shown}/{indexing.MASKS}"
    try:
        masks = _mapped(place.folder / indexing.MASKS) if isinstance(place, LocalFolder) else _copied(place)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{shown}: expected masks, got a damaged file ({error}); {indexing.PACK_AGAIN}.") from error
    if masks is None:
        return None
    count = sum(shard.count for shard in indexing.parse_split(place.read(indexing.SPLIT), folder=place.shown))
    if masks.dtype != np.uint8 or masks.ndim != 3 or len(masks) != count:
        raise ValueError(
            f"{shown}: expected {count} masks of uint8, got {masks.dtype} {masks.shape}; {indexing.PACK_AGAIN}."
        )
    return masks


def _mapped(path: Path) -> Any:
    from safetensors import safe_open

    if not path.is_file():
        return None
    with safe_open(path, framework="np") as tensors:  # which looks at the header, and at the size of the file
        part = tensors.get_slice(_NAME)
        shape = part.get_shape()
        if 0 in shape:
            return np.empty(shape, np.uint8)
        if part.get_dtype() != "U8":
            return part[:]
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        start = json.loads(file.read(length))[_NAME]["data_offsets"][0]
    return np.memmap(path, np.uint8, "r", offset=8 + length + start, shape=tuple(shape))


def _copied(place: Any) -> Any:
    from safetensors.numpy import load

    data = place.read(indexing.MASKS)
    return None if data is None else load(data)[_NAME]
