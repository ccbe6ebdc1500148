"""VeRi-776 (Liu et al., ECCV 2016): vehicles, with the image-to-image protocol of most re-ID code.

    root/image_train/0001_c001_00016450_0.jpg      vehicle 1, camera 1
    root/image_query/..., root/image_test/...

37,778 images of 576 vehicles, 1,678 queries, and a gallery of 11,579.
"""

from __future__ import annotations

import os
from pathlib import Path

from reidray.data.named_folders import NamedFolders, image_name
from reidray.data.records import Dataset

LAYOUT = NamedFolders(
    dataset="veri776",
    folders={"train": "image_train", "query": "image_query", "gallery": "image_test"},
    pattern=image_name(),
    example="0001_c001_00016450_0.jpg",
    has_junk=True,
    optional={},
)


def read(root: str | os.PathLike[str]) -> Dataset:
    """Lists the images; see `NamedFolders.read`."""
    return LAYOUT.read(Path(root))
