"""A split's images at the network's size: the same pixels whether or not they are kept."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from reidray.data import augment
from reidray.features.normalisation import MEAN, STD
from reidray.training.images import MEAN_PIXEL, SizedImages, as_input
from tests.data import bad_images
from tests.reference import augmentation as reference

# N = images, H, W = pixels of the network's input

SIZES = [(24, 12), (64, 40), (10, 30), (32, 16), (40, 20), (24, 12), (100, 60)]
SHARDS = [(0, 3), (3, 4)]
H, W = 32, 16


class Split:
    """A packed split in memory; it counts what is read."""

    def __init__(self, sizes=SIZES):
        self.datas = [bad_images.jpeg(seed=seed, height=h, width=w) for seed, (h, w) in enumerate(sizes)]
        self.count = len(sizes)
        self.reads = []

    def name(self, index):
        return f"train/{index}.jpg"

    def read(self, index):
        self.reads.append(index)
        return self.datas[index]

    def shard_range(self, shard):
        return SHARDS[shard]

    def stream(self, shard):
        first, count = SHARDS[shard]
        for index in range(first, first + count):
            yield index, self.read(index)


def sized(cache_mb, split=None):
    return SizedImages(split or Split(), height=H, width=W, max_pixels=10_000, cache_mb=cache_mb)


def expected():
    pictures = [Image.open(io.BytesIO(data)).resize((W, H), Image.Resampling.BICUBIC) for data in Split().datas]
    return np.stack([np.asarray(picture) for picture in pictures])


def drawn(size, pad=3):
    settings = augment.AugmentSettings(0.5, pad, 0.7, (0.02, 0.4), (0.3, 3.33))
    return augment.draw(settings, seed=1, epoch=0, step=0, batch_size=size, height=H, width=W)


CACHES = [0.0, 0.003, 100.0]


@pytest.mark.parametrize("cache_mb", CACHES)
def test_rows_and_shards_are_pils_pictures_at_first_and_ever_after(cache_mb):
    images, picked = sized(cache_mb), np.array([6, 0, 0, 3])
    for _ in range(2):
        np.testing.assert_array_equal(images.rows(picked), expected()[picked])
        np.testing.assert_array_equal(images.shard(1), expected()[3:])
        np.testing.assert_array_equal(images.shard(0), expected()[:3])
    assert images.rows(np.array([], np.int64)).shape == (0, H, W, 3)


@pytest.mark.parametrize("cache_mb", CACHES)
def test_crops_are_the_augmented_rows(cache_mb):
    images, picked = sized(cache_mb), np.array([6, 0, 0, 3, 1, 2, 4, 5])
    table = drawn(len(picked))
    rows = zip(expected()[picked], table.flips_B, table.dy_B, table.dx_B, table.boxes_B4, strict=True)
    augmented = np.stack([reference.augmented(*row, 3, MEAN_PIXEL) for row in rows])
    for _ in range(2):
        np.testing.assert_array_equal(images.crops(picked, table, pad=3), augmented)


def test_what_is_kept_is_read_once():
    split = Split()
    images = sized(100.0, split)
    for _ in range(3):
        images.rows(np.array([5, 1, 5]))
        images.shard(0)
        images.crops(np.array([1, 4, 4]), drawn(3), pad=3)
    assert sorted(set(split.reads) - {1}) == [0, 2, 4, 5]
    assert images.num_kept == 5
    images.rows(np.arange(7))
    split.reads.clear()
    images.rows(np.arange(7))
    images.shard(1)
    assert not split.reads


def test_without_memory_nothing_is_kept_and_a_batch_decodes_an_image_once():
    split = Split()
    images = sized(0.0, split)
    images.crops(np.array([4, 4, 1, 4]), drawn(4), pad=3)
    assert split.reads == [4, 1]
    assert images.num_kept == 0


def test_the_first_images_that_fit_are_kept_and_the_others_decoded_again():
    # Bytes if kept: 864, 1536 (at the network's size, which is smaller than 64 x 40), 900, 1536, 1536, 864, 1536.
    split = Split()
    images = sized(0.0043, split)
    images.rows(np.arange(7))
    split.reads.clear()
    images.rows(np.arange(7))
    assert split.reads == [3, 4, 6]


def test_what_is_given_away_can_be_changed():
    images = sized(100.0)
    for give in (lambda: images.rows(np.array([3])), lambda: images.shard(1)):  # image 3 has the right size already
        give()[:] = 0
        np.testing.assert_array_equal(give()[0], expected()[3])


def test_a_damaged_image_says_its_name():
    split = Split()
    split.datas[4] = split.datas[4][:-40]
    with pytest.raises(ValueError, match=r"^train/4\.jpg: expected a whole image"):
        sized(100.0, split).rows(np.array([3, 4]))
    with pytest.raises(ValueError, match=r"^train/6\.jpg: expected at most 5999 pixels, got 60 x 100"):
        SizedImages(Split(), height=H, width=W, max_pixels=5999, cache_mb=0.0).shard(1)


@pytest.mark.parametrize("cache_mb", CACHES)
def test_several_threads_get_the_same(cache_mb):
    images = sized(cache_mb)
    picked = [np.random.default_rng(seed).integers(0, 7, 20) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        for indices, found in zip(picked, pool.map(images.rows, picked), strict=True):
            np.testing.assert_array_equal(found, expected()[indices])
    assert sum(picture.nbytes for picture in images._kept.values()) <= cache_mb * 1e6


def test_the_networks_input_is_normalised_to_imagenet():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    found = as_input(pixels, torch.device("cpu"))
    assert found.shape == (2, 3, 5, 4)
    assert found.is_contiguous(memory_format=torch.channels_last)
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        values = (pixels[..., channel].astype(np.float64) / 255 - mean) / std
        np.testing.assert_allclose(found[:, channel].numpy(), values, atol=1e-5)
