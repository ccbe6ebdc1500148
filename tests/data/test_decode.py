import contextlib
import pickle
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from reidray.data import jpeg
from reidray.data.decode import BadImage, decode, decode_mask
from tests.data import bad_images

LIMIT = 1_000_000


@pytest.fixture(params=["PIL alone", "simplejpeg"], autouse=True)
def decoder(request, monkeypatch):
    """Everything holds for both ways to decode."""
    if request.param == "PIL alone":
        monkeypatch.setattr(jpeg, "_decode", None)
    elif jpeg._decode is None:
        pytest.skip("simplejpeg is not installed")


def read(data, max_pixels=LIMIT):
    return decode(data, name="a/b.jpg", max_pixels=max_pixels)


def test_a_png_comes_back_exactly_and_belongs_to_the_caller():
    picture = bad_images.picture()
    pixels = read(bad_images.encoded(picture, "PNG"))
    np.testing.assert_array_equal(pixels, picture)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "WEBP"])
def test_other_formats_come_back_nearly(kind):
    picture = bad_images.picture()
    assert np.abs(read(bad_images.encoded(picture, kind)).astype(int) - picture).mean() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_becomes_three_equal_channels(kind):
    grey = bad_images.picture()[..., 0]
    pixels = read(bad_images.encoded(grey, kind))
    assert pixels.shape == (24, 12, 3)
    assert (pixels == pixels[..., :1]).all()
    assert np.abs(pixels[..., 0].astype(int) - grey).max() <= 3


def test_cmyk_keeps_its_colours():
    picture = bad_images.picture()
    pixels = read(bad_images.encoded(Image.fromarray(picture).convert("CMYK")))
    assert np.abs(pixels.astype(int) - picture).max() <= 8


def test_a_palette_is_looked_up():
    flags = Image.fromarray(bad_images.picture()).quantize(4)
    np.testing.assert_array_equal(read(bad_images.encoded(flags, "PNG")), np.asarray(flags.convert("RGB")))


def test_sixteen_bits_are_scaled_not_clipped():
    grey = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    np.testing.assert_array_equal(read(bad_images.encoded(grey, "PNG"))[0, :, 0], [0, 1, 128, 255])


def test_one_bit_is_black_and_white():
    bits = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    np.testing.assert_array_equal(read(bad_images.encoded(bits, "PNG"))[0], [[0, 0, 0], [255, 255, 255]])


def test_transparency_is_put_on_black():
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], dtype=np.uint8)
    expected = [[200, 100, 50], [0, 0, 0], [40, 20, 10]]
    np.testing.assert_array_equal(read(bad_images.encoded(rgba, "PNG"))[0], expected)
    grey = np.array([[[200, 255], [200, 0]]], dtype=np.uint8)
    np.testing.assert_array_equal(read(bad_images.encoded(grey, "PNG"))[0, :, 0], [200, 0])


def test_a_transparent_palette_entry_is_black():
    flags = Image.new("P", (2, 1))
    flags.putpalette([255, 0, 0, 0, 255, 0])
    flags.putpixel((1, 0), 1)
    data = bad_images.encoded(flags, "PNG", transparency=bytes([0, 255]))
    np.testing.assert_array_equal(read(data)[0], [[0, 0, 0], [0, 255, 0]])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(orientation, kind):
    upright = bad_images.picture()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read(bad_images.encoded(np.ascontiguousarray(stored), kind, exif=exif))
    assert np.abs(pixels.astype(int) - upright).max() <= (0 if kind == "PNG" else 12)


def test_broken_exif_does_not_spoil_a_good_picture():
    data = bad_images.encoded(bad_images.picture(), exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert read(data).shape == (24, 12, 3)


def test_one_pixel_is_an_image():
    assert read(bad_images.encoded(bad_images.picture(1, 1), "PNG")).shape == (1, 1, 3)
    assert read(bad_images.jpeg(height=1, width=1)).shape == (1, 1, 3)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_jpeg_cut_short_is_refused(share):
    with pytest.raises(BadImage, match=r"a/b\.jpg: expected .*, got .*") as caught:
        read(bad_images.truncated_jpeg(share))
    assert caught.value.reason in ("cut short or damaged", "not an image")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (bad_images.text(), "not an image"),
        (b"\xff\xd8\xff", "not an image"),
        (b"GIF89a" + bytes(40), "not an image"),
        (bad_images.truncated_jpeg(), "cut short or damaged"),
        (bad_images.damaged_png(), "cut short or damaged"),
        (bad_images.huge_png(), "too many pixels"),
    ],
)
def test_a_bad_image_is_refused_with_one_sentence_and_its_reason(data, reason):
    with pytest.raises(BadImage, match=r"^a/b\.jpg: expected [^\n]*\.$") as caught:
        read(data, max_pixels=39_999_999)
    assert caught.value.reason == reason
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.reason, str(copy)) == (reason, str(caught.value))


def test_the_limit_on_pixels_is_height_times_width_and_is_allowed_itself():
    data = bad_images.jpeg(height=10, width=7)
    assert read(data, max_pixels=70).shape == (10, 7, 3)
    with pytest.raises(BadImage, match="expected at most 69 pixels, got 7 x 10"):
        read(data, max_pixels=69)


@pytest.mark.parametrize("side", [10_000, 20_000])  # PIL warns about the first and raises at the second
def test_no_warning_of_pil_leaks(side):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(BadImage, match="pixels"):
            read(bad_images.huge_png(side, side))
    assert not caught


def test_threads_do_not_disturb_each_other():
    datas = [bad_images.encoded(bad_images.picture(seed=seed), "PNG") for seed in range(4)]
    filters = list(warnings.filters)
    wrong = []

    def work(seed):
        for _ in range(30):
            if not (read(datas[seed]) == bad_images.picture(seed=seed)).all():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert list(warnings.filters) == filters


def test_noise_in_a_file_never_raises_anything_else():
    generator = np.random.default_rng(0)
    good = [bad_images.jpeg(), bad_images.encoded(bad_images.picture(), "PNG")]
    good += [bad_images.encoded(bad_images.picture(), "WEBP"), bad_images.encoded(bad_images.picture(), "BMP")]
    for _ in range(400):
        data = bytearray(good[generator.integers(len(good))])
        for place in generator.integers(len(data), size=generator.integers(1, 12)):
            data[place] = generator.integers(256)
        with contextlib.suppress(BadImage):
            assert decode(bytes(data), name="noise", max_pixels=10_000).shape[2] == 3


def test_a_mask_keeps_its_numbers():
    mask = np.array([[0, 1, 2], [3, 4, 0]], dtype=np.uint8)
    np.testing.assert_array_equal(decode_mask(bad_images.encoded(mask, "PNG"), name="m", max_pixels=6), mask)
    with pytest.raises(BadImage, match="got mode RGB"):
        decode_mask(bad_images.encoded(bad_images.picture(), "PNG"), name="m", max_pixels=LIMIT)
