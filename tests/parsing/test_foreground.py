import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from reidray.parsing import classes_1d
from reidray.parsing.foreground import foreground_cells, room_for_sums
from tests.reference.parsing import brute_classes, squared_error

small_numbers = st.lists(st.integers(0, 12), min_size=0, max_size=12)


def found(magnitudes, *, width=1, classes=3, log_magnitude=False, centre_prior=0.0):
    magnitudes = np.array(magnitudes, float)
    cells, sums = np.empty(len(magnitudes), np.int64), room_for_sums(len(magnitudes))
    count = foreground_cells(magnitudes, width, classes, log_magnitude, centre_prior, sums, cells)
    return cells[:count].tolist()


def test_three_heaps_are_three_classes_by_hand():
    assert classes_1d([9, 0, 5, 1, 10, 4], num_classes=3).tolist() == [2, 0, 1, 0, 2, 1]


def test_two_heaps_are_two_classes_by_hand():
    assert classes_1d([3.0, 0.1, 2.9, 0.0, 2.5], num_classes=2).tolist() == [1, 0, 1, 0, 1]


def test_among_equally_good_divisions_the_smallest_split_positions_win():
    assert classes_1d([0, 1, 2], num_classes=2).tolist() == [0, 1, 1]
    assert classes_1d([0, 1, 2, 3], num_classes=3).tolist() == [0, 1, 2, 2]
    assert classes_1d([0.1, 0.2, 0.3], num_classes=2).tolist() == [0, 1, 1]


def test_no_values_have_no_classes():
    assert classes_1d([], num_classes=3).tolist() == []


def test_few_distinct_values_are_classes_of_their_own():
    assert classes_1d([4, 4], num_classes=3).tolist() == [0, 0]
    assert classes_1d([4, 1, 4], num_classes=3).tolist() == [1, 0, 1]
    assert classes_1d([4, 1, 9], num_classes=3).tolist() == [1, 0, 2]


@settings(derandomize=True, deadline=None, max_examples=250)
@given(small_numbers, st.sampled_from([2, 3]))
def test_equal_to_trying_all_divisions_ties_included(values, num_classes):
    np.testing.assert_array_equal(classes_1d(values, num_classes=num_classes), brute_classes(values, num_classes))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=14), st.sampled_from([2, 3]))
def test_no_division_of_floats_is_better(values, num_classes):
    values = np.array(values)
    classes = classes_1d(values, num_classes=num_classes)
    error = squared_error(values, brute_classes(values, num_classes))
    assert squared_error(values, classes) <= error + 1e-11 * ((values - values.mean()) ** 2).sum()
    for value in values:
        assert len(set(classes[values == value].tolist())) == 1, "equal values were split"


@pytest.mark.parametrize("num_classes", [2, 3])
def test_never_worse_than_scikit_learn(num_classes):
    random = np.random.default_rng(0)
    for _ in range(12):
        values = np.concatenate([random.gamma(2, 1, 120), random.normal(6, 1, 50), random.normal(12, 3, 22)])
        peer = KMeans(num_classes, n_init=10, random_state=0).fit(values[:, None]).labels_
        mine = squared_error(values, classes_1d(values, num_classes=num_classes))
        assert mine <= squared_error(values, peer) * (1 + 1e-12)


def test_scale_shift_and_order_of_the_values_do_not_matter():
    random = np.random.default_rng(1)
    values = random.gamma(2, 1, 60)
    order = random.permutation(60)
    classes = classes_1d(values, num_classes=3)
    np.testing.assert_array_equal(classes_1d(values[order], num_classes=3), classes[order])
    np.testing.assert_array_equal(classes_1d(values * 1e-150, num_classes=3), classes)
    np.testing.assert_array_equal(classes_1d(values * 1e150 + 1e150, num_classes=3), classes)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.sampled_from([0.0, 1e-300, 1.0, 1 + 1e-15, 2.0, 7.0, 1e8, 1e300]), max_size=60))
def test_values_of_very_unequal_gaps_are_sorted_too(values):
    values = np.array(values)
    classes = classes_1d(values, num_classes=2)
    order = np.argsort(values, kind="stable")
    assert (np.diff(classes[order]) >= 0).all()
    np.testing.assert_array_equal(classes[::-1], classes_1d(values[::-1], num_classes=2))


@pytest.mark.parametrize("values", [[0.0, 5e-324], [0.0] * 30 + [5e-324, 1e308], [-1e308, 0.0, 1e308]])
def test_spreads_that_float64_cannot_divide_by_are_no_obstacle(values):
    classes = classes_1d(values, num_classes=3)
    assert classes.min() == 0
    assert (np.diff(classes) >= 0).all()


def test_differences_that_float64_cannot_hold_are_no_obstacle():
    assert classes_1d([-1.7e308, -1.6e308, 1.6e308, 1.7e308], num_classes=2).tolist() == [0, 0, 1, 1]
    assert classes_1d([1.7e308, 0.0, -1.7e308, 1.6e308], num_classes=3).tolist() == [2, 1, 0, 2]


def test_a_hundred_values_in_one_heap_beside_an_outlier():
    random = np.random.default_rng(2)
    values = np.concatenate([random.random(100), [50.0]])
    assert classes_1d(values, num_classes=2).tolist() == [0] * 100 + [1]
    inner = classes_1d(values, num_classes=3)[:100]
    np.testing.assert_array_equal(inner, classes_1d(values[:100], num_classes=2))


def test_values_are_not_modified():
    values = np.array([3.0, 1.0, 2.0, 7.0])
    classes_1d(values, num_classes=2)
    assert values.tolist() == [3.0, 1.0, 2.0, 7.0]


def test_unusable_values_are_refused():
    with pytest.raises(ValueError, match="finite"):
        classes_1d([1.0, np.nan], num_classes=2)
    with pytest.raises(ValueError, match="one row"):
        classes_1d([[1.0]], num_classes=2)
    with pytest.raises(ValueError, match="2 or 3"):
        classes_1d([1.0], num_classes=4)


def test_the_two_upper_classes_of_three_are_foreground():
    assert found([0, 1, 5, 6, 20]) == [2, 3, 4]


def test_two_classes_lose_the_regular_foreground_beside_a_salient_cell():
    assert found([0, 1, 5, 6, 20], classes=2) == [4]


def test_all_zero_has_no_foreground():
    assert found([0, 0, 0]) == []


def test_two_distinct_magnitudes_leave_the_upper_one():
    assert found([2, 1, 2]) == [0, 2]
    assert found([0, 1, 0]) == [1]


def test_one_distinct_magnitude_is_all_foreground():
    assert found([3, 3, 3]) == [0, 1, 2]
    assert found([3, 3, 3], log_magnitude=True) == [0, 1, 2]


def test_logarithms_rescue_weak_foreground_and_zero_cells_are_background_beforehand():
    magnitudes = [0, 0.01, 0.011, 1, 1.1, 40]
    assert found(magnitudes, classes=2) == [5]
    assert found(magnitudes, classes=2, log_magnitude=True) == [3, 4, 5]
    assert found([0, 7, 7], log_magnitude=True) == [1, 2]


def test_centre_prior_pulls_the_foreground_to_the_middle_column():
    row = [0.8, 0.2, 0.9, 0.7, 0.1]
    assert found(row, width=5, classes=2) == [0, 2, 3]
    assert found(row, width=5, classes=2, centre_prior=0.5) == [2, 3]  # scores -.1 -.3 1 .3 -.9
    assert found([0, 0, 1], width=3, classes=2, centre_prior=9.0) == [], (
        "a zero cell in the middle must not become foreground"
    )
