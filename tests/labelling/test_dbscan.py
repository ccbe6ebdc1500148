import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN

from reidray.labelling import dbscan
from reidray.neighbours import jaccard_distances


def chain(*links, count):
    """A symmetric matrix with the given (i, j, distance) and a zero diagonal."""
    rows, columns, values = [], [], []
    for i, j, d in links:
        rows += [i, j]
        columns += [j, i]
        values += [d, d]
    rows, columns, values = rows + list(range(count)), columns + list(range(count)), values + [0.0] * count
    return sparse.csr_array((np.array(values, np.float32), (rows, columns)), shape=(count, count))


def drawn_matrix(count, density, symmetric, diagonal, values, seed):
    random = np.random.default_rng(seed)
    full = random.choice(np.asarray(values), (count, count)).astype(np.float32)
    stored = random.random((count, count)) < density
    if symmetric:
        full, stored = np.triu(full) + np.triu(full, 1).T, np.triu(stored) | np.triu(stored, 1).T
    if diagonal == "none":
        np.fill_diagonal(stored, False)
    elif diagonal == "zero":
        np.fill_diagonal(stored, True)
        np.fill_diagonal(full, 0)
    rows, columns = np.nonzero(stored)
    return sparse.csr_array((full[rows, columns], (rows, columns)), shape=(count, count))


def sklearn_labels(distances, eps, min_samples):
    return DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(distances.copy()).labels_


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.builds(
        drawn_matrix,
        st.integers(1, 40),
        st.sampled_from([0.02, 0.08, 0.2, 0.6]),
        st.booleans(),
        st.sampled_from(["none", "zero", "drawn"]),
        st.sampled_from([(0.1, 0.6, 0.9), (0.0, 0.5, 0.6, 0.61), (0.3,), (0.95,)]),
        st.integers(0, 2**16),
    ),
    st.sampled_from([0.5, 0.6, 0.1]),
    st.integers(1, 6),
)
def test_labels_equal_sklearn_element_by_element(distances, eps, min_samples):
    np.testing.assert_array_equal(
        dbscan(distances, eps=eps, min_samples=min_samples), sklearn_labels(distances, eps, min_samples)
    )


@pytest.mark.parametrize("spread", [0.5, 0.8, 1.2])
def test_labels_of_jaccard_distances_equal_sklearn(spread):
    random = np.random.default_rng(0)
    features = random.standard_normal((30, 24))[random.integers(0, 30, 400)]
    features = features + spread * random.standard_normal(features.shape)
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    distances = jaccard_distances(features, k1=12, k2=4, keep=1.0)
    for eps in (0.4, 0.6, 0.8):
        labels = dbscan(distances, eps=eps, min_samples=4)
        np.testing.assert_array_equal(labels, sklearn_labels(distances, eps, 4))
        kept = jaccard_distances(features, k1=12, k2=4, keep=eps)
        np.testing.assert_array_equal(labels, dbscan(kept, eps=eps, min_samples=4))


def test_a_border_point_goes_to_the_lowest_numbered_cluster():
    # 4 lies between the cores 3 and 5 and is not a core itself; 0 is noise.
    links = [(1, 2, 0.1), (2, 3, 0.1), (1, 3, 0.1), (3, 4, 0.2), (4, 5, 0.2), (5, 6, 0.1), (6, 7, 0.1), (5, 7, 0.1)]
    labels = dbscan(chain(*links, count=8), eps=0.5, min_samples=4)
    assert labels.tolist() == [-1, 0, 0, 0, 0, 1, 1, 1]
    assert labels.dtype == np.int64


def test_clusters_are_numbered_by_their_lowest_core_point_not_by_their_lowest_member():
    # 0 is a border point of the cluster around 5; the core 1 comes first.
    links = [(0, 5, 0.1), (5, 6, 0.1), (5, 7, 0.1), (1, 2, 0.1), (1, 3, 0.1), (1, 4, 0.1)]
    assert dbscan(chain(*links, count=8), eps=0.5, min_samples=4).tolist() == [1, 0, 0, 0, 0, 1, 1, 1]


def test_the_limit_is_inclusive_in_float32():
    distances = chain((0, 1, 0.6), count=2)
    assert dbscan(distances, eps=0.6, min_samples=2).tolist() == [0, 0]
    assert dbscan(distances, eps=0.5999999, min_samples=2).tolist() == [-1, -1]


def test_a_missing_diagonal_counts_as_zero_and_a_stored_one_by_its_value():
    pair = sparse.csr_array(np.array([[0, 0.1], [0.1, 0]], np.float32))
    assert pair.nnz == 2
    assert dbscan(pair, eps=0.5, min_samples=2).tolist() == [0, 0]
    far = sparse.csr_array(np.array([[0.9, 0.1], [0.1, 0.9]], np.float32))
    assert dbscan(far, eps=0.5, min_samples=2).tolist() == [-1, -1] == sklearn_labels(far, 0.5, 2).tolist()


def test_no_cluster_one_cluster_one_image_and_no_image():
    nothing = sparse.csr_array((5, 5), dtype=np.float32)
    assert dbscan(nothing, eps=0.5, min_samples=2).tolist() == [-1] * 5
    assert dbscan(nothing, eps=0.5, min_samples=1).tolist() == [0, 1, 2, 3, 4]
    assert dbscan(chain(*[(0, j, 0.1) for j in range(1, 5)], count=5), eps=0.5, min_samples=5).tolist() == [0] * 5
    assert dbscan(sparse.csr_array((1, 1), dtype=np.float32), eps=0.5, min_samples=1).tolist() == [0]
    assert dbscan(sparse.csr_array((0, 0), dtype=np.float32), eps=0.5, min_samples=1).tolist() == []


def test_other_formats_and_unsorted_rows_mean_the_same_and_stay_as_they_are():
    sorted_rows = chain((0, 1, 0.1), (1, 2, 0.2), (0, 2, 0.3), count=4)
    unsorted = sparse.csr_array(
        (sorted_rows.data[::-1].copy(), sorted_rows.indices[::-1].copy(), 10 - sorted_rows.indptr[::-1]), shape=(4, 4)
    )
    before = unsorted.indices.copy()
    expected = sklearn_labels(unsorted.sorted_indices(), 0.25, 3)
    np.testing.assert_array_equal(dbscan(unsorted, eps=0.25, min_samples=3), expected)
    np.testing.assert_array_equal(unsorted.indices, before)
    np.testing.assert_array_equal(dbscan(unsorted.tocoo(), eps=0.25, min_samples=3), expected)


def test_impossible_arguments_are_refused():
    distances = chain((0, 1, 0.1), count=3)
    for eps in (0.0, -0.1, 1.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"eps must be in \(0, 1\)"):
            dbscan(distances, eps=eps, min_samples=4)
    with pytest.raises(ValueError, match="min_samples"):
        dbscan(distances, eps=0.5, min_samples=0)
    with pytest.raises(ValueError, match="sparse"):
        dbscan(distances.toarray(), eps=0.5, min_samples=4)
    with pytest.raises(ValueError, match="square"):
        dbscan(distances[:2], eps=0.5, min_samples=4)
    for value in (np.nan, -0.1, np.inf):
        with pytest.raises(ValueError, match="row 1 holds"):
            dbscan(chain((1, 2, value), count=3), eps=0.5, min_samples=4)
    twice = sparse.csr_array((np.ones(2, np.float32), np.array([1, 1]), np.array([0, 2, 2])), shape=(2, 2))
    with pytest.raises(ValueError, match="once"):
        dbscan(twice, eps=0.5, min_samples=1)
