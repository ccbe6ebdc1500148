"""What is kept on disk: packed images, checkpoints, run folders.

`pack` turns a data set into WebDataset tars with an index beside them, `shards` reads single images (or whole tars)
from there, `tracklets` knows which of them are frames of one tracklet, `masks_file` has the true part masks where there
are any, `index` ties tars and index together and refuses what does not match, `cache` copies remote tars to a node
once. Bytes of shards are data, never code: nothing is unpickled, and only image and JSON members are read.
"""

from reidray.storage.masks_file import read_masks
from reidray.storage.shards import ShardedImages, read_attributes, read_truth

__all__ = ["ShardedImages", "read_attributes", "read_masks", "read_truth"]
