"""Any folder of crops, searched recursively: no identities, no cameras."""

from __future__ import annotations

import os
from pathlib import Path

from reidray.data.image_files import EXTENSIONS, in_words, walk
from reidray.data.left_out import LeftOut
from reidray.data.records import Dataset, ImageRecord, Split


def read(root: str | os.PathLike[str]) -> Dataset:
    """Lists the image files under a folder; no image is opened.

    Hidden files and folders (a leading dot), links to folders, and files that are no images are counted by reason.

    Args:
      root: the folder to search, at any depth.

    Returns:
      One split, "train", sorted by name, cameras -1 and persons None.

    Raises:
      ValueError: there is no such folder, or it holds no image.
    """
    root = Path(root)
    if not root.exists():
        raise ValueError(f"{root}: expected a folder of images, but nothing is there; check data.root.")
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder of images, got a file; check data.root.")
    left_out = LeftOut()
    names = sorted(walk(root, left_out))
    if not names:
        others = [name for found in left_out.names().values() for name in found]
        such = f" (such as {in_words(others)})" if others else ""
        raise ValueError(
            f"{root}: expected images ({', '.join(EXTENSIONS)}) at any depth, got {len(left_out)} other files{such}; "
            f"check data.root."
        )
    images = tuple(ImageRecord(root / name, name, -1) for name in names)
    return Dataset("folder", root, {"train": Split("train", images, None)}, left_out.counts(), left_out.names())
