"""Formats beside JPEG, PNG, BMP and WebP: TIFF and the first frame of GIF; files of others are named by their kind."""

import contextlib

import numpy as np
import pytest
from PIL import Image

from reidray.data import folder
from reidray.data.decode import BadImage, decode, decode_first_frame
from reidray.data.foreign_formats import foreign_format
from tests.data import bad_images

LIMIT = 1_000_000


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
def test_a_tiff_comes_back_exactly(compression):
    picture = bad_images.picture()
    data = bad_images.encoded(picture, "TIFF", compression=compression)
    np.testing.assert_array_equal(decode(data, name="a.tif", max_pixels=LIMIT), picture)


def test_a_tiff_of_sixteen_bits_is_scaled_and_one_of_grey_is_grey():
    grey = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    data = bad_images.encoded(grey, "TIFF")
    np.testing.assert_array_equal(decode(data, name="a.tif", max_pixels=LIMIT)[0, :, 0], [0, 1, 128, 255])
    data = bad_images.encoded(bad_images.picture()[..., 0], "TIFF")
    pixels = decode(data, name="a.tif", max_pixels=LIMIT)
    np.testing.assert_array_equal(pixels[..., 0], bad_images.picture()[..., 0])
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_several_frames_the_first_counts_and_it_is_told(kind):
    pixels, has_more = decode_first_frame(bad_images.several(kind), name="a", max_pixels=LIMIT)
    assert has_more
    assert np.abs(pixels.astype(int) - bad_images.picture(seed=0)).mean() < 8
    single, has_more = decode_first_frame(bad_images.encoded(bad_images.picture(), kind), name="a", max_pixels=LIMIT)
    assert not has_more
    assert single.shape == pixels.shape


def test_a_huge_tiff_or_gif_is_refused_by_its_header():
    for kind in ("TIFF", "GIF"):
        data = bad_images.encoded(Image.new("L", (2000, 1000)), kind)
        with pytest.raises(BadImage, match="expected at most 1000000 pixels, got 2000 x 1000"):
            decode(data, name="a", max_pixels=LIMIT)


@pytest.mark.parametrize("kind", ["TIFF", "GIF"])
def test_one_cut_short_is_refused(kind):
    generator = np.random.default_rng(0)
    whole = bad_images.encoded(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8), kind)
    with pytest.raises(BadImage) as caught:
        decode(whole[: len(whole) // 2], name="a", max_pixels=LIMIT)
    assert caught.value.reason in ("cut short or damaged", "not an image")


def test_noise_in_a_tiff_or_gif_never_raises_anything_else():
    generator = np.random.default_rng(0)
    good = [
        bad_images.several("GIF"),
        bad_images.several("TIFF"),
        bad_images.encoded(bad_images.picture(), "TIFF", compression="tiff_lzw"),
    ]
    for _ in range(300):
        data = bytearray(good[generator.integers(len(good))])
        for place in generator.integers(len(data), size=generator.integers(1, 12)):
            data[place] = generator.integers(256)
        with contextlib.suppress(BadImage):
            pixels, _ = decode_first_frame(bytes(data), name="noise", max_pixels=10_000)
            assert pixels.shape[2] == 3
            assert pixels.size


def test_a_file_of_another_format_under_an_images_name_is_named_by_it():
    avif = b"\x00\x00\x00\x1cftypavif" + bytes(40)
    with pytest.raises(BadImage, match=r"^a\.jpg: expected a JPEG, .*, got AVIF \(52 bytes\); convert it") as caught:
        decode(avif, name="a.jpg", max_pixels=LIMIT)
    assert caught.value.reason == "format that is not read: AVIF"
    for data, kind in (
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
        (b"\x00\x00\x00\x18ftypisom", "video"),
        (b"%PDF-1.7", "PDF"),
        (b"<?xml version='1.0'?><svg>", "SVG"),
        (b"P6\n1 1 255 abc", "PPM"),
        (b"", None),
        (b"P", None),
        (bad_images.text(), None),
    ):
        assert foreign_format(data) == kind


def test_a_folder_takes_every_format_that_is_read_and_names_the_others(tmp_path):
    for name in ("a.tif", "b.TIFF", "c.gif", "d.jfif", "e.jpg.jpg", "f (81).png", "g.heic", "h.mp4", "i.txt", "j"):
        (tmp_path / name).touch()
    dataset = folder.read(tmp_path)
    names = [image.name for image in dataset.splits["train"].images]
    assert names == ["a.tif", "b.TIFF", "c.gif", "d.jfif", "e.jpg.jpg", "f (81).png"]
    assert dataset.left_out == {
        "format that is not read: HEIC": ("g.heic",),
        "format that is not read: video": ("h.mp4",),
        "not an image": ("i.txt", "j"),
    }
