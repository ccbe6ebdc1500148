from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray.evaluation import confusion, mean_iou, stripes


def test_counts_by_hand_add_up_over_batches():
    parts = np.array([[[0, 0], [1, 2]]])
    truth = np.array([[[1, 0], [2, 0]]])
    counts = confusion(parts, truth, 3, 3)
    assert counts.tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert counts.dtype == np.int64
    twice = confusion(np.concatenate([parts, parts]), np.concatenate([truth, truth]), 3, 3)
    np.testing.assert_array_equal(twice, counts + counts)


def test_iou_by_hand_with_parts_in_another_order_than_the_truth():
    # Part 1 is class 1 (2 of 3 cells), part 0 is class 2 (4 of 4), background 5 of 6.
    quality = mean_iou([[0, 0, 4], [1, 2, 0], [5, 0, 0]])
    np.testing.assert_allclose(quality.per_class, [5 / 6, 2 / 3, 1.0])
    assert quality.mIoU == pytest.approx((5 / 6 + 2 / 3 + 1) / 3)
    assert quality.foreground_IoU == pytest.approx(6 / 7)


def test_the_background_is_never_matched_to_a_part():
    # By overlap alone, part 0 would be the true background.
    quality = mean_iou([[9, 1], [0, 1]])
    np.testing.assert_allclose(quality.per_class, [0.0, 1 / 11])
    assert quality.foreground_IoU == pytest.approx(1 / 11)


def test_merged_classes_count_as_one_and_leave_the_mean():
    counts = np.diag([5, 4, 3, 0])[:, [3, 0, 1, 2]]  # three parts on classes 1, 2, 3
    counts = np.concatenate([counts, [[0], [0], [2], [0]]], axis=1)  # shoes under the third part
    counts[3, 0] = 7
    shoes = mean_iou(counts)
    np.testing.assert_allclose(shoes.per_class, [1, 1, 1, 3 / 5, 0])
    legs = mean_iou(counts, merge={4: 3})
    np.testing.assert_allclose(legs.per_class, [1, 1, 1, 1, np.nan])
    assert legs.mIoU == 1.0
    assert counts.sum() == 21


def test_a_class_without_a_part_counts_as_zero():
    quality = mean_iou([[0, 4, 0], [6, 0, 2]])
    np.testing.assert_allclose(quality.per_class, [6 / 8, 1, 0])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 2**16))
def test_the_matching_is_the_best_of_all(num_parts, num_truth, seed):
    counts = np.random.default_rng(seed).integers(0, 6, (num_parts, num_truth))
    counts[-1, 0] += 1
    quality = mean_iou(counts)
    iou = counts / np.maximum(counts.sum(1, keepdims=True) + counts.sum(0) - counts, 1)
    size = max(num_parts, num_truth) - 1
    square = np.zeros((size, size))
    square[: num_parts - 1, : num_truth - 1] = iou[:-1, 1:]
    best = max(sum(square[i, j] for i, j in enumerate(order)) for order in permutations(range(size)))
    assert np.nansum(quality.per_class[1:]) == pytest.approx(best)
    assert quality.per_class[0] == pytest.approx(iou[-1, 0])


def test_stripes_are_bands_of_the_map_inside_the_foreground():
    foreground = np.ones((1, 6, 2), bool)
    foreground[0, :, 1] = False
    assert stripes(foreground, 4)[0].tolist() == [[0, 3], [0, 3], [1, 3], [1, 3], [2, 3], [2, 3]]
    assert stripes(np.ones((1, 8, 1), bool), 4).ravel().tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert stripes(np.zeros((2, 3, 3), bool), 2).tolist() == np.ones((2, 3, 3), int).tolist()


def test_masks_that_do_not_fit_are_refused():
    cells = np.zeros((1, 2, 2), np.int64)
    with pytest.raises(ValueError, match="same cells"):
        confusion(cells, cells[:, :1], 2, 2)
    with pytest.raises(ValueError, match=r"truth must be in \[0, 2\)"):
        confusion(cells, cells + 2, 2, 2)
    with pytest.raises(ValueError, match="parts must be integers"):
        confusion(cells.astype(float), cells, 2, 2)
    with pytest.raises(ValueError, match="at least 2 parts"):
        mean_iou(np.ones((1, 2)))
    with pytest.raises(ValueError, match="not all 0"):
        mean_iou(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="merge"):
        mean_iou(np.ones((2, 2)), merge={4: 3})
    with pytest.raises(ValueError, match="bool"):
        stripes(cells, 4)
    with pytest.raises(ValueError, match="num_parts"):
        stripes(cells.astype(bool), 1)
