"""Images of a packed split at the network's size: decoded once, kept while memory allows. And tracklets of them.

N = samples (images or tracklets), B = batch, T = frames taken of a tracklet, h, w = pixels of a picture as it was
stored, H, W = pixels of the network's input.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from reidray.arrays import Bytes, Ints
from reidray.data.augment import Augmentation, augmented
from reidray.data.decode import decode
from reidray.data.frames import draw_frames
from reidray.data.resize import resize, resize_into
from reidray.features.normalisation import MEAN, STD
from reidray.storage.shards import ShardedImages
from reidray.storage.tracklets import ShardedTracklets

MEAN_PIXEL = np.array([round(255 * value) for value in MEAN], dtype=np.uint8)


class SizedImages:
    """Random and sequential access to a split's images, resized (PIL, bicubic) to height x width.

    Pictures are kept as they were decoded: usually a sixth of what they take when resized, and resizing costs less than
    reading so much more memory would. A picture that is larger than the network's input is kept resized. First come,
    first kept, until one does not fit any more; then, smaller ones that still fit. What is not kept is decoded again
    each time: the pixels are the same. Safe to use from several threads.

    Args:
      images: the packed split.
      max_pixels: larger images are refused (they were skipped when the split was packed).
      cache_mb: decoded images are kept up to so many MB (10^6 bytes), in this process.

    Attributes:
      image_tables: of the memory bank's tables, those with a row an image: "train" here, where images are samples.
      unit: what samples are, in words.
      taken: images of a sample that a training step takes.
    """

    def __init__(self, images: ShardedImages, *, height: int, width: int, max_pixels: int, cache_mb: float) -> None:
        self.source = images
        self.image_tables, self.unit, self.taken = "train", "images", 1
        self._name = images.name
        self._size = (height, width)
        self._max_pixels = max_pixels
        self._room = cache_mb * 1e6
        self._kept: dict[int, Bytes] = {}
        self._lock = threading.Lock()

    @property
    def images(self) -> SizedImages:
        """The images of the samples: themselves."""
        return self

    @property
    def num_kept(self) -> int:
        """Images that are in memory."""
        return len(self._kept)

    def rows(self, indices: Ints) -> Bytes:
        """uint8 [B, H, W, 3] of the images at `indices`."""
        return self._sized((self._picture(int(index)) for index in indices), len(indices))

    def chosen(self, indices_B: Ints, *, seed: int, epoch: int, step: int) -> Ints:  # noqa: ARG002
        """The images that a training step takes of each sample: itself, [B, 1]."""
        return indices_B[:, None]

    def crops(self, indices: Ints, augmentation: Augmentation, *, pad: int) -> Bytes:
        """uint8 [B, H, W, 3] of the images at `indices`, augmented; what is outside or erased has the mean colour."""
        indices = indices.reshape(-1)
        height, width = self._size
        pictures = {index: self._picture(index) for index in dict.fromkeys(indices.tolist())}
        images = [pictures[index] for index in indices.tolist()]
        return augmented(images, augmentation, height=height, width=width, pad=pad, fill=MEAN_PIXEL)

    def shard(self, shard: int) -> Bytes:
        """uint8 [count, H, W, 3] of a shard, read from front to back."""
        first, count = self.source.shard_range(shard)
        indices = range(first, first + count)
        if all(index in self._kept for index in indices):
            return self._sized((self._kept[index] for index in indices), count)
        return self._sized((self._picture(index, data) for index, data in self.source.stream(shard)), count)

    def _sized(self, pictures: Iterable[Bytes], count: int) -> Bytes:
        sized_BHW3 = np.empty((count, *self._size, 3), np.uint8)
        for picture, sized_HW3 in zip(pictures, sized_BHW3, strict=True):
            resize_into(picture, sized_HW3)
        return sized_BHW3

    def _picture(self, index: int, data: bytes | None = None) -> Bytes:
        """A picture at its own size, or resized where that is smaller; `data` are its bytes, where they were read."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        data = self.source.read(index) if data is None else data
        picture = decode(data, name=self._name(index), max_pixels=self._max_pixels)
        if picture.size > 3 * self._size[0] * self._size[1]:
            picture = resize(picture, height=self._size[0], width=self._size[1])
        with self._lock:
            if index not in self._kept and picture.nbytes <= self._room:
                self._kept[index] = picture
                self._room -= picture.nbytes
        return picture


class SizedTracklets:
    """Tracklets whose frames are at the network's size.

    Args:
      source: the packed tracklets.
      images: their frames, which are images by themselves.
      taken: T, frames of a tracklet that a training step takes.

    Attributes:
      image_tables: of the memory bank's tables, those with a row a frame: "frames"; a row of "train" is a tracklet.
      unit: what samples are, in words.
      taken: images of a sample that a training step takes.
    """

    def __init__(self, source: ShardedTracklets, images: SizedImages, taken: int) -> None:
        self.source = source
        self.images = images
        self.image_tables, self.unit = "frames", "tracklets"
        self.taken = taken

    def rows(self, indices: Ints) -> Bytes:
        """uint8 [B, H, W, 3]: the frame in the middle of each tracklet at `indices`."""
        return self.images.rows(self.source.firsts_N[indices] + self.source.counts_N[indices] // 2)

    def chosen(self, indices_B: Ints, *, seed: int, epoch: int, step: int) -> Ints:
        """The images that a training step takes of each tracklet: [B, T]."""
        counts_B = self.source.counts_N[indices_B]
        frames_BT = draw_frames(counts_B, self.taken, seed=seed, epoch=epoch, step=step)
        return self.source.firsts_N[indices_B][:, None] + frames_BT

    def crops(self, images_BT: Ints, augmentation: Augmentation, *, pad: int) -> Bytes:
        """uint8 [B, T, H, W, 3] of frames; `augmentation` has a row each, those of the first tracklet first."""
        pixels = self.images.crops(images_BT, augmentation, pad=pad)
        return pixels.reshape(*images_BT.shape, *pixels.shape[1:])


Samples = SizedImages | SizedTracklets


def staged(images: Bytes, device: torch.device) -> Tensor:
    """Images as a tensor that the device can fetch beside its work: for a GPU, in pinned memory.

    A copy into pinned memory takes time, so the thread that prepares images calls this.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    return pixels.pin_memory() if device.type == "cuda" else pixels


def as_input(images: Bytes | Tensor, device: torch.device) -> Tensor:
    """Images as the network wants them: on the device, ImageNet's mean 0 and deviation 1.

    Args:
      images: uint8 [B, H, W, 3], or of tracklets [B, T, H, W, 3]; `staged`, where many follow each other.

    Returns:
      float32 [B, 3, H, W] or [B, T, 3, H, W].
    """
    if images.ndim == 5:
        frames = as_input(images.reshape(-1, *images.shape[2:]), device)
        return frames.view(*images.shape[:2], *frames.shape[1:])
    pixels = torch.as_tensor(images).to(device, non_blocking=True)
    mean_W3, std_W3 = _lines(pixels.shape[2], device)
    return pixels.float().sub_(mean_W3).div_(std_W3).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def _lines(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of a whole line: PyTorch takes seven times as long for rows of three numbers."""
    mean_3, std_3 = torch.tensor(MEAN, device=device) * 255, torch.tensor(STD, device=device) * 255
    return mean_3.repeat(width, 1), std_3.repeat(width, 1)
