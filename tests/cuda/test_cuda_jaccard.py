"""Jaccard distances by the kernels for a GPU, run on the processor, equal those of reidray.neighbours."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray import neighbours
from reidray.cuda import jaccard as on_gpu
from reidray.cuda.jaccard import jaccard_distances, jaccard_from_neighbours
from tests.cuda.emulated import EmulatedDevice, needs_compiler
from tests.reference.jaccard import jaccard

pytestmark = needs_compiler
DEVICES = (EmulatedDevice(), EmulatedDevice(backward=True))


def drawn_rows(count, width, distinct, seed):
    """Unit rows with duplicates, in half of the cases around few centres."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((distinct, width))
    if seed % 2:
        rows = rows[random.integers(0, max(1, distinct // 6), distinct)] + 0.6 * random.standard_normal(
            (distinct, width)
        )
    rows = np.asarray(rows, np.float32)[random.integers(0, distinct, count)]
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def assert_equal(got, expected):
    """Same pairs; same distances but for the last bit of an exponential function."""
    np.testing.assert_array_equal(got.indptr, expected.indptr)
    np.testing.assert_array_equal(got.indices, expected.indices)
    np.testing.assert_array_max_ulp(got.data, expected.data, 1)


rows_strategy = st.builds(drawn_rows, st.integers(1, 60), st.integers(2, 12), st.integers(1, 60), st.integers(0, 2**16))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    rows_strategy,
    st.integers(1, 70),
    st.integers(1, 8),
    st.sampled_from([0.25, 0.6, 1.0]),
    st.booleans(),
    st.sampled_from(DEVICES),
)
def test_equals_the_distances_of_the_processor(features, k1, k2, keep, counts_itself, device):
    switches = {"k1": k1, "k2": k2, "keep": keep, "counts_itself": counts_itself}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_gpu, "_THREADS", 64)  # two warps a block; a processor runs fewer threads sooner
        got = jaccard_distances(torch.from_numpy(features), **switches, device=device)
    assert [array.dtype for array in got] == [torch.int64, torch.int32, torch.float32]
    assert_equal(got.to_scipy(), neighbours.jaccard_distances(features, **switches))


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_the_loop_written_from_the_equations(seed):
    features = drawn_rows(40, 6, 40, seed)
    got = jaccard_distances(torch.from_numpy(features), k1=9, k2=3, keep=1.0, device=DEVICES[seed % 2])
    ends, columns, values = (array.numpy() for array in got)
    dense = np.ones((40, 40), np.float32)
    dense[np.repeat(np.arange(40), np.diff(ends)), columns] = values
    np.testing.assert_allclose(dense, jaccard(features, 9, 3), atol=2e-6)


def test_two_pairs_by_hand():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    got = jaccard_distances(features, k1=2, k2=1, keep=1.0, device=DEVICES[0])
    assert got.ends_N1.tolist() == [0, 2, 4, 6, 8]
    assert got.columns_E.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    assert got.values_E.tolist() == [0.0] * 8


def test_symmetric_bit_for_bit_and_the_diagonal_is_stored():
    features = drawn_rows(80, 8, 70, 3)
    got = jaccard_distances(torch.from_numpy(features), k1=12, k2=4, keep=1.0, device=DEVICES[0]).to_scipy()
    turned = got.T.tocsr()
    turned.sort_indices()
    np.testing.assert_array_equal(turned.indices, got.indices)
    np.testing.assert_array_equal(turned.data, got.data)
    assert all(i in got.indices[got.indptr[i] : got.indptr[i + 1]] for i in range(80))


@pytest.mark.parametrize("device", DEVICES)
def test_lists_longer_than_shared_memory_and_few_blocks_change_nothing(device, monkeypatch):
    features = drawn_rows(70, 5, 70, 8)
    expected = neighbours.jaccard_distances(features, k1=20, k2=5, keep=0.9)
    monkeypatch.setattr(on_gpu, "_MOST_SHARED", 0)
    monkeypatch.setattr(on_gpu, "_SCRATCH_BYTES", 3 * 4 * 1024)
    got = jaccard_distances(torch.from_numpy(features), k1=20, k2=5, keep=0.9, device=device)
    assert_equal(got.to_scipy(), expected)


def test_longer_lists_are_cut_and_wrong_ones_refused_in_the_same_words():
    features = drawn_rows(30, 5, 30, 2)
    indices, similarities = neighbours.nearest(features, 12)
    given_lists = torch.from_numpy(indices), torch.from_numpy(similarities), torch.from_numpy(features)
    got = jaccard_from_neighbours(*given_lists, k1=8, k2=3, keep=1.0, device=DEVICES[0])
    assert_equal(got.to_scipy(), neighbours.jaccard_distances(features, k1=8, k2=3, keep=1.0))
    other = given_lists[0].clone()
    other[4, 2] = 30
    for lists, k1, k2, keep in [
        (given_lists, 13, 3, 1.0),
        (given_lists, 0, 3, 1.0),
        (given_lists, 8, 0, 1.0),
        (given_lists, 8, 3, 0.0),
        (given_lists, 8, 3, 1.5),
        ((given_lists[0][:20], given_lists[1][:20], given_lists[2]), 8, 3, 1.0),
        ((other, *given_lists[1:]), 8, 3, 1.0),
        ((given_lists[0], 2 * given_lists[1], given_lists[2]), 8, 3, 1.0),
        ((given_lists[0], torch.full_like(given_lists[1], torch.nan), given_lists[2]), 8, 3, 1.0),
    ]:
        with pytest.raises(ValueError, match="must") as expected:
            neighbours.jaccard_from_neighbours(*(array.numpy() for array in lists), k1=k1, k2=k2, keep=keep)
        with pytest.raises(ValueError, match="must") as refused:
            jaccard_from_neighbours(*lists, k1=k1, k2=k2, keep=keep, device=DEVICES[0])
        assert str(refused.value) == str(expected.value)
