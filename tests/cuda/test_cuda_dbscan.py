"""DBSCAN by the kernels for a GPU, run on the processor, equals scikit-learn's and reidray's own, label by label."""

import sys
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN

from reidray import dispatch
from reidray.bank import BankShard, InProcess, MemoryBank
from reidray.config import Settings
from reidray.cuda.dbscan import dbscan
from reidray.cuda.jaccard import SparseRows
from reidray.labelling.dbscan import dbscan as on_processor
from reidray.methods.label_search import DbscanSettings
from reidray.training.labeller import Labeller
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


def scikit_learns(dense, eps, min_samples):
    return DBSCAN(eps=np.float32(eps), min_samples=min_samples, metric="precomputed").fit(dense).labels_.tolist()


def dense_of(matrix):
    """Pairs that are not stored are at distance 1, an image and itself at 0."""
    dense = np.ones(matrix.shape, np.float32)
    np.fill_diagonal(dense, 0.0)
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    dense[rows, matrix.indices] = matrix.data
    return dense


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
    assert got == scikit_learns(dense_of(matrix), eps, min_samples)


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


class CumlDbscan:
    """The constructor and `fit` of cuml.cluster.DBSCAN 26.10; every call is recorded in `asked`.

    Clusters are numbered backwards, and border points go to another cluster than scikit-learn's: nothing may depend on
    either.
    """

    asked: ClassVar[list[dict[str, Any]]] = []

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
        self.given = {"eps": eps, "min_samples": min_samples, "metric": metric, "output_type": output_type}
        self.given |= {"algorithm": algorithm, "calc_core_sample_indices": calc_core_sample_indices}
        self.found = DBSCAN(eps=np.float32(eps), min_samples=min_samples, metric=metric)

    def fit(self, X, y=None, sample_weight=None, *, out_dtype="int32", convert_dtype=True):
        self.asked.append({**self.given, "X": X.copy(), "out_dtype": out_dtype})
        self.found.fit(X)
        border = np.setdiff1d(np.flatnonzero(self.found.labels_ >= 0), self.found.core_sample_indices_)
        self.labels_ = np.where(self.found.labels_ >= 0, self.found.labels_.max() - self.found.labels_, -1)
        self.labels_[border] = self.found.labels_.max()
        self.labels_ = self.labels_.astype(out_dtype)
        return self


@contextmanager
def cuml_installed():
    """What the stand-in for cuML was asked for meanwhile."""
    cuml, cluster = ModuleType("cuml"), ModuleType("cuml.cluster")
    cluster.DBSCAN = CumlDbscan
    CumlDbscan.asked.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cuml", cuml)
        patch.setitem(sys.modules, "cuml.cluster", cluster)
        yield CumlDbscan.asked


@settings(max_examples=100, deadline=None, derandomize=True)
@given(matrices, st.sampled_from([0.1, 0.5, 0.7]), st.integers(1, 6))
def test_cuml_gives_the_same_labels_where_the_dense_matrix_fits(matrix, eps, min_samples):
    with cuml_installed() as asked:
        got = labels_of(matrix, eps, min_samples, DEVICES[0], dense_bytes=4 * 60 * 60)
    assert len(asked) == 1
    assert got == on_processor(matrix, eps=eps, min_samples=min_samples).tolist()
    assert got == scikit_learns(dense_of(matrix), eps, min_samples)


def test_cuml_is_given_all_distances_in_float32_and_no_more_to_compute_than_labels():
    matrix = drawn_distances(40, 5, 3, "some")
    with cuml_installed() as asked:
        labels_of(matrix, 0.5, 3, DEVICES[0], dense_bytes=4 * 40 * 40)
    (call,) = asked
    given_dense = call.pop("X")
    assert given_dense.dtype == np.float32
    np.testing.assert_array_equal(given_dense, dense_of(matrix))
    assert call == {
        "eps": 0.5,
        "min_samples": 3,
        "metric": "precomputed",
        "algorithm": "brute",
        "output_type": "cupy",
        "calc_core_sample_indices": False,
        "out_dtype": "int64",
    }


@pytest.mark.parametrize(("dense_mb", "calls"), [(0.01, 1), (0.009999, 0), (0.0, 0)])
def test_a_labeller_on_a_gpu_asks_cuml_where_the_matrix_fits_in_run_dense_dbscan_mb(monkeypatch, dense_mb, calls):
    monkeypatch.setattr(dispatch, "on_gpu", lambda array: isinstance(array, torch.Tensor))
    monkeypatch.setattr("reidray.cuda.device.cuda_device", lambda: DEVICES[0])
    run = {"dense_dbscan_mb": dense_mb}
    labeller = Labeller(Settings(run=run), MemoryBank([InProcess(BankShard("bank shard 0"))], {"train": [(0, 50)]}))
    matrix = drawn_distances(50, 6, 4, "none")  # 4 * 50 * 50 bytes = 0.01 MB
    with cuml_installed() as asked:
        labels_N = labeller._grouping.of(on_device(matrix), DbscanSettings(eps=0.5, min_samples=4)).labels_N
    assert len(asked) == calls
    assert labels_N.tolist() == scikit_learns(dense_of(matrix), 0.5, 4)
    assert labels_N.max() >= 0


def test_without_cuml_the_sparse_kernels_give_the_labels(monkeypatch):
    matrix = drawn_distances(50, 6, 4, "none")
    for missing in ("cuml", "cuml.cluster"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "cuml", ModuleType("cuml"))
            patch.setitem(sys.modules, missing, None)
            got = labels_of(matrix, 0.5, 4, DEVICES[0], dense_bytes=10**9)
        assert got == scikit_learns(dense_of(matrix), 0.5, 4)


def test_a_cuml_that_is_installed_and_broken_is_an_error_and_no_reason_to_do_without(monkeypatch, tmp_path):
    (tmp_path / "cuml").mkdir()
    (tmp_path / "cuml" / "__init__.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cuml", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        labels_of(drawn_distances(10, 3, 0, "stored"), 0.5, 2, DEVICES[0], dense_bytes=400)
