import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image

from reidray.data.augment import Augmentation, AugmentSettings, augmented, draw
from tests.reference import augmentation as reference

SETTINGS = AugmentSettings(flip=0.5, pad=3, erase=0.5, erase_area=(0.02, 0.4), erase_ratio=(0.3, 3.33))
FILL = np.array([124, 116, 104], dtype=np.uint8)


def table(settings=SETTINGS, *, seed=0, epoch=0, step=0, batch_size=500, height=32, width=16):
    return draw(settings, seed=seed, epoch=epoch, step=step, batch_size=batch_size, height=height, width=width)


def pictures(*sizes, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


def images(batch_size, height=32, width=16):
    return (
        np.stack(pictures(*[(height, width)] * batch_size)) if batch_size else np.empty((0, height, width, 3), np.uint8)
    )


def apply(batch, drawn, *, pad, height=32, width=16):
    return augmented(batch, drawn, height=height, width=width, pad=pad, fill=FILL)


def slow_apply(batch, drawn, *, pad, height=32, width=16):
    """Every image resized by PIL, then padded, cropped, mirrored and erased pixel by pixel."""
    bicubic = Image.Resampling.BICUBIC
    sized = [np.asarray(Image.fromarray(image).resize((width, height), bicubic)) for image in batch]
    rows = zip(sized, drawn.flips_B, drawn.dy_B, drawn.dx_B, drawn.boxes_B4, strict=True)
    return np.stack([reference.augmented(*row, pad, FILL) for row in rows])


def test_images_of_the_right_size_agree_with_the_loop_over_pixels():
    batch, drawn = images(40), table(batch_size=40)
    before = batch.copy()
    out = apply(batch, drawn, pad=3)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, slow_apply(batch, drawn, pad=3))
    np.testing.assert_array_equal(batch, before)


@examples(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4),
    st.integers(2, 24),
    st.integers(2, 24),
    st.integers(0, 12),
    st.integers(0, 2**31),
)
def test_images_of_any_size_are_resized_by_pil_first(sizes, height, width, pad, seed):
    batch = pictures(*sizes, seed=seed)
    settings = AugmentSettings(0.5, pad, 0.7, (0.02, 0.4), (0.3, 3.33))
    drawn = table(settings, seed=seed, batch_size=len(sizes), height=height, width=width)
    size = {"pad": pad, "height": height, "width": width}
    np.testing.assert_array_equal(apply(batch, drawn, **size), slow_apply(batch, drawn, **size))


def test_nothing_drawn_changes_nothing():
    batch = images(6)
    still = table(AugmentSettings(0.0, 0, 0.0, (0.02, 0.4), (0.3, 3.33)), batch_size=6)
    np.testing.assert_array_equal(apply(batch, still, pad=0), batch)


def test_a_crop_of_a_padded_picture_by_hand():
    batch = np.arange(1, 7, dtype=np.uint8).reshape(1, 2, 3, 1).repeat(3, axis=3)
    one = np.ones(1, dtype=np.int64)
    mirrored = Augmentation(one == 1, 0 * one, 2 * one, np.array([[1, 0, 2, 1]]))  # a row up, a column to the right
    found = augmented(batch, mirrored, height=2, width=3, pad=1, fill=np.array([9, 9, 9], np.uint8))
    np.testing.assert_array_equal(found[0, :, :, 0], [[9, 9, 9], [9, 3, 2]])


def test_images_that_are_views_are_taken_too():
    batch, drawn = images(4), table(batch_size=4)
    views = batch[:, :, ::-1]
    np.testing.assert_array_equal(apply(views, drawn, pad=3), apply(np.ascontiguousarray(views), drawn, pad=3))


