"""DBSCAN by the kernels for a GPU, run on the processor, equals scikit-learn's and reidray's own, label by label."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN

from reidray.cuda.dbscan import dbscan
from reidray.cuda.jaccard import SparseRows
from reidray.labelling.dbscan import dbscan as on_processor
from tests.cuda.emulated import EmulatedDevice, needs_compiler

pytestmark = needs_compiler
DEVICES = (EmulatedDevice(), EmulatedDevice(backward=True))


def drawn_distances(count, degree, seed, diagonal):
    """A symmetric sparse matrix, some distances equal to eps, with a diagonal that is stored, in part, or not."""
    random = np.random.default_rng(seed)
    entries = random.integers(0, count, (2, count * degree // 2))
    values = random.choice(np.array([0.0, 0.2, 0.5, 0.5, 0.6, 0.9], np.float32), entries.shape[1])
    dense = np.full((count, count), np.nan, np.float32)
    dense[entries[0], entries[1]] = values
    dense = np.fmin(dense, dense.T)
    stored = {"stored": np.ones(count, bool), "none": np.zeros(count, bool), "some": random.random(count) < 0.5}[
        diagonal
    ]
    np.fill_diagonal(dense, np.where(stored, np.float32(0.0), np.nan))
    rows, columns = np.nonzero(~np.isnan(dense))
    ends = np.searchsorted(rows, np.arange(count + 1))
    return sparse.csr_array((dense[rows, columns], columns.astype(np.int32), ends), shape=(count, count))


def on_device(matrix):
    return SparseRows(
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int32)),
        torch.from_numpy(matrix.data),
    )


def labels_of(matrix, eps, min_samples, device, dense_bytes=0):
    labels = dbscan(on_device(matrix), eps=eps, min_samples=min_samples, dense_bytes=dense_bytes, device=device)
    assert labels.dtype == torch.int64
    return labels.tolist()


matrices = st.builds(
    drawn_distances,
    st.integers(1, 60),
    st.integers(0, 8),
    st.integers(0, 2**16),
    st.sampled_from(["stored", "none", "some"]),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(matrices, st.sampled_from([0.1, 0.5, 0.7]), st.integers(1, 6), st.sampled_from(DEVICES))
def test_equals_scikit_learn_and_the_processor_label_by_label(matrix, eps, min_samples, device):
    got = labels_of(matrix, eps, min_samples, device)
    assert got == on_processor(matrix, eps=eps, min_samples=min_samples).tolist()
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    dense = np.ones(matrix.shape, np.float32)
    np.fill_diagonal(dense, 0.0)
    dense[rows, matrix.indices] = matrix.data
    reference = DBSCAN(eps=np.float32(eps), min_samples=min_samples, metric="precomputed")
    assert got == reference.fit(dense).labels_.tolist()


def test_a_border_point_goes_to_the_lowest_cluster():
    # Stars around 1 and 5 share the border point 0; 8 is alone.
    dense = np.ones((9, 9), np.float32)
    for centre, around in ((1, (0, 2, 3, 4)), (5, (0, 6, 7))):
        dense[centre, around] = dense[around, centre] = 0.3
    np.fill_diagonal(dense, 0.0)
    rows, columns = np.nonzero(dense < 1)
    ends = np.searchsorted(rows, np.arange(10))
    matrix = sparse.csr_array((dense[rows, columns], columns.astype(np.int32), ends), shape=(9, 9))
    assert labels_of(matrix, 0.5, 4, DEVICES[0]) == [0, 0, 0, 0, 0, 1, 1, 1, -1]


def test_no_cluster_one_cluster_and_one_image():
    everyone = sparse.csr_array(np.full((40, 40), 0.1, np.float32))
    for device in DEVICES:
        assert labels_of(everyone, 0.5, 4, device) == [0] * 40
        assert labels_of(everyone, 0.5, 41, device) == [-1] * 40
        assert labels_of(drawn_distances(1, 0, 0, "none"), 0.5, 1, device) == [0]
        assert labels_of(drawn_distances(1, 0, 0, "stored"), 0.5, 2, device) == [-1]


def test_a_long_chain_is_one_cluster_whatever_the_order_of_threads():
    count = 500
    order = np.random.default_rng(0).permutation(count)
    pairs = np.concatenate([np.stack([order[:-1], order[1:]]), np.stack([order[1:], order[:-1]])], axis=1)
    matrix = sparse.coo_array((np.full(pairs.shape[1], 0.4, np.float32), pairs), shape=(count, count)).tocsr()
    for device in DEVICES:
        assert labels_of(matrix, 0.5, 2, device) == [0] * count


def test_wrong_arguments_are_refused_in_the_same_words():
    matrix = drawn_distances(20, 4, 1, "stored")
    bad = matrix.copy()
    bad.data[30] = np.nan
    for given_matrix, eps, min_samples in [(matrix, 1.0, 4), (matrix, 0.0, 4), (matrix, 0.5, 0), (bad, 0.5, 4)]:
        with pytest.raises(ValueError, match=r".") as expected:
            on_processor(given_matrix, eps=eps, min_samples=min_samples)
        with pytest.raises(ValueError, match=r".") as got:
            labels_of(given_matrix, eps, min_samples, DEVICES[0])
        assert str(got.value) == str(expected.value)


class _CumlDbscan:
    """Signature of cuml.cluster.DBSCAN 26.10; numbers clusters and places border points as no one should rely on."""

    def __init__(
        self,
        *,
        eps=0.5,
        min_samples=5,
        metric="euclidean",
        algorithm="brute",
        verbose=False,
        max_mbytes_per_batch=None,
        output_type=None,
        calc_core_sample_indices=True,
    ):
        assert metric == "precomputed"
        self.found = DBSCAN(eps=np.float32(eps), min_samples=min_samples, metric=metric)

    def fit(self, X, y=None, sample_weight=None, *, out_dtype="int32", convert_dtype=True):
        assert X.shape[0] == X.shape[1]
        self.found.fit(X)
        border = np.setdiff1d(np.flatnonzero(self.found.labels_ >= 0), self.found.core_sample_indices_)
        self.labels_ = np.where(self.found.labels_ >= 0, self.found.labels_.max() - self.found.labels_, -1)
        self.labels_[border] = self.found.labels_.max()
        self.labels_ = self.labels_.astype(out_dtype)
        return self


@settings(max_examples=100, deadline=None, derandomize=True)
@given(matrices, st.sampled_from([0.1, 0.5, 0.7]), st.integers(1, 6))
def test_cuml_gives_the_same_labels_where_the_dense_matrix_fits(matrix, eps, min_samples):
    cuml, cluster = ModuleType("cuml"), ModuleType("cuml.cluster")
    cluster.DBSCAN = _CumlDbscan
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cuml", cuml)
        patch.setitem(sys.modules, "cuml.cluster", cluster)
        got = labels_of(matrix, eps, min_samples, DEVICES[0], dense_bytes=4 * 60 * 60)
    assert got == on_processor(matrix, eps=eps, min_samples=min_samples).tolist()


def test_without_cuml_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuml.cluster", None)
    matrix = drawn_distances(10, 3, 0, "stored")
    with pytest.raises(ImportError, match="needs cuML; install"):
        labels_of(matrix, 0.5, 2, DEVICES[0], dense_bytes=400)
    assert len(labels_of(matrix, 0.5, 2, DEVICES[0], dense_bytes=399)) == 10
