"""CUHK03 in its new protocol (Zhong et al., CVPR 2017), as released (`cuhk03_release`) or as folders of crops:

    root/detected/bounding_box_train/0001_c1_1.png   boxes of a detector; root/labeled/... boxes drawn by hand
    root/detected/query/..., root/detected/bounding_box_test/...

A folder that holds bounding_box_train itself is read as it is. Detected: 7,365 images of 767 persons, 1,400 queries of
700, a gallery of 5,332; labeled: 7,368, 1,400 and 5,328.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from reidray.data import cuhk03_release, market1501
from reidray.data.named_folders import image_name
from reidray.data.records import Dataset

BOXES = ("detected", "labeled")
LAYOUT = replace(
    market1501.LAYOUT,
    dataset="cuhk03",
    pattern=image_name(),
    example="0001_c1_1.png",
)


def read(root: str | os.PathLike[str], boxes: str) -> Dataset:
    """Lists the images.

    Args:
      root: of the data set.
      boxes: "detected" or "labeled", where the root has both.

    Raises:
      ValueError: as `NamedFolders.read` and `cuhk03_release.read`, or there is cuhk-03.mat without the protocol's file.
    """
    root = Path(root)
    there = [name for name in BOXES if (root / name).is_dir()]
    if there and boxes not in there:
        raise ValueError(f"{root} has no folder {boxes}, but {there[0]}: set data.cuhk03_boxes={there[0]}")
    if there:
        return LAYOUT.read(root / boxes)
    if cuhk03_release.config_file(root, boxes).is_file():
        return cuhk03_release.read(root, boxes)
    other = next((name for name in BOXES if cuhk03_release.config_file(root, name).is_file()), None)
    if other is not None:
        raise ValueError(f"{root} has the new protocol of {other} boxes alone: set data.cuhk03_boxes={other}")
    if not (root / "bounding_box_train").is_dir() and cuhk03_release.pictures_file(root) is not None:
        raise ValueError(
            f"{root} has cuhk-03.mat, but not {cuhk03_release.config_file(root, boxes).name}: put the file of the new "
            "protocol (person-re-ranking on GitHub, evaluation/data/CUHK03) beside it"
        )
    return LAYOUT.read(root)
