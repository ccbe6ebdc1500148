"""Any folder of crops, searched recursively: no identities, no cameras."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from reidray.data.records import Dataset, ImageRecord, Split

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would execute them in a printed name

EXTENSIONS = ("jpg", "jpeg", "png", "bmp", "webp")


def read(root: str | os.PathLike[str]) -> Dataset:
    """Lists the image files under a folder; no image is opened.

    Hidden files and folders (a leading dot) are passed over; other files that are no images are counted by reason.
    Links to folders are not followed.

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
    ignored: Counter[str] = Counter()
    images = []
    for where, folders, files in os.walk(root):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        ignored["link to a folder, not followed"] += sum((Path(where) / folder).is_symlink() for folder in folders)
        for file in files:
            if file.startswith("."):
                continue
            path = Path(where) / file
            reason = _why_not(path, root)
            if reason is None:
                images.append(ImageRecord(path, path.relative_to(root).as_posix(), -1))
            else:
                ignored[reason] += 1
    if not images:
        raise ValueError(
            f"{root}: expected images ({', '.join(EXTENSIONS)}) at any depth, got {sum(ignored.values())} other files; "
            f"check data.root."
        )
    images.sort(key=lambda image: image.name)
    reasons = {reason: count for reason, count in sorted(ignored.items()) if count}
    return Dataset("folder", root, {"train": Split("train", tuple(images), None)}, reasons)


def _why_not(path: Path, root: Path) -> str | None:
    if path.suffix[1:].lower() not in EXTENSIONS:
        return "not an image"
    if not path.is_file():
        return "not a file"
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "name is not UTF-8"
    if _CONTROL.search(str(path.relative_to(root))):
        return "name has control characters"
    return None
