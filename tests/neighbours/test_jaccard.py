import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from reidray.neighbours import jaccard_distances, jaccard_from_neighbours, nearest, sparse_rows
from reidray.threads import set_threads
from tests.reference.jaccard import jaccard, jaccard_in_float32


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


lengths = st.sampled_from([1, 2, 3, 4, 5, 8, 15, 30])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows_strategy, lengths, st.sampled_from([1, 2, 6, 50]), st.booleans())
def test_equals_the_definition(features, k1, k2, counts_itself):
    distances = jaccard_distances(features, k1=k1, k2=k2, keep=1.0, counts_itself=counts_itself)
    expected = jaccard(features, k1, k2, counts_itself)
    np.testing.assert_allclose(dense(distances), expected, atol=2e-6, rtol=0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    rows_strategy, lengths, st.sampled_from([1, 2, 6, 50]), st.booleans(), st.sampled_from([0.05, 0.4, 0.6, 0.7, 1.0])
)
def test_equals_the_definition_bit_for_bit_on_the_same_neighbour_lists(features, k1, k2, counts_itself, keep):
    lists = nearest(features, k1 + 1)
    distances = jaccard_from_neighbours(*lists, features, k1=k1, k2=k2, keep=keep, counts_itself=counts_itself)
    expected = jaccard_in_float32(*lists, features, k1, k2, counts_itself)
    expected[expected > np.float32(keep)] = 1
    np.testing.assert_array_equal(dense(distances), expected)


def test_long_rows_and_many_pairs_equal_the_definition_bit_for_bit():
    features = grouped_rows(150, 10, 3, 0.7, 4)
    lists = nearest(features, 81)
    for keep in (0.3, 1.0):
        distances = jaccard_from_neighbours(*lists, features, k1=80, k2=3, keep=keep)
        assert distances.nnz > 20 * 150
        expected = jaccard_in_float32(*lists, features, 80, 3)
        expected[expected > np.float32(keep)] = 1
        np.testing.assert_array_equal(dense(distances), expected)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows_strategy, st.floats(0.01, 1.0), st.booleans())
def test_the_matrix_is_symmetric_sorted_and_holds_exactly_the_wanted_pairs(features, keep, counts_itself):
    full = jaccard_distances(features, k1=8, k2=3, keep=1.0, counts_itself=counts_itself)
    some = jaccard_distances(features, k1=8, k2=3, keep=keep, counts_itself=counts_itself)
    for distances in (full, some):
        assert distances.dtype == np.float32
        unmarked = sparse.csr_array((distances.data, distances.indices, distances.indptr), shape=distances.shape)
        assert distances.has_canonical_format
        assert unmarked.has_canonical_format
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
    distances = dense(jaccard_distances(features, k1=2, k2=1, keep=1.0))
    near, far = 1 / (1 + np.exp(-0.4)), np.exp(-0.4) / (1 + np.exp(-0.4))
    apart = 1 - 2 * min(near, far) / (2 - 2 * min(near, far))
    expected = np.ones((4, 4))
    expected[:2, :2] = expected[2:, 2:] = [[0, apart], [apart, 0]]
    np.testing.assert_allclose(distances, expected, atol=1e-6)
    averaged = dense(jaccard_distances(features, k1=2, k2=2, keep=1.0))
    np.testing.assert_allclose(averaged[:2, :2], np.zeros((2, 2)), atol=1e-6)


def test_k1_counts_the_image_itself_unless_told_otherwise():
    features = grouped_rows(20, 6, 5, 0.5, 0)
    assert jaccard_distances(features, k1=1, k2=1, keep=1.0).nnz == 20
    first_two = nearest(features, 2)[0]
    partners = {(i, int(j)) for i, j in first_two if first_two[j, 1] == i}
    assert partners
    for given_k1, counts_itself in ((2, True), (1, False)):
        stored = jaccard_distances(features, k1=given_k1, k2=1, keep=1.0, counts_itself=counts_itself).tocoo()
        assert {(i, j) for i, j in zip(*stored.coords, strict=True) if i != j} >= partners


def test_five_with_itself_are_four_without():
    # Lists of 5 columns, half lists of round(2.5) + 1 = round(2) + 1 = 3.
    features = grouped_rows(60, 6, 5, 0.5, 0)
    with_itself = jaccard_distances(features, k1=5, k2=2, keep=1.0, counts_itself=True)
    without = jaccard_distances(features, k1=4, k2=2, keep=1.0, counts_itself=False)
    np.testing.assert_array_equal(with_itself.toarray(), without.toarray())
    assert (with_itself != jaccard_distances(features, k1=4, k2=2, keep=1.0, counts_itself=True)).nnz > 0


def test_half_list_lengths_round_half_to_even():
    # k1 = 5: half list of round(2.5) + 1 = 3 columns; the reference uses NumPy's rounding, which is to even.
    for seed in range(20):
        features = grouped_rows(40, 4, 3, 0.6, seed)
        distances = dense(jaccard_distances(features, k1=5, k2=1, keep=1.0))
        np.testing.assert_allclose(distances, jaccard(features, 5, 1), atol=2e-6)


def test_more_duplicates_than_k1_leave_the_later_ones_without_neighbours_of_their_own():
    features = np.tile(np.array([[0.6, 0.8]], np.float32), (7, 1))
    alone = jaccard_distances(features, k1=3, k2=1, keep=1.0)
    np.testing.assert_allclose(dense(alone), jaccard(features, 3, 1), atol=2e-6)
    assert np.diff(alone.indptr).tolist() == [3, 3, 3, 1, 1, 1, 1]
    together = jaccard_distances(features, k1=3, k2=3, keep=1.0)
    assert together.nnz == 49
    assert np.abs(together.data).max() < 1e-6


