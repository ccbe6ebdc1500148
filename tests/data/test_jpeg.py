"""The short way to a JPEG's pixels: PIL's pixels, or None."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reidray.data import decode as decoding
from reidray.data import jpeg
from reidray.data.decode import BadImage, decode
from reidray.data.jpeg import decode_plain, is_plain
from tests.data import bad_images

LIMIT = 1_000_000
needs_simplejpeg = pytest.mark.skipif(jpeg._decode is None, reason="simplejpeg is not installed")


def noise(height, width, seed=0):
    """Neighbouring pixels are alike, as in photographs."""
    grey = np.random.default_rng(seed).normal(0, 25, (height, width, 3))
    return np.clip(128 + np.cumsum(np.cumsum(grey, 0), 1) / 8, 0, 255).astype(np.uint8)


def encoded(image, **options):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, "JPEG", **options)
    return file.getvalue()


def by_pil(data, max_pixels=LIMIT):
    """The pixels, or the sentence that refuses the file."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decoding, "decode_plain", lambda *_, **__: None)
        try:
            return decode(data, name="a.jpg", max_pixels=max_pixels)
        except BadImage as error:
            return str(error)


# ---- what is plain


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"optimize": True}, {"comment": b"x"}])
def test_jpegs_as_most_are_written_are_plain(options):
    assert is_plain(encoded(noise(24, 12), **options), max_pixels=LIMIT)
    assert is_plain(encoded(noise(24, 12), restart_marker_blocks=2), max_pixels=LIMIT)
    assert is_plain(encoded(noise(24, 12)[..., 0]), max_pixels=LIMIT)


def test_whatever_may_be_odd_is_left_to_pil():
    picture, exif = noise(24, 12), Image.Exif()
    exif[0x0112] = 6
    odd = [
        encoded(picture, progressive=True),
        encoded(Image.fromarray(picture).convert("CMYK")),
        encoded(picture, exif=exif),
        encoded(picture, icc_profile=b"a profile"),
        encoded(picture, keep_rgb=True),
        bad_images.encoded(picture, "PNG"),
        bad_images.text(),
        b"",
        b"\xff\xd8\xff",
    ]
    assert not any(is_plain(data, max_pixels=LIMIT) for data in odd)


def test_a_header_cut_anywhere_is_not_plain():
    data = encoded(noise(24, 12))
    scan = data.index(b"\xff\xda")
    assert not any(is_plain(data[:end], max_pixels=LIMIT) for end in range(scan + 4))


def test_the_limit_on_pixels_is_height_times_width_and_is_allowed_itself():
    data = encoded(noise(10, 7))
    assert is_plain(data, max_pixels=70)
    assert not is_plain(data, max_pixels=69)


def test_without_simplejpeg_pil_is_asked(monkeypatch):
    monkeypatch.setattr(jpeg, "_decode", None)
    assert decode_plain(encoded(noise(24, 12)), max_pixels=LIMIT) is None


# ---- the same pixels as PIL's, the same refusals


@needs_simplejpeg
@settings(max_examples=400, deadline=None)
@given(
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(1, 100),
    st.sampled_from([0, 1, 2, "grey"]),
    st.sampled_from([{}, {"optimize": True}, {"restart_marker_blocks": 2}]),
    st.integers(0, 2**32 - 1),
)
def test_pixels_are_pils(height, width, quality, subsampling, options, seed):
    picture = noise(height, width, seed)
    if subsampling == "grey":
        picture = picture[..., 0]
    else:
        options = options | {"subsampling": subsampling}
    data = encoded(picture, quality=quality, **options)
    pixels = decode_plain(data, max_pixels=LIMIT)
    np.testing.assert_array_equal(pixels, by_pil(data))
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


@needs_simplejpeg
def test_a_file_without_its_last_bytes_is_left_to_pil():
    data = encoded(noise(128, 64))
    assert decode_plain(data, max_pixels=LIMIT) is not None
    for cut in [1, 2, 3, 10, len(data) // 2]:
        assert decode_plain(data[:-cut], max_pixels=LIMIT) is None


def damaged(generator):
    """A JPEG in which something is missing, repeated, inserted, appended or changed."""
    options = [{}, {"subsampling": 0}, {"restart_marker_blocks": 1}, {"quality": 5}]
    picture = noise(int(generator.integers(1, 40)), int(generator.integers(1, 40)))
    data = encoded(picture, **options[generator.integers(len(options))])
    place, length = int(generator.integers(len(data))), int(generator.integers(1, 20))
    other = generator.integers(0, 256, length, np.uint8).tobytes()
    return [
        data[:place],
        data[:place] + data[place + length :],
        data[: place + length] + data[place:],
        data[:place] + other + data[place:],
        data + other,
        data[:place] + other[:1] + data[place + 1 :],
        data[:place] + other + data[place + length :],
    ][generator.integers(7)]


@needs_simplejpeg
def test_a_damaged_file_is_decoded_as_pil_does_or_left_to_it():
    generator = np.random.default_rng(0)
    decoded = 0
    for _ in range(4000):
        data = damaged(generator)
        pixels = decode_plain(data, max_pixels=10_000)
        if pixels is not None:
            decoded += 1
            np.testing.assert_array_equal(pixels, by_pil(data, 10_000))
    assert decoded > 500
