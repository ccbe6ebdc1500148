"""Which data set lies in a folder: data.dataset=auto."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from reidray.data import dukemtmc, market1501, msmt17
from reidray.data.cuhk03 import BOXES
from reidray.data.named_folders import MARKET_FOLDERS
from reidray.data.veri776 import LAYOUT as VERI776

_LOOKED_AT = 200  # file names of the training folder


def detect(root: str | os.PathLike[str]) -> tuple[str, str]:
    """The name that data.dataset would take, and what it was known by.

    Raises:
      ValueError: there is no such folder, or it is one level above or below a known data set.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder of images or a data set, but there is none; check data.root.")
    if (root / "list_train.txt").is_file():
        return "msmt17", "it has list_train.txt"
    if all((root / folder).is_dir() for folder in VERI776.folders.values()):
        return "veri776", "it has image_train, image_query and image_test"
    if any((root / name / MARKET_FOLDERS["train"]).is_dir() for name in BOXES):
        return "cuhk03", "it has bounding_box_train in detected or labeled"
    if (root / MARKET_FOLDERS["train"]).is_dir():
        return _of_market_folders(root)
    inner = sorted(path.name for path in root.iterdir() if (path / MARKET_FOLDERS["train"]).is_dir())
    if inner:
        raise ValueError(f"{root}: {inner[0]} in it is a data set; did you mean data.root={root / inner[0]}?")
    return "folder", "it has the folders of no known data set"


def _of_market_folders(root: Path) -> tuple[str, str]:
    with os.scandir(root / MARKET_FOLDERS["train"]) as entries:
        names = [entry.name for entry in islice(entries, _LOOKED_AT)]
    for name in names:
        if dukemtmc.LAYOUT.pattern.fullmatch(name):
            return "dukemtmc", f"it has names like {name}"
        if market1501.LAYOUT.pattern.fullmatch(name):
            return "market1501", f"it has bounding_box_train and names like {name}"
        if msmt17.CONVERTED.pattern.fullmatch(name):
            return "msmt17", f"it has bounding_box_train and two digits for the camera, as in {name}"
    return "market1501", "it has bounding_box_train"
