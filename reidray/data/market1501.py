"""Market-1501 (Zheng et al., ICCV 2015) and data sets drawn or repacked in its layout.

    root/bounding_box_train/0002_c1s1_000451_03.jpg      person 2, camera 1, sequence 1, frame 451, box 3
    root/query/...
    root/bounding_box_test/-1_c3s1_000000_00.jpg         person -1: junk;  person 0: distractor

    root/market_attribute.mat                            what was noted of the persons: optional; or duke_attribute.mat,
                                                         or the attributes.json of drawn pedestrians

`validation_query` and `validation_gallery` are read as splits of those names when both exist. Names without a sequence
(`0001_c2_f0046182.jpg`, as in DukeMTMC-reID), with any number of digits (`0001_c001_00016450_0.jpg`, as in VeRi-776),
with other words behind (`0002_c1s1_000451_03 (81).jpg`) and of any kind of image that is read are accepted too.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from reidray.data.attributes import attributes_beside
from reidray.data.named_folders import MARKET_FOLDERS, NamedFolders, image_name
from reidray.data.records import Dataset

LAYOUT = NamedFolders(
    dataset="market1501",
    folders=MARKET_FOLDERS,
    pattern=image_name(r"-1|\d{1,9}"),
    example="0002_c1s1_000451_03.jpg",
    has_junk=True,
    optional={"validation_query": "validation_query", "validation_gallery": "validation_gallery"},
)


def read(root: str | os.PathLike[str], layout: NamedFolders = LAYOUT) -> Dataset:
    """Lists the images of a folder in Market-1501's layout; no image is opened.

    Junk (person -1) is dropped and counted, as the official evaluation ignores it; distractors (person 0) stay in the
    gallery. Market-1501 has no person 0 elsewhere. Where another data set has, 0 is a person in that split (and in the
    gallery of a query that shows it), one is added to all persons there, and a note says so. Files with other names are
    left out and counted by reason. The train split gets the attributes of its persons where a file of them lies in the
    root (reidray/data/attributes.py).

    Args:
      root: the folder that holds bounding_box_train, query and bounding_box_test.
      layout: of the data set.

    Returns:
      Splits sorted by name; cameras 0-based.

    Raises:
      ValueError: the root or one of the three folders is missing, a folder has no image of the expected name, or the
        file of attributes cannot be used.
    """
    root = Path(root)
    dataset = layout.read(root)
    train = dataset.splits["train"]
    assert train.persons is not None
    persons = [layout.person(image.path.name) for image in train.images]  # the file counts as the names do
    attributes = attributes_beside(root, persons, split="train")
    return replace(dataset, splits={**dataset.splits, "train": replace(train, attributes=attributes)})
