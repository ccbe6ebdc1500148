import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray.labelling import split_by_attributes
from tests.reference import attributes as reference


def drawn(count, num_clusters, num_attributes, num_values, seed):
    """Gap-free labels with some outliers, and attributes of which some are not noted, some images without any."""
    random = np.random.default_rng(seed)
    labels_N = random.integers(-1, num_clusters, count)
    labels_N[labels_N >= 0] = np.unique(labels_N[labels_N >= 0], return_inverse=True)[1]
    attributes_NA = random.integers(-1, num_values, (count, num_attributes)).astype(np.int32)
    attributes_NA[random.random(count) < 0.1] = -1
    return labels_N, attributes_NA


CASES = given(
    st.builds(
        drawn,
        st.integers(0, 60),
        st.integers(1, 6),
        st.integers(1, 4),
        st.sampled_from([1, 2, 3]),
        st.integers(0, 2**16),
    ),
    st.integers(1, 8),
)
MANY = settings(max_examples=200, deadline=None, derandomize=True)


def clusters_of(labels_N):
    return {frozenset(np.flatnonzero(labels_N == label).tolist()) for label in set(labels_N.tolist()) - {-1}}


# by hand


def test_large_groups_leave_and_the_rest_keep_the_old_label():
    noted = np.array([[1, 1], [1, 2], [1, 1], [2, 1], [1, 2], [2, 2]])
    split = split_by_attributes(np.zeros(6, int), noted, least=2)
    assert split.labels_N.tolist() == [1, 2, 1, 0, 2, 0]
    assert (split.num_splits, split.num_split_clusters, split.num_moved) == (2, 1, 4)
    assert split.labels_N.dtype == np.int64


def test_a_group_of_exactly_the_least_size_leaves_and_one_below_it_stays():
    noted = np.array([[1]] * 5 + [[2]] * 4 + [[3]])
    split = split_by_attributes(np.zeros(10, int), noted, least=5)
    assert split.labels_N.tolist() == [1] * 5 + [0] * 5
    assert split.num_splits == 1


def test_a_cluster_that_is_one_group_stays_as_it_is():
    split = split_by_attributes(np.array([1, 1, 0, 1]), np.array([[7], [7], [7], [7]]), least=1)
    assert split.labels_N.tolist() == [1, 1, 0, 1]
    assert (split.num_splits, split.num_split_clusters, split.num_moved) == (0, 0, 0)


def test_where_nobody_would_be_left_the_largest_group_keeps_the_label():
    split = split_by_attributes(np.zeros(7, int), np.array([[5], [5], [3], [3], [3], [9], [9]]), least=2)
    assert split.labels_N.tolist() == [1, 1, 0, 0, 0, 2, 2]
    assert (split.num_splits, split.num_split_clusters, split.num_moved) == (2, 1, 4)
    split = split_by_attributes(np.zeros(4, int), np.array([[5], [3], [3], [5]]), least=2)
    assert split.labels_N.tolist() == [0, 1, 1, 0]


def test_new_clusters_come_after_the_old_in_the_order_of_their_lowest_images():
    labels_N = np.array([1, 0, 1, 0, 1, 0])
    noted = np.array([[4], [8], [2], [1], [4], [8]])
    split = split_by_attributes(labels_N, noted, least=2)
    assert split.labels_N.tolist() == [2, 3, 1, 0, 2, 3]
    assert split.num_split_clusters == 2


def test_equal_attributes_do_not_join_what_is_apart():
    split = split_by_attributes(np.array([0, 0, 1, 1, -1]), np.full((5, 3), 2), least=1)
    assert split.labels_N.tolist() == [0, 0, 1, 1, -1]


def test_outliers_are_left_alone_whatever_is_noted_of_them():
    split = split_by_attributes(np.array([-1, -1, 0, -2, 0]), np.array([[1], [1], [1], [1], [2]]), least=1)
    assert split.labels_N.tolist() == [-1, -1, 0, -2, 1]


def test_an_image_of_which_nothing_is_noted_stays_and_a_single_gap_is_a_value():
    noted = np.array([[-1, -1], [-1, -1], [1, -1], [1, -1], [1, 2]])
    split = split_by_attributes(np.zeros(5, int), noted, least=2)
    assert split.labels_N.tolist() == [0, 0, 1, 1, 0]


def test_nothing_known_no_attributes_and_no_images_change_nothing():
    labels_N = np.array([1, 0, -1, 1])
    for noted in (np.full((4, 3), -1), np.empty((4, 0), np.int32)):
        split = split_by_attributes(labels_N, noted, least=1)
        assert split.labels_N.tolist() == [1, 0, -1, 1]
        assert split.num_splits == 0
    assert split_by_attributes([], np.empty((0, 3)), least=1).labels_N.tolist() == []
    assert split_by_attributes(np.array([-1, -1]), np.ones((2, 1), int), least=1).labels_N.tolist() == [-1, -1]


