"""What the cameras of a packed split are called."""

from __future__ import annotations

import json
from collections.abc import Sequence

from reidray.storage.cache import open_folder
from reidray.storage.destination import DATASET


def camera_names(place: str, numbers: Sequence[int]) -> list[str | None]:
    """The names of cameras of a packed split.

    Args:
      place: of the split, a folder or a URL. Where its data set cannot be read, its cameras have no names.
      numbers: of cameras, from 0; -1 unknown.

    Returns:
      For each number the camera's name; where cameras have no names, the number counted from 1. None for -1.
    """
    try:
        described = json.loads(open_folder(place.rstrip("/").rpartition("/")[0], None).read(DATASET) or b"{}")
        names = [str(name) for name in described.get("cameras", ())]
    except (OSError, ValueError):
        names = []
    return [None if number < 0 else names[number] if number < len(names) else str(number + 1) for number in numbers]
