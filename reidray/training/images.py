"""Images of a packed split at the network's size: decoded once, kept while memory allows.

N = images, B = batch, H, W = pixels of the network's input.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reidray.arrays import Bytes, Ints
from reidray.data.decode import decode, resize
from reidray.storage.shards import ShardedImages

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MEAN_PIXEL = np.array([round(255 * value) for value in MEAN], dtype=np.uint8)


class SizedImages:
    """Random and sequential access to a split's images, resized (PIL, bicubic) to height x width.

    Args:
      images: the packed split.
      max_pixels: larger images are refused (they were skipped when the split was packed).
      cache_mb: decoded images are kept while all of the split fits in so many MB; nothing is kept where it does not.
    """

    def __init__(self, images: ShardedImages, *, height: int, width: int, max_pixels: int, cache_mb: float) -> None:
        self.source = images
        self._names = images.names
        self._size = (height, width)
        self._max_pixels = max_pixels
        fits = images.count * height * width * 3 <= cache_mb * 1e6
        self._kept: Bytes | None = np.empty((images.count, height, width, 3), np.uint8) if fits else None
        self._have = np.zeros(images.count, bool)

    def rows(self, indices: Ints) -> Bytes:
        """uint8 [B, H, W, 3] of the images at `indices`."""
        if self._kept is None:
            return np.stack([self._sized(int(index), self.source.read(int(index))) for index in indices])
        for index in np.unique(indices[~self._have[indices]]):
            self._kept[index] = self._sized(int(index), self.source.read(int(index)))
            self._have[index] = True
        return self._kept[indices]

    def shard(self, shard: int) -> Bytes:
        """uint8 [count, H, W, 3] of a shard, read from front to back."""
        first, count = self.source.shard_range(shard)
        if self._kept is None:
            return np.stack([self._sized(index, data) for index, data in self.source.stream(shard)])
        if not self._have[first : first + count].all():
            for index, data in self.source.stream(shard):
                self._kept[index] = self._sized(index, data)
            self._have[first : first + count] = True
        return self._kept[first : first + count]

    def _sized(self, index: int, data: bytes) -> Bytes:
        image = decode(data, name=self._names[index], max_pixels=self._max_pixels)
        return resize(image, height=self._size[0], width=self._size[1])


def as_input(images_BHW3: Bytes, device: torch.device) -> Tensor:
    """uint8 images as the network wants them: float32 [B, 3, H, W] on the device, ImageNet's mean 0 and deviation 1."""
    images = torch.from_numpy(np.ascontiguousarray(images_BHW3)).to(device, non_blocking=True)
    mean = torch.tensor(MEAN, device=device) * 255
    std = torch.tensor(STD, device=device) * 255
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)