def test_workers_that_take_their_rows_get_the_rows_of_the_whole():
    batch, drawn = pictures(*[(20 + i, 30 - i) for i in range(12)]), table(batch_size=12)
    whole = apply(batch, drawn, pad=3)
    parts = [apply(batch[s], drawn.rows(s), pad=3) for s in (slice(0, 5), slice(5, 12))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    some = np.array([7, 2, 2])
    np.testing.assert_array_equal(apply([batch[i] for i in some], drawn.rows(some), pad=3), whole[some])


def test_no_rows_give_no_images():
    assert apply([], table(batch_size=0), pad=3).shape == (0, 32, 16, 3)


@pytest.mark.parametrize(("height", "width"), [(256, 128), (32, 16), (96, 48), (5, 4), (1, 1)])
def test_boxes_lie_inside(height, width):
    y0, x0, y1, x1 = table(batch_size=3000, height=height, width=width).boxes_B4.T
    assert (y0 >= 0).all()
    assert (x0 >= 0).all()
    assert (y1 <= height).all()
    assert (x1 <= width).all()
    assert ((y1 > y0) == (x1 > x0)).all()


def test_boxes_have_the_area_and_ratio_that_were_asked_for():
    always = AugmentSettings(0.5, 10, 1.0, (0.02, 0.4), (0.3, 3.33))
    y0, x0, y1, x1 = table(always, batch_size=5000, height=256, width=128).boxes_B4.T
    areas, ratios = (y1 - y0) * (x1 - x0) / (256 * 128), (y1 - y0) / (x1 - x0)
    assert areas.min() > 0.018
    assert areas.max() < 0.41
    assert ratios.min() > 0.28
    assert ratios.max() < 3.5
    assert y0.min() == 0
    assert y1.max() == 256


def test_shares_are_those_of_the_settings():
    drawn = table(batch_size=20_000)
    assert abs(drawn.flips_B.mean() - 0.5) < 0.02
    assert abs((drawn.boxes_B4[:, 2] > 0).mean() - 0.5) < 0.02
    np.testing.assert_array_equal(np.unique(drawn.dy_B), np.arange(7))
    np.testing.assert_array_equal(np.unique(drawn.dx_B), np.arange(7))
    assert np.bincount(drawn.dy_B).min() > 20_000 / 7 * 0.9
    sure = table(AugmentSettings(1.0, 3, 1.0, (0.02, 0.4), (0.3, 3.33)))
    assert sure.flips_B.all()
    assert (sure.boxes_B4[:, 2] > 0).all()


def same(first, second):
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_seed_epoch_and_step_are_the_key():
    first = table()
    assert same(first, table())
    for other in (table(seed=1), table(epoch=1), table(step=1)):
        assert not same(first, other)
    assert not same(table(seed=1), table(epoch=1))


def test_a_slot_does_not_depend_on_the_size_of_the_batch():
    assert same(table(batch_size=64).rows(slice(0, 10)), table(batch_size=10))


def test_one_kind_of_draw_does_not_depend_on_the_settings_of_another():
    no_flip = table(AugmentSettings(0.0, 3, 0.5, (0.02, 0.4), (0.3, 3.33)))
    np.testing.assert_array_equal(no_flip.boxes_B4, table().boxes_B4)
    np.testing.assert_array_equal(no_flip.dx_B, table().dx_B)


def test_wrong_rows_padding_or_size_are_refused():
    with pytest.raises(ValueError, match="boxes inside of 20 x 10 pixels, got one outside"):
        apply(images(500), table(batch_size=500), pad=3, height=20, width=10)
    with pytest.raises(ValueError, match="got 5 rows for 4 images"):
        apply(images(4), table(batch_size=5), pad=3)
    zeros = np.zeros(1, dtype=np.int64)
    far = Augmentation(np.zeros(1, dtype=bool), zeros + 7, zeros, np.zeros((1, 4), dtype=np.int64))
    with pytest.raises(ValueError, match="in 0 to 6 for padding 3, got 0 to 7"):
        apply(images(1), far, pad=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((1.5, 0, 0.5, (0.02, 0.4), (0.3, 3.3)), "probabilities"),
        ((0.5, -1, 0.5, (0.02, 0.4), (0.3, 3.3)), "pad must be"),
        ((0.5, 0, 0.5, (0.4, 0.02), (0.3, 3.3)), "erase_area"),
        ((0.5, 0, 0.5, (0.02, 0.4), (0.0, 3.3)), "erase_ratio"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        AugmentSettings(*values)
