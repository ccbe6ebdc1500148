import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray.neighbours import jaccard_distances, jaccard_from_neighbours, nearest
from tests.reference.jaccard import jaccard


def grouped_rows(count, width, groups, spread, seed):
    """Images around a few centres; spread 0 gives duplicates."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((groups, width))[random.integers(0, groups, count)]
    rows = rows + spread * random.standard_normal((count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


rows_strategy = st.builds(
    grouped_rows,
    st.integers(1, 45),
    st.integers(2, 12),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.integers(0, 2**16),
)


def dense(distances):
    full = np.ones(distances.shape)
    rows = np.repeat(np.arange(distances.shape[0]), np.diff(distances.indptr))
    full[rows, distances.indices] = distances.data
    return full


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows_strategy, st.sampled_from([1, 2, 3, 5, 8, 15, 30]), st.sampled_from([1, 2, 6, 50]))
def test_equals_the_definition(features, k1, k2):
    distances = jaccard_distances(features, k1=k1, k2=k2)
    np.testing.assert_allclose(dense(distances), jaccard(features, k1, k2), atol=2e-6, rtol=0)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(rows_strategy, st.floats(0.01, 1.0))
def test_the_matrix_is_symmetric_sorted_and_holds_exactly_the_wanted_pairs(features, keep):
    full = jaccard_distances(features, k1=8, k2=3)
    some = jaccard_distances(features, k1=8, k2=3, keep=keep)
    for distances in (full, some):
        assert distances.dtype == np.float32
        assert distances.has_canonical_format
        assert (distances != distances.T).nnz == 0
        assert (distances.data < 1).all()
        on_diagonal = distances.indices == np.repeat(np.arange(distances.shape[0]), np.diff(distances.indptr))
        assert on_diagonal.sum() == len(features)
        assert (distances.data[on_diagonal] == 0).all()
    wanted = full.data <= np.float32(keep)
    np.testing.assert_array_equal(some.data, full.data[wanted])
    np.testing.assert_array_equal(some.indices, full.indices[wanted])


def test_two_pairs_by_hand():
    # With k1 = 2 each image has its partner; every description is half and half (as similarities 1 and 0.8 weigh it).
    features = np.array([[1, 0, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0.8, 0.6]], np.float32)
    distances = dense(jaccard_distances(features, k1=2, k2=1))
    near, far = 1 / (1 + np.exp(-0.4)), np.exp(-0.4) / (1 + np.exp(-0.4))
    apart = 1 - 2 * min(near, far) / (2 - 2 * min(near, far))
    expected = np.ones((4, 4))
    expected[:2, :2] = expected[2:, 2:] = [[0, apart], [apart, 0]]
    np.testing.assert_allclose(distances, expected, atol=1e-6)
    averaged = dense(jaccard_distances(features, k1=2, k2=2))
    np.testing.assert_allclose(averaged[:2, :2], np.zeros((2, 2)), atol=1e-6)


def test_k1_counts_the_image_itself():
    features = grouped_rows(20, 6, 5, 0.5, 0)
    assert jaccard_distances(features, k1=1, k2=1).nnz == 20
    first_two = nearest(features, 2)[0]
    partners = {(i, int(j)) for i, j in first_two if first_two[j, 1] == i}
    stored = jaccard_distances(features, k1=2, k2=1).tocoo()
    assert {(i, j) for i, j in zip(*stored.coords, strict=True) if i != j} >= partners


def test_half_list_lengths_round_half_to_even():
    # k1 = 5: half list of round(2.5) + 1 = 3 columns; the reference uses NumPy's rounding, which is to even.
    for seed in range(20):
        features = grouped_rows(40, 4, 3, 0.6, seed)
        np.testing.assert_allclose(dense(jaccard_distances(features, k1=5, k2=1)), jaccard(features, 5, 1), atol=2e-6)


def test_more_duplicates_than_k1_leave_the_later_ones_without_neighbours_of_their_own():
    features = np.tile(np.array([[0.6, 0.8]], np.float32), (7, 1))
    alone = jaccard_distances(features, k1=3, k2=1)
    np.testing.assert_allclose(dense(alone), jaccard(features, 3, 1), atol=2e-6)
    assert np.diff(alone.indptr).tolist() == [3, 3, 3, 1, 1, 1, 1]
    together = jaccard_distances(features, k1=3, k2=3)
    assert together.nnz == 49
    assert np.abs(together.data).max() < 1e-6


def test_fewer_images_than_k1_and_a_single_image():
    features = grouped_rows(4, 5, 2, 0.3, 1)
    np.testing.assert_allclose(dense(jaccard_distances(features)), jaccard(features, 30, 6), atol=2e-6)
    single = jaccard_distances(features[:1])
    assert single.shape == (1, 1)
    assert single.nnz == 1
    assert single.data.tolist() == [0.0]


def test_longer_lists_from_elsewhere_give_the_same_bits():
    features = grouped_rows(80, 16, 9, 0.4, 2)
    expected = jaccard_distances(features, k1=10, k2=4, keep=0.7)
    indices, similarities = nearest(features, 25)
    copies = indices.copy(), similarities.copy(), features.copy()
    mine = jaccard_from_neighbours(indices, similarities, features, k1=10, k2=4, keep=0.7)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(expected, name))
    for now, before in zip((indices, similarities, features), copies, strict=True):
        np.testing.assert_array_equal(now, before)


def test_the_number_of_threads_changes_no_bit():
    features = grouped_rows(101, 16, 9, 0.4, 3)
    expected = jaccard_distances(features, k1=12, k2=5)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        alone = jaccard_distances(features, k1=12, k2=5)
    finally:
        numba.set_num_threads(threads)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(expected, name))


@pytest.mark.parametrize("bad", [{"k1": 0}, {"k2": 0}, {"keep": 0.0}, {"keep": 1.1}, {"keep": float("nan")}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        jaccard_distances(np.eye(3, dtype=np.float32), **bad)


def test_lists_that_do_not_belong_to_the_features_are_refused():
    features = np.eye(3, dtype=np.float32)
    indices, similarities = nearest(features, 2)
    wanted = {"k1": 2, "k2": 1, "keep": 1.0}
    with pytest.raises(ValueError, match="at least 3 columns"):
        jaccard_from_neighbours(indices, similarities, features, k1=3, k2=1, keep=1.0)
    with pytest.raises(ValueError, match="3 rows"):
        jaccard_from_neighbours(indices[:2], similarities[:2], features, **wanted)
    with pytest.raises(ValueError, match=r"\[0, 3\)"):
        jaccard_from_neighbours(indices + 1, similarities, features, **wanted)
    with pytest.raises(ValueError, match="row 1 holds NaN"):
        jaccard_distances(np.array([[1.0, 0], [np.nan, 0]]))
