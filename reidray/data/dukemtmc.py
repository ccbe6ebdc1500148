"""DukeMTMC-reID (Zheng et al., ICCV 2017), in Market-1501's folders.

    root/bounding_box_train/0001_c2_f0046182.jpg     person 1, camera 2, frame 46182
    root/query/..., root/bounding_box_test/...       distractors have numbers of their own; there is no junk
    root/duke_attribute.mat                          optional

16,522 images of 702 persons, 2,228 queries of 702, and a gallery of 17,661 with 408 persons more.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace

from reidray.data import market1501
from reidray.data.records import Dataset

NAME = re.compile(r"(-1|\d{1,9})_c[1-9]\d*_f\d+\..*", re.IGNORECASE | re.ASCII)  # as no other data set has

LAYOUT = replace(
    market1501.LAYOUT,
    dataset="dukemtmc",
    example="0001_c2_f0046182.jpg",
)


def read(root: str | os.PathLike[str]) -> Dataset:
    """As `reidray.data.market1501.read`."""
    return market1501.read(root, LAYOUT)
