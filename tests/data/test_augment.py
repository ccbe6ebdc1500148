import numpy as np
import pytest

from reidray.data.augment import Augmentation, AugmentSettings, apply, draw

SETTINGS = AugmentSettings(flip=0.5, pad=3, erase=0.5, erase_area=(0.02, 0.4), erase_ratio=(0.3, 3.33))
FILL = np.array([124, 116, 104], dtype=np.uint8)


def table(settings=SETTINGS, *, seed=0, epoch=0, step=0, batch_size=500, height=32, width=16):
    return draw(settings, seed=seed, epoch=epoch, step=step, batch_size=batch_size, height=height, width=width)


def images(batch_size, height=32, width=16):
    return np.random.default_rng(0).integers(0, 256, (batch_size, height, width, 3), dtype=np.uint8)


def slow_apply(image, flip, dy, dx, box, pad):
    """Pads, crops, mirrors and paints one image, pixel by pixel."""
    height, width, _ = image.shape
    out = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            row, column = y + dy - pad, (width - 1 - x if flip else x) + dx - pad
            inside = 0 <= row < height and 0 <= column < width
            erased = box[0] <= y < box[2] and box[1] <= x < box[3]
            out[y, x] = image[row, column] if inside and not erased else FILL
    return out


def test_apply_agrees_with_the_loop_over_pixels():
    batch, drawn = images(40), table(batch_size=40)
    before = batch.copy()
    out = apply(batch, drawn, pad=3, fill=FILL)
    assert out.dtype == np.uint8
    for b in range(40):
        expected = slow_apply(batch[b], drawn.flips_B[b], drawn.dy_B[b], drawn.dx_B[b], drawn.boxes_B4[b], 3)
        np.testing.assert_array_equal(out[b], expected)
    np.testing.assert_array_equal(batch, before)


def test_nothing_drawn_changes_nothing():
    batch = images(6)
    still = table(AugmentSettings(0.0, 0, 0.0, (0.02, 0.4), (0.3, 3.33)), batch_size=6)
    np.testing.assert_array_equal(apply(batch, still, pad=0, fill=FILL), batch)


def test_images_that_are_views_are_taken_too():
    batch = images(4)
    drawn = table(batch_size=4)
    np.testing.assert_array_equal(
        apply(batch[:, :, ::-1], drawn, pad=3, fill=FILL),
        apply(np.ascontiguousarray(batch[:, :, ::-1]), drawn, pad=3, fill=FILL),
    )


def test_workers_that_take_their_rows_get_the_rows_of_the_whole():
    batch, drawn = images(12), table(batch_size=12)
    whole = apply(batch, drawn, pad=3, fill=FILL)
    parts = [apply(batch[s], drawn.rows(s), pad=3, fill=FILL) for s in (slice(0, 5), slice(5, 12))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    some = np.array([7, 2, 2])
    np.testing.assert_array_equal(apply(batch[some], drawn.rows(some), pad=3, fill=FILL), whole[some])


def test_no_rows_give_no_images():
    assert apply(images(0), table(batch_size=0), pad=3, fill=FILL).shape == (0, 32, 16, 3)


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


def test_wrong_rows_or_padding_are_refused():
    with pytest.raises(ValueError, match="got 5 rows for 4 images"):
        apply(images(4), table(batch_size=5), pad=3, fill=FILL)
    zeros = np.zeros(1, dtype=np.int64)
    far = Augmentation(np.zeros(1, dtype=bool), zeros + 7, zeros, np.zeros((1, 4), dtype=np.int64))
    with pytest.raises(ValueError, match="in 0 to 6 for padding 3, got up to 7"):
        apply(images(1), far, pad=3, fill=FILL)


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