# against the loop


@MANY
@CASES
def test_labels_are_those_of_the_loop_written_from_the_paper(case, least):
    labels_N, noted = case
    split = split_by_attributes(labels_N, noted, least=least)
    assert clusters_of(split.labels_N) == reference.clusters_after(labels_N.tolist(), noted.tolist(), least)
    assert split.labels_N.tolist() == reference.labels_after(labels_N.tolist(), noted.tolist(), least)


# what must hold for any input


@MANY
@CASES
def test_clusters_are_divided_and_never_joined_and_numbers_have_no_gaps(case, least):
    labels_N, noted = case
    before = labels_N.copy(), noted.copy()
    split = split_by_attributes(labels_N, noted, least=least)
    np.testing.assert_array_equal(labels_N, before[0])
    np.testing.assert_array_equal(noted, before[1])
    for part in clusters_of(split.labels_N):
        assert any(part <= whole for whole in clusters_of(labels_N))
    num_before, num_after = len(clusters_of(labels_N)), len(clusters_of(split.labels_N))
    assert set(split.labels_N.tolist()) - {-1} == set(range(num_after))
    np.testing.assert_array_equal(split.labels_N == -1, labels_N == -1)
    changed_N = split.labels_N != labels_N
    assert split.num_splits == num_after - num_before
    assert split.num_moved == changed_N.sum()
    assert split.num_split_clusters == len(set(labels_N[changed_N].tolist()))
    assert set(split.labels_N[changed_N].tolist()) == set(range(num_before, num_after))
    for label in range(num_before, num_after):
        assert (split.labels_N == label).sum() >= least


@MANY
@CASES
def test_a_threshold_above_all_images_changes_nothing(case, least):
    labels_N, noted = case
    split = split_by_attributes(labels_N, noted, least=len(labels_N) + least)
    np.testing.assert_array_equal(split.labels_N, labels_N)
    assert (split.num_splits, split.num_split_clusters, split.num_moved) == (0, 0, 0)


@MANY
@CASES
def test_a_second_split_finds_nothing_to_do(case, least):
    labels_N, noted = case
    once = split_by_attributes(labels_N, noted, least=least)
    np.testing.assert_array_equal(split_by_attributes(once.labels_N, noted, least=least).labels_N, once.labels_N)


@MANY
@CASES
def test_the_order_of_the_images_decides_numbers_only(case, least):
    labels_N, noted = case
    order_N = np.random.default_rng(least).permutation(len(labels_N))
    split = split_by_attributes(labels_N, noted, least=least)
    mixed = split_by_attributes(labels_N[order_N], noted[order_N], least=least)
    back_N = np.empty_like(mixed.labels_N)
    back_N[order_N] = mixed.labels_N
    assert clusters_of(back_N) == clusters_of(split.labels_N)
    assert (mixed.num_splits, mixed.num_split_clusters) == (split.num_splits, split.num_split_clusters)
    assert mixed.num_moved == split.num_moved


@MANY
@CASES
def test_neither_the_order_of_the_columns_nor_their_codes_nor_their_type_decides_anything(case, least):
    labels_N, noted = case
    split = split_by_attributes(labels_N, noted, least=least)
    random = np.random.default_rng(least)
    order_A = random.permutation(noted.shape[1])
    recoded = np.where(noted == -1, -1, random.permutation(10)[noted] + 100)
    for other in (noted[:, order_A], recoded, noted.astype(np.int8), np.asfortranarray(noted), np.repeat(noted, 2, 1)):
        found = split_by_attributes(labels_N, other, least=least)
        np.testing.assert_array_equal(found.labels_N, split.labels_N)


# what is refused


@pytest.mark.parametrize(
    ("labels", "noted", "least", "message"),
    [
        ([[0]], [[1]], 1, "labels must be a vector of integers"),
        ([0.5], [[1]], 1, "labels must be a vector of integers"),
        ([0], [1], 1, "attributes must be a matrix of integers"),
        ([0], [[0.5]], 1, "attributes must be a matrix of integers"),
        ([0, 0], [[1]], 1, "expected attributes of each of the 2 labelled images, got 1 rows"),
        ([0], [[1]], 0, "expected least >= 1"),
        ([0, 2], [[1], [1]], 1, "expected labels 0 to 2 without gaps, got no image with label 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(labels, noted, least, message):
    with pytest.raises(ValueError, match=message):
        split_by_attributes(np.array(labels), np.array(noted), least=least)