def test_fewer_images_than_k1_and_a_single_image():
    features = grouped_rows(4, 5, 2, 0.3, 1)
    for counts_itself in (True, False):
        wanted = {"k1": 30, "k2": 6, "keep": 1.0, "counts_itself": counts_itself}
        distances = dense(jaccard_distances(features, **wanted))
        np.testing.assert_allclose(distances, jaccard(features, 30, 6, counts_itself), atol=2e-6)
        single = jaccard_distances(features[:1], **wanted)
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


def test_indices_of_either_width_give_the_same_bits():
    features = grouped_rows(60, 16, 9, 0.4, 2)
    indices, similarities = nearest(features, 10)
    wanted = {"k1": 10, "k2": 4, "keep": 0.7}
    wide = jaccard_from_neighbours(indices.astype(np.int64), similarities, features, **wanted)
    narrow = jaccard_from_neighbours(indices.astype(np.int32), similarities, features, **wanted)
    np.testing.assert_array_equal(wide.toarray(), narrow.toarray())


def test_neither_the_number_of_threads_nor_the_pieces_change_a_bit(monkeypatch):
    features = grouped_rows(501, 16, 40, 0.4, 3)
    lists = nearest(features, 12)

    def found():
        result = jaccard_from_neighbours(*lists, features, k1=12, k2=5, keep=0.7)
        return result.indptr, result.indices, result.data

    expected = found()
    try:
        for count, piece in ((1, 50), (2, 50), (2, 7), (2, 2048)):
            set_threads(count)
            monkeypatch.setattr(sparse_rows, "_PIECE", piece)
            for mine, theirs in zip(found(), expected, strict=True):
                np.testing.assert_array_equal(mine, theirs)
    finally:
        set_threads(1)


def test_an_order_of_images_renumbers_the_result_and_changes_sums_by_rounding_alone():
    features = grouped_rows(200, 16, 20, 0.4, 5)
    order = np.random.default_rng(0).permutation(200)
    before = dense(jaccard_distances(features, k1=12, k2=5, keep=1.0))
    after = dense(jaccard_distances(features[order], k1=12, k2=5, keep=1.0))
    np.testing.assert_allclose(after, before[np.ix_(order, order)], atol=2e-6)


@pytest.mark.parametrize("bad", [{"k1": 0}, {"k2": 0}, {"keep": 0.0}, {"keep": 1.1}, {"keep": float("nan")}])
def test_impossible_settings_are_refused(bad):
    wanted = {"k1": 2, "k2": 1, "keep": 1.0} | bad
    with pytest.raises(ValueError, match=next(iter(bad))):
        jaccard_distances(np.eye(3, dtype=np.float32), **wanted)


def test_lists_that_do_not_belong_to_the_features_are_refused():
    features = np.eye(3, dtype=np.float32)
    indices, similarities = nearest(features, 2)
    wanted = {"k1": 2, "k2": 1, "keep": 1.0}
    with pytest.raises(ValueError, match="at least 3 columns"):
        jaccard_from_neighbours(indices, similarities, features, k1=3, k2=1, keep=1.0)
    with pytest.raises(ValueError, match="at least 3 columns"):
        jaccard_from_neighbours(indices, similarities, features, counts_itself=False, **wanted)
    with pytest.raises(ValueError, match="3 rows"):
        jaccard_from_neighbours(indices[:2], similarities[:2], features, **wanted)
    with pytest.raises(ValueError, match=r"\[0, 3\)"):
        jaccard_from_neighbours(indices + 1, similarities, features, **wanted)
    with pytest.raises(ValueError, match="one row per image"):
        jaccard_from_neighbours(indices[:0], similarities[:0], features[:0], **wanted)


def test_rows_that_are_zero_or_not_finite_are_refused():
    wanted = {"k1": 2, "k2": 1, "keep": 1.0}
    with pytest.raises(ValueError, match="row 1 holds NaN"):
        jaccard_distances(np.array([[1.0, 0], [np.nan, 0]]), **wanted)
    with pytest.raises(ValueError, match="row 0 is all zero"):
        jaccard_distances(np.array([[0.0, 0], [1, 0]]), **wanted)
    indices = np.array([[0, 1], [1, 0]])
    for similarities, match in (
        ([[1, 0], [0, 0]], "row 1 does not have similarity 1 with itself"),
        ([[1, np.nan], [1, 0]], "row 0 holds others, or NaN or infinity"),
        ([[1, 0], [1, np.inf]], "row 1 holds others, or NaN or infinity"),
        ([[1, 0], [1, 4]], "row 1 holds others, or NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=match):
            jaccard_from_neighbours(indices, np.array(similarities, np.float32), np.eye(2), **wanted)


@pytest.mark.parametrize("value", [0.0, 2.0, np.nan, np.inf])
def test_rows_whose_similarities_are_not_in_the_lists_are_looked_at(value):
    features = grouped_rows(80, 6, 8, 0.6, 0)
    lists = nearest(features, 8)
    wanted = {"k1": 8, "k2": 3, "keep": 0.6}
    jaccard_from_neighbours(*lists, features, **wanted)
    with pytest.raises(ValueError, match="row 0 "), np.errstate(over="ignore", invalid="ignore"):
        jaccard_from_neighbours(*lists, features * np.float32(value), **wanted)


def test_rows_at_the_edge_of_the_tolerance_are_accepted_as_in_the_search():
    features = grouped_rows(80, 6, 8, 0.6, 0) * np.float32(1.00098)
    lists = nearest(features, 8)
    distances = jaccard_from_neighbours(*lists, features, k1=8, k2=3, keep=0.6)
    assert distances.nnz > 80
