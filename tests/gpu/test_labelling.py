"""Neighbours, distances, labels and difficulty on a real GPU are those of the processor."""

import numpy as np
import pytest
import torch

from reidray import neighbours
from reidray.cuda import jaccard as on_gpu
from reidray.cuda.dbscan import dbscan
from reidray.cuda.device import cuda_device
from reidray.cuda.difficulty import difficulty
from reidray.cuda.jaccard import jaccard_distances
from reidray.cuda.neighbours import _product_errors, _products, _rounded, _settled, nearest
from reidray.labelling.dbscan import dbscan as dbscan_on_processor
from reidray.memory.difficulty import difficulty as difficulty_on_processor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def clustered_rows(count, width, seed, *, duplicates=0):
    """Unit rows around count / 20 centres; the last ones repeat the first."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(1, count // 20), width))
    rows = centres[random.integers(0, len(centres), count)] + 0.9 * random.standard_normal((count, width))
    rows[count - duplicates :] = rows[:duplicates]
    rows = rows.astype(np.float32)
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture(scope="module")
def features_ND():
    return clustered_rows(4000, 2048, 0, duplicates=60)


def assert_same_search(features, k, **arguments):
    indices, similarities = nearest(torch.from_numpy(features).cuda(), k, device=cuda_device(), **arguments)
    expected_indices, expected = neighbours.nearest(features, k)
    assert indices.is_cuda
    np.testing.assert_array_equal(indices.cpu().numpy(), expected_indices)
    np.testing.assert_array_equal(similarities.cpu().numpy(), expected)


def test_neighbours_of_thousands_of_rows_are_equal_bit_for_bit(features_ND):
    assert_same_search(features_ND, 30)


@pytest.mark.parametrize(("count", "width", "k"), [(1, 1, 1), (40, 3, 50), (700, 37, 12), (1500, 8, 30), (900, 129, 1)])
def test_neighbours_of_odd_sizes_are_equal_bit_for_bit(count, width, k):
    assert_same_search(clustered_rows(count, width, count), k, block=300)


def test_neighbours_of_many_duplicates_are_equal_bit_for_bit():
    features = clustered_rows(2000, 64, 5)
    features[::3] = features[1]
    assert_same_search(features, 20)


def test_neighbours_of_other_queries_are_equal_bit_for_bit(features_ND):
    queries = clustered_rows(500, 2048, 9)
    given = torch.from_numpy(features_ND).cuda(), torch.from_numpy(queries).cuda()
    indices, similarities = nearest(given[0], 10, queries_QD=given[1], device=cuda_device())
    expected_indices, expected = neighbours.nearest(features_ND, 10, queries_QD=queries)
    np.testing.assert_array_equal(indices.cpu().numpy(), expected_indices)
    np.testing.assert_array_equal(similarities.cpu().numpy(), expected)


def test_the_bound_on_tensor_cores_holds_and_lets_rows_pass(features_ND):
    features = torch.from_numpy(features_ND).cuda()
    rounded = _rounded(features)
    errors = (_products(rounded.rows_ND, rounded.rows_ND).double() - features.double() @ features.double().T).abs()
    assert bool((errors.max(dim=1).values <= _product_errors(rounded, rounded)).all())
    uncertain = _settled(features, features, 30, 60, 4096, cuda_device())[2]
    assert len(uncertain) < len(features) / 10


@pytest.mark.parametrize(("k1", "k2", "keep"), [(30, 6, 1.0), (20, 1, 0.5), (90, 12, 0.7)])
def test_distances_and_labels_are_equal(features_ND, k1, k2, keep):
    got = jaccard_distances(torch.from_numpy(features_ND).cuda(), k1=k1, k2=k2, keep=keep, device=cuda_device())
    expected = neighbours.jaccard_distances(features_ND, k1=k1, k2=k2, keep=keep)
    on_host = got.to_scipy()
    np.testing.assert_array_equal(on_host.indptr, expected.indptr)
    np.testing.assert_array_equal(on_host.indices, expected.indices)
    np.testing.assert_array_max_ulp(on_host.data, expected.data, 1)
    for eps in (0.3, 0.45):
        labels = dbscan(got, eps=eps, min_samples=4, dense_bytes=0, device=cuda_device())
        np.testing.assert_array_equal(labels.cpu().numpy(), dbscan_on_processor(expected, eps=eps, min_samples=4))
        assert labels.max() > 10


def test_lists_longer_than_shared_memory_change_nothing(features_ND, monkeypatch):
    features = torch.from_numpy(features_ND[:1000]).cuda()
    expected = jaccard_distances(features, k1=30, k2=6, keep=0.8, device=cuda_device())
    monkeypatch.setattr(on_gpu, "_MOST_SHARED", 0)
    monkeypatch.setattr(on_gpu, "_SCRATCH_BYTES", 2**20)
    got = jaccard_distances(features, k1=30, k2=6, keep=0.8, device=cuda_device())
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_another_stream_and_a_second_run_give_equal_bits(features_ND):
    features = torch.from_numpy(features_ND).cuda()
    first = jaccard_distances(features, k1=30, k2=6, keep=0.6, device=cuda_device())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        second = jaccard_distances(features * 1.0, k1=30, k2=6, keep=0.6, device=cuda_device())
        labels = dbscan(second, eps=0.5, min_samples=4, dense_bytes=0, device=cuda_device())
    stream.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(labels, dbscan(first, eps=0.5, min_samples=4, dense_bytes=0, device=cuda_device()))


def test_cuml_gives_the_same_labels(features_ND):
    pytest.importorskip("cuml")
    distances = jaccard_distances(torch.from_numpy(features_ND).cuda(), k1=30, k2=6, keep=0.6, device=cuda_device())
    for eps in (0.3, 0.5):
        sparse, dense = (
            dbscan(distances, eps=eps, min_samples=4, dense_bytes=budget, device=cuda_device())
            for budget in (0, 4 * len(features_ND) ** 2)
        )
        assert torch.equal(sparse, dense)


def test_difficulty_is_equal_bit_for_bit():
    lists = [np.random.default_rng(seed).integers(-1, 4000, (4000, 21)) for seed in range(3)]
    for part in lists[1:]:
        part[:, 3:11] = lists[0][:, 5:13]
    given = [torch.from_numpy(values).cuda() for values in lists]
    got = difficulty(given[0], given[1:], device=cuda_device())
    np.testing.assert_array_equal(got.cpu().numpy(), difficulty_on_processor(lists[0], lists[1:]))
