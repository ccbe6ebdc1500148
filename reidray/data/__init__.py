"""From folders of crops to augmented batches: arrays and records, no Ray.

`records` says what a data set is. `market1501`, `msmt17`, `dukemtmc`, `cuhk03` and `veri776` read one from disk (names
only, no pixels), `mars` and `dukemtmc_video` read tracklets, `folder` and `image_list` what is no public data set,
`detect` knows which it is, and `drawn` makes one. `attributes` reads what was noted about persons, `decode` turns bytes
into pixels, `sampling` chooses the samples of an epoch's batches, `frames` the frames of a tracklet, and `augment`
changes their pixels. All randomness is keyed by (seed, epoch, step): who computes a batch, and on how many machines,
changes nothing.
"""

from reidray.data import (
    augment,
    cuhk03,
    decode,
    dukemtmc,
    dukemtmc_video,
    folder,
    image_list,
    market1501,
    mars,
    msmt17,
    sampling,
    veri776,
)
from reidray.data.records import Dataset, ImageRecord, Split, Tracklet, counts

__all__ = [
    "Dataset",
    "ImageRecord",
    "Split",
    "Tracklet",
    "augment",
    "counts",
    "cuhk03",
    "decode",
    "dukemtmc",
    "dukemtmc_video",
    "folder",
    "image_list",
    "market1501",
    "mars",
    "msmt17",
    "sampling",
    "veri776",
]
