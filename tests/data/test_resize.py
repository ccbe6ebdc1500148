"""The filter is PIL's to the last bit, and a crop is that of the resized picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reidray.data.resize import cut, resize, resize_into, weights
from tests.reference import augmentation as reference

FILL = np.array([124, 116, 104], np.uint8)
NO_BOX = np.zeros(4, np.int64)


def picture(height, width, seed=0, harsh=False):
    generator = np.random.default_rng(seed)
    if harsh:  # black and white make the filter overshoot the most
        return (generator.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8)
    return generator.integers(0, 256, (height, width, 3), np.uint8)


def pil(image, height, width):
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


# ---- by hand


def test_halving_two_pixels_gives_their_mean_rounded_up():
    image = np.array([[[0, 10, 255], [255, 20, 255]]], np.uint8)
    np.testing.assert_array_equal(resize(image, height=1, width=1), [[[128, 15, 255]]])


def test_doubling_an_edge_overshoots_and_is_clipped():
    # At a quarter of a pixel from a sample the weights of a = -1/2 are -9, 111, 29, -3 (of 128).
    image = np.array([[100, 100, 100, 200, 200, 200]], np.uint8).repeat(3).reshape(1, 6, 3)
    expected = [100, 100, 100, 98, 93, 120, 180, 207, 202, 200, 200, 200]
    np.testing.assert_array_equal(resize(image, height=1, width=12)[0, :, 0], expected)
    black_and_white = np.where(image == 100, 0, 255).astype(np.uint8)
    assert resize(black_and_white, height=1, width=12)[0, 3:9, 0].tolist() == [0, 0, 52, 203, 255, 255]


def test_the_same_size_is_a_copy():
    image = picture(5, 3)
    again = resize(image, height=5, width=3)
    np.testing.assert_array_equal(again, image)
    assert not np.shares_memory(again, image)
    cut(image, again, flip=False, top=0, left=0, box_4=NO_BOX, fill_3=FILL)
    np.testing.assert_array_equal(again, image)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
@pytest.mark.parametrize("new_size", [1, 2, 5, 64, 333])
def test_weights_of_a_line_sum_to_1_and_lie_in_the_picture(size, new_size):
    firsts_R, weights_RT = weights(size, new_size)
    taps = weights_RT.shape[1]
    assert taps % 4 == 0
    assert np.abs(weights_RT.sum(1) - 2**22).max() <= taps / 2
    lines_RT = firsts_R[:, None] + np.arange(taps)
    assert lines_RT.min() >= 0
    assert (lines_RT[weights_RT != 0] < size).all()
    assert lines_RT.max() < size + 3


# ---- against PIL, and against the definition

sizes = st.one_of(st.integers(1, 12), st.integers(1, 120))


@settings(max_examples=600, deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(0, 2**32 - 1), st.booleans())
def test_every_byte_is_pils(h, w, height, width, seed, harsh):
    image = picture(h, w, seed, harsh)
    np.testing.assert_array_equal(resize(image, height=height, width=width), pil(image, height, width))


@pytest.mark.parametrize(
    ("h", "w", "height", "width"),
    [
        (128, 64, 384, 128),
        (128, 64, 256, 128),
        (128, 64, 96, 48),
        (256, 112, 384, 128),
        (500, 203, 384, 128),
        (64, 300, 384, 128),
        (1500, 700, 96, 48),
        (3, 2000, 600, 2),
        (2000, 3, 2, 600),
        (1, 1, 384, 128),
    ],
)
def test_every_byte_is_pils_at_the_sizes_of_data_sets_and_at_odd_ones(h, w, height, width):
    for harsh in (False, True):
        image = picture(h, w, 1, harsh)
        np.testing.assert_array_equal(resize(image, height=height, width=width), pil(image, height, width))


@settings(max_examples=200, deadline=None)
@given(*[st.integers(1, 9)] * 4, st.integers(0, 2**32 - 1))
def test_agrees_with_the_loop_written_from_the_kernel(h, w, height, width, seed):
    if height < h and h - height > 2 * (w - width):  # PIL then takes rows first, the loop never does
        h, height = height, h
    image = picture(h, w, seed)
    expected = reference.resized(image, height, width).astype(int)
    # A half may be rounded either way, in each of the passes; the weights' magnitudes sum to less than 1.3.
    assert np.abs(resize(image, height=height, width=width) - expected).max() <= 2


# ---- invariants


@settings(max_examples=200, deadline=None)
@given(sizes, sizes, sizes, sizes, st.tuples(*[st.integers(0, 255)] * 3))
def test_one_colour_stays_that_colour(h, w, height, width, colour):
    image = np.full((h, w, 3), colour, np.uint8)
    assert (resize(image, height=height, width=width) == np.array(colour)).all()


def test_neither_views_nor_what_was_in_the_result_matter_and_nothing_is_changed():
    image = picture(40, 30)
    before, out = image.copy(), np.full((50, 20, 3), 77, np.uint8)
    resize_into(image[::-1, ::2], out)
    np.testing.assert_array_equal(out, pil(np.ascontiguousarray(image[::-1, ::2]), 50, 20))
    np.testing.assert_array_equal(image, before)


# ---- crops


@st.composite
def crops(draw):
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    pad = draw(st.integers(0, 30))
    rows = sorted(draw(st.tuples(*[st.integers(0, height)] * 2)))
    columns = sorted(draw(st.tuples(*[st.integers(0, width)] * 2)))
    box = draw(st.sampled_from([NO_BOX, np.array([rows[0], columns[0], rows[1], columns[1]])]))
    return {
        "size": (height, width),
        "flip": draw(st.booleans()),
        "dy": draw(st.integers(0, 2 * pad)),
        "dx": draw(st.integers(0, 2 * pad)),
        "box": box,
        "pad": pad,
    }


@settings(max_examples=400, deadline=None)
@given(crops(), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_crop_is_that_of_pils_resized_picture_padded_cropped_mirrored_and_erased(crop, h, w, seed):
    image, (height, width) = picture(h, w, seed), crop["size"]
    out, pad = np.full((height, width, 3), 77, np.uint8), crop["pad"]
    top, left = crop["dy"] - pad, crop["dx"] - pad
    cut(image, out, flip=crop["flip"], top=top, left=left, box_4=crop["box"], fill_3=FILL)
    rest = {name: value for name, value in crop.items() if name != "size"}
    np.testing.assert_array_equal(out, reference.augmented(pil(image, height, width), **rest, fill=FILL))
