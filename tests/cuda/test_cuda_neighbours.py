"""Exact neighbours by the kernels for a GPU, run on the processor, equal those of reidray.neighbours."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray import neighbours
from reidray.cuda.neighbours import _product_errors, _products, _rounded, _settled, nearest, similarities_of_pairs
from tests.cuda.emulated import EmulatedDevice, needs_compiler
from tests.reference.jaccard import exact_similarities, ranked

pytestmark = needs_compiler
DEVICES = (EmulatedDevice(), EmulatedDevice(backward=True))
ROOT = np.float32(np.sqrt(0.5))


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def drawn_rows(count, width, distinct, seed):
    """Rows with duplicates (fewer distinct ones than rows) and, in narrow spaces, many equal similarities."""
    random = np.random.default_rng(seed)
    rows = random.integers(-2, 3, (distinct, width)) if seed % 2 else random.standard_normal((distinct, width))
    rows[np.all(rows == 0, axis=1)] = 1
    return unit(rows)[random.integers(0, distinct, count)]


def clustered_rows(count, width, seed):
    """Rows whose nearest are far nearer than the rest: what bfloat16 can tell apart."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(1, count // 6), width))
    return unit(centres[random.integers(0, len(centres), count)] + 0.7 * random.standard_normal((count, width)))


def found(features, k, *, queries=None, block=4096, device=DEVICES[0]):
    given_queries = None if queries is None else torch.from_numpy(queries)
    indices, similarities = nearest(torch.from_numpy(features), k, queries_QD=given_queries, block=block, device=device)
    assert (indices.dtype, similarities.dtype) == (torch.int64, torch.float32)
    return indices.numpy(), similarities.numpy()


rows_strategy = st.one_of(
    st.builds(drawn_rows, st.integers(1, 60), st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**16)),
    st.builds(clustered_rows, st.integers(1, 120), st.integers(1, 40), st.integers(0, 2**16)),
)


def test_four_directions_by_hand():
    features = np.array([[1, 0], [0, 1], [ROOT, ROOT], [-1, 0]], np.float32)
    indices, similarities = found(features, 3)
    assert indices.tolist() == [[0, 2, 1], [1, 2, 0], [2, 0, 1], [3, 1, 2]]
    assert similarities.tolist() == [[1, ROOT, 0], [1, ROOT, 0], [similarities[2, 0], ROOT, ROOT], [1, 0, -ROOT]]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows_strategy, st.integers(1, 50), st.sampled_from([1, 7, 4096]), st.sampled_from(DEVICES))
def test_equals_the_search_on_the_processor_bit_for_bit(features, k, block, device):
    indices, similarities = found(features, k, block=block, device=device)
    expected_indices, expected = neighbours.nearest(features, k)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(similarities, expected)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows_strategy, st.integers(1, 12), st.integers(1, 20), st.integers(0, 2**16), st.sampled_from(DEVICES))
def test_other_queries_equal_sorting_all_similarities(features, k, count, seed, device):
    queries = drawn_rows(count, features.shape[1], 8, seed)
    indices, similarities = found(features, k, queries=queries, device=device)
    exact = exact_similarities(queries, features)
    assert indices.tolist() == ranked(exact, k)
    np.testing.assert_array_equal(similarities, np.take_along_axis(exact, indices, axis=1))


@pytest.mark.parametrize("width", [1, 7, 8, 9, 31, 32, 33, 77])
@pytest.mark.parametrize("device", DEVICES)
def test_similarities_equal_the_one_definition_bit_for_bit(width, device):
    random = np.random.default_rng(width)
    features = unit(random.standard_normal((37, width)))
    rows, columns = np.divmod(np.arange(37 * 37), 37)
    got = similarities_of_pairs(
        torch.from_numpy(features),
        torch.from_numpy(features),
        torch.from_numpy(rows),
        torch.from_numpy(columns),
        device=device,
    )
    expected = [neighbours.similarity(features[i], features[j]) for i, j in zip(rows, columns, strict=True)]
    assert got.tolist() == expected
    assert found(features, 37, device=device)[1].tolist() == np.sort(got.reshape(37, 37))[:, ::-1].tolist()


def test_the_bound_holds_and_lets_rows_pass():
    features = clustered_rows(300, 96, 1)
    rounded = _rounded(torch.from_numpy(features))
    products = _products(rounded.rows_ND, rounded.rows_ND).numpy()
    exact = features.astype(np.float64) @ features.T.astype(np.float64)
    bounds = _product_errors(rounded, rounded).numpy()
    worst = np.abs(products - exact).max(axis=1)
    assert (worst <= bounds).all()
    assert bounds.max() < 0.02
    uncertain = _settled(torch.from_numpy(features), torch.from_numpy(features), 5, 21, 4096, DEVICES[0])[2]
    assert len(uncertain) < 30


def test_more_duplicates_than_candidates_are_taken_by_lowest_index():
    random = np.random.default_rng(0)
    features = unit(random.standard_normal((150, 24)))
    same = np.sort(random.permutation(150)[:100])
    features[same] = features[7]
    indices, _ = found(features, 5)
    assert all(indices[i].tolist() == sorted({*same.tolist(), 7})[:5] for i in same)


def test_the_answer_does_not_depend_on_the_width_of_the_input_type():
    features = clustered_rows(40, 16, 3)
    indices, _ = nearest(torch.from_numpy(features).double(), 4, device=DEVICES[0])
    np.testing.assert_array_equal(indices.numpy(), neighbours.nearest(features, 4)[0])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda rows: rows.fill_(0.0),
        lambda rows: rows[3].fill_(float("nan")),
        lambda rows: rows[2].mul_(1.1),
        lambda rows: rows[1].mul_(float("inf")),
    ],
)
def test_rows_that_are_no_unit_rows_are_refused_in_the_same_words(wrong):
    rows = torch.from_numpy(clustered_rows(6, 9, 0))
    wrong(rows)
    with pytest.raises(ValueError, match="row") as expected:
        neighbours.nearest(rows.numpy(), 2)
    with pytest.raises(ValueError, match="row") as got:
        nearest(rows, 2, device=DEVICES[0])
    assert str(got.value) == str(expected.value)


def test_other_wrong_arguments_are_refused_in_the_same_words():
    rows = torch.from_numpy(clustered_rows(6, 9, 0))
    for features, arguments in [
        (rows, {"k": 0}),
        (rows, {"k": 1, "block": 0}),
        (rows[:0], {"k": 1}),
        (rows[0], {"k": 1}),
        (rows, {"k": 1, "queries_QD": torch.eye(3)}),
    ]:
        with pytest.raises(ValueError, match="got") as got:
            nearest(features, **arguments, device=DEVICES[0])
        if "queries_QD" in arguments:
            arguments["queries_QD"] = arguments["queries_QD"].numpy()
        if "block" in arguments:
            continue
        with pytest.raises(ValueError, match="got") as expected:
            neighbours.nearest(features.numpy(), **arguments)
        assert str(got.value) == str(expected.value)
