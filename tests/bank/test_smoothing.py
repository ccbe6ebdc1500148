"""Moving averages of tables of class numbers, such as the momentum of masks, SCWM eq. 3."""

import numpy as np
import pytest

from reidray.bank import smoothed_masks

# B = images, L = parts, H, W = cells


def parts(seed, num_parts=4):
    return np.random.default_rng(seed).integers(0, num_parts, (3, 6, 2)).astype(np.int8)


def test_the_first_epoch_takes_the_parts_as_they_are():
    masks_BLHW = smoothed_masks(None, np.array([[[0, 2], [1, 1]]], np.int8), num_classes=3, momentum=0.2)
    assert masks_BLHW.dtype == np.float16
    assert masks_BLHW.tolist() == [[[[1, 0], [0, 0]], [[0, 0], [1, 1]], [[0, 1], [0, 0]]]]


def test_later_epochs_mix_by_hand():
    previous = np.array([[[[1.0]], [[0.0]]]], np.float16)
    masks_BLHW = smoothed_masks(previous, np.array([[[1]]]), num_classes=2, momentum=0.25)
    assert masks_BLHW.ravel().tolist() == [0.25, 0.75]
    masks_BLHW = smoothed_masks(masks_BLHW, np.array([[[1]]]), num_classes=2, momentum=0.25)
    assert masks_BLHW.ravel().tolist() == [0.0625, 0.9375]


def test_epochs_agree_with_the_closed_form():
    # After epochs 0..T with momenta g: M_T = sum_t (1 - g_t) [t > 0] prod_{u > t} g_u onehot_t
    momenta = [0.2, 0.19, 0.18, 0.17]
    masks_BLHW = None
    for epoch, momentum in enumerate(momenta):
        masks_BLHW = smoothed_masks(masks_BLHW, parts(epoch), num_classes=4, momentum=momentum)
    for image, part, row, column in np.ndindex(3, 4, 6, 2):
        expected = 0.0
        for epoch, momentum in enumerate(momenta):
            share = 1 - momentum if epoch > 0 else 1.0
            later = np.prod(momenta[epoch + 1 :])
            expected += share * later * (parts(epoch)[image, row, column] == part)
        assert masks_BLHW[image, part, row, column] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("num_parts", [2, 4, 7])
def test_half_precision_masks_sum_to_1_epoch_after_epoch(num_parts):
    masks_BLHW = None
    for epoch in range(25):
        momentum = 0.2 * max(0.0, 1 - epoch / 20)
        masks_BLHW = smoothed_masks(masks_BLHW, parts(epoch, num_parts), num_classes=num_parts, momentum=momentum)
        sums_BHW = masks_BLHW.astype(np.float32).sum(1)
        np.testing.assert_allclose(sums_BHW, 1, atol=num_parts * 2.0**-11)
        assert masks_BLHW.min() >= 0
        # the greatest part of a cell is always the newest, since gamma is below one half
        np.testing.assert_array_equal(masks_BLHW.argmax(1), parts(epoch, num_parts))


def test_momentum_0_forgets_and_momentum_1_keeps_what_was():
    previous = smoothed_masks(None, parts(0), num_classes=4, momentum=0.2)
    copy = previous.copy()
    forgotten = smoothed_masks(previous, parts(1), num_classes=4, momentum=0.0)
    np.testing.assert_array_equal(forgotten, smoothed_masks(None, parts(1), num_classes=4, momentum=0.2))
    np.testing.assert_array_equal(smoothed_masks(previous, parts(1), num_classes=4, momentum=1.0), previous)
    np.testing.assert_array_equal(previous, copy)
