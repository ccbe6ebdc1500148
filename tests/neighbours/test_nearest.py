import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray.neighbours import nearest, product_error, search, similarity
from reidray.neighbours import product as products
from reidray.neighbours.candidates import no_candidates, offer_columns, offer_rows
from reidray.neighbours.product import BFloat16Product, Float32Product
from reidray.neighbours.search import propose
from reidray.threads import set_threads
from tests.reference.jaccard import exact_similarities, ranked

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


rows_strategy = st.builds(drawn_rows, st.integers(1, 40), st.integers(1, 19), st.integers(1, 40), st.integers(0, 2**16))


def test_four_directions_by_hand():
    features = np.array([[1, 0], [0, 1], [ROOT, ROOT], [-1, 0]], np.float32)
    indices, similarities = nearest(features, 3)
    assert indices.tolist() == [[0, 2, 1], [1, 2, 0], [2, 0, 1], [3, 1, 2]]
    assert similarities.tolist() == [[1, ROOT, 0], [1, ROOT, 0], [similarities[2, 0], ROOT, ROOT], [1, 0, -ROOT]]
    assert indices.dtype == np.int64
    assert similarities.dtype == np.float32


products_strategy = st.sampled_from([Float32Product(), BFloat16Product()])


@settings(max_examples=250, deadline=None, derandomize=True)
@given(rows_strategy, st.integers(1, 50), st.integers(1, 45), products_strategy)
def test_equals_sorting_all_similarities_for_any_block_and_product(features, k, block, product):
    indices, similarities = nearest(features, k, block=block, product=product)
    exact = exact_similarities(features, features)
    assert indices.tolist() == ranked(exact, k)
    np.testing.assert_array_equal(similarities, np.take_along_axis(exact, indices, axis=1))


def drawn_directions(count, width, groups, seed):
    """Rows in tight groups, some of them opposite to others: full lists, closed lists, and queries near to nobody."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((groups, width))
    centres[: groups // 3] = -centres[groups // 3 : 2 * (groups // 3)]
    spread = 10.0 ** random.uniform(-6, 0, (count, 1))
    return unit(centres[random.integers(0, groups, count)] + spread * random.standard_normal((count, width)))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    st.builds(drawn_directions, st.integers(100, 400), st.integers(2, 24), st.integers(1, 30), st.integers(0, 2**16)),
    st.integers(1, 12),
    st.sampled_from([64, 100, 256]),
    products_strategy,
    st.sampled_from([2, 20, 96]),
)
def test_lists_that_fill_up_and_close_find_the_same(features, k, block, product, room):
    before, search._SMALLEST_ROOM = search._SMALLEST_ROOM, room
    try:
        indices, similarities = nearest(features, k, block=block, product=product)
    finally:
        search._SMALLEST_ROOM = before
    exact = in_documented_order(features)
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(similarities, np.take_along_axis(exact, expected, axis=1))


def in_documented_order(features):
    """All similarities: float64 products, column c added to sum c % 8, the sums in pairs, the rest at last."""
    wide = features.astype(np.float64)
    whole = wide.shape[1] - wide.shape[1] % 8
    sums = np.zeros((8, len(wide), len(wide)))
    for c in range(whole):
        sums[c % 8] += np.multiply.outer(wide[:, c], wide[:, c])
    rest = np.zeros((len(wide), len(wide)))
    for c in range(whole, wide.shape[1]):
        rest += np.multiply.outer(wide[:, c], wide[:, c])
    pairs = ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]))
    return (pairs + rest).astype(np.float32)


def test_a_query_near_to_nobody_leaves_closed_lists_of_its_strip_alone():
    random = np.random.default_rng(0)
    width, first = 64, np.eye(64)[0]

    def orthogonal(count):
        rows = random.standard_normal((count, width))
        rows[:, 0] = 0
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def half_first(count):
        return 0.9 * first + np.sqrt(1 - 0.81) * orthogonal(count)

    centres = orthogonal(7)
    mates = np.repeat(centres, 8, axis=0) + 0.03 * orthogonal(56)
    features = unit(
        np.concatenate([np.tile(first, (200, 1)), mates, half_first(512), [-first, first], centres, half_first(247)])
    )
    expected = nearest(features, 5, block=256, product=Float32Product())
    found = nearest(features, 5, block=256, product=BFloat16Product())
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    rows_strategy, st.integers(1, 12), st.integers(1, 20), st.integers(0, 2**16), st.integers(1, 45), products_strategy
)
def test_other_queries_equal_sorting_all_similarities(features, k, count, seed, block, product):
    queries = drawn_rows(count, features.shape[1], 8, seed)
    indices, similarities = nearest(features, k, queries_QD=queries, block=block, product=product)
    exact = exact_similarities(queries, features)
    assert indices.tolist() == ranked(exact, k)
    np.testing.assert_array_equal(similarities, np.take_along_axis(exact, indices, axis=1))


def test_more_duplicates_than_candidates_are_taken_by_lowest_index():
    random = np.random.default_rng(0)
    features = unit(random.standard_normal((300, 24)))
    features[random.permutation(300)[:200]] = features[7]
    copies = np.flatnonzero((features == features[7]).all(axis=1))
    indices, _ = nearest(features, 5, block=64)
    assert all(indices[i].tolist() == copies[:5].tolist() for i in copies)


class WrongProduct(Float32Product):
    """As wrong as a product may be, the one way or the other."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)

    def multiply(self, rows_RD, columns_SD, room):
        products = super().multiply(rows_RD, columns_SD, room)
        products += np.float32(0.95 * product_error(512)) * self.random.choice([-1, 1], products.shape).astype("f4")
        return products


def test_matrix_products_as_wrong_as_they_may_be_change_nothing():
    random = np.random.default_rng(4)
    features = unit(random.standard_normal((1, 512)) + 0.004 * random.standard_normal((300, 512)))
    expected = exact_similarities(features, features)
    indices, similarities = nearest(features, 5, block=128, product=WrongProduct(1))
    assert indices.tolist() == ranked(expected, 5)
    np.testing.assert_array_equal(similarities, np.take_along_axis(expected, indices, axis=1))


@pytest.mark.parametrize("product", [Float32Product(), BFloat16Product()])
def test_blocks_products_and_threads_change_no_bit(product):
    features = unit(np.random.default_rng(1).standard_normal((2100, 130)))
    features[100:240] = features[60:200]
    expected = nearest(features, 30)
    for block, count in ((100, 1), (512, 2), (2100, 3)):
        set_threads(count)
        try:
            indices, similarities = nearest(features, 30, block=block, product=product)
        finally:
            set_threads(1)
        np.testing.assert_array_equal(indices, expected[0])
        np.testing.assert_array_equal(similarities, expected[1])


@pytest.mark.parametrize(("width", "product"), [(w, p) for w in (1, 8, 130, 2048) for p in (0, 1)])
def test_no_product_is_further_off_than_its_gap_and_slope_say(width, product):
    product = (Float32Product(), BFloat16Product())[product]
    features = unit(np.random.default_rng(width).standard_normal((200, width)) + 0.3)
    lost = product.lost(features)
    gaps = product.gaps(lost, lost, width)
    rows = product.prepare(features)
    products = product.multiply(rows, rows, product.room(200 * 200))
    if products.dtype == np.int16:
        products = torch.from_numpy(products.copy()).view(torch.bfloat16).float().numpy()
    off = np.abs(products.astype(np.float64) - exact_similarities(features, features))
    assert (off <= (gaps[:, None] + product.slope * np.abs(products)) / 2).all()


def test_what_bfloat16_takes_from_a_row_is_pytorchs_rounding():
    features = unit(np.random.default_rng(5).standard_normal((20, 99)))
    lost = np.linalg.norm(features.astype(np.float64) - torch.from_numpy(features).bfloat16().double().numpy(), axis=1)
    gaps = BFloat16Product().gaps(BFloat16Product().lost(features), BFloat16Product().lost(features), 99)
    assert (gaps >= 2 * (lost + lost.max())).all()
    assert (gaps <= 2.1 * (lost + lost.max()) + 1e-4).all()


def test_a_list_holds_what_can_be_among_the_k_best_and_little_more():
    features = unit(np.random.default_rng(6).standard_normal((3000, 64)))
    candidates = propose(features, features, 30, block=500, product=Float32Product())
    assert not candidates.closed_Q.any()
    best = np.sort(features @ features.T, axis=1)[:, ::-1][:, :30]
    for i in range(0, 3000, 100):
        held = set(candidates.indices_QM[i, : candidates.sizes_Q[i]].tolist())
        assert set(np.flatnonzero(features[i] @ features.T >= best[i, -1]).tolist()) <= held
        assert len(held) <= 96


def test_a_list_whose_candidates_all_matter_is_closed():
    candidates = no_candidates(np.zeros(1), 4)
    offer_columns(np.full((1, 6), 0.5, np.float32), 0, 0, candidates, 2, 0.0)
    assert candidates.closed_Q.tolist() == [True]


def test_offering_by_row_and_by_column_takes_the_same_candidates():
    products = np.random.default_rng(7).random((40, 70)).astype(np.float32)
    by_row, by_column = no_candidates(np.zeros(40), 20), no_candidates(np.zeros(40), 20)
    offer_columns(products, 0, 0, by_row, 5, 0.0)
    offer_rows(np.ascontiguousarray(products.T), 0, 0, by_column, 5, 0.0)
    for query in range(40):
        best = set(np.argsort(-products[query])[:5].tolist())
        for lists in (by_row, by_column):
            assert best <= set(lists.indices_QM[query, : lists.sizes_Q[query]].tolist())


def test_a_lowered_precision_of_pytorch_changes_no_bit(monkeypatch):
    monkeypatch.setattr(products, "_has_avx512", lambda: True)
    features = unit(np.random.default_rng(8).standard_normal((300, 256)))
    expected = nearest(features, 10)
    torch.set_float32_matmul_precision("medium")
    try:
        found = nearest(features, 10)
    finally:
        torch.set_float32_matmul_precision("highest")
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("avx512", [False, True])
def test_either_library_may_multiply(avx512, monkeypatch):
    features = unit(np.random.default_rng(10).standard_normal((500, 96)))
    expected = nearest(features, 10)
    monkeypatch.setattr(products, "_has_avx512", lambda: avx512)
    found = nearest(features, 10)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_the_newer_switch_of_pytorchs_precision_changes_no_bit(monkeypatch):
    monkeypatch.setattr(products, "_has_avx512", lambda: True)
    features = unit(np.random.default_rng(8).standard_normal((300, 256)))
    expected = nearest(features, 10)
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        found = nearest(features, 10)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_rows_of_a_mapped_file_are_read_from_it(tmp_path):
    features = unit(np.random.default_rng(9).standard_normal((500, 32)))
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    for product in (Float32Product(), BFloat16Product()):
        found = nearest(mapped, 7, block=64, product=product)
        np.testing.assert_array_equal(found[0], nearest(features, 7)[0])
        np.testing.assert_array_equal(found[1], nearest(features, 7)[1])


def test_searching_among_themselves_equals_searching_with_a_copy_as_queries():
    features = unit(np.random.default_rng(2).standard_normal((90, 12)))
    for mine, theirs in zip(nearest(features, 9), nearest(features, 9, queries_QD=features.copy()), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_single_image_finds_itself_and_k_is_cut_at_the_number_of_images():
    indices, similarities = nearest(np.array([[0.6, 0.8]]), 30)
    assert indices.tolist() == [[0]]
    assert similarities.tolist() == [[1.0]]


def test_no_queries_give_no_rows():
    indices, similarities = nearest(np.eye(3, dtype=np.float32), 2, queries_QD=np.empty((0, 3), np.float32))
    assert indices.shape == similarities.shape == (0, 2)


def test_inputs_are_not_modified():
    features = unit(np.random.default_rng(3).standard_normal((40, 8)))
    before = features.copy()
    nearest(features, 4, block=16)
    np.testing.assert_array_equal(features, before)


@pytest.mark.parametrize("width", [1, 7, 8, 64, 515])
def test_similarity_is_the_correctly_rounded_product_and_matrix_products_stay_within_their_bound(width):
    features = unit(np.random.default_rng(width).standard_normal((50, width)))
    exact = exact_similarities(features, features)
    mine = np.array([[similarity(a, b) for b in features] for a in features])
    np.testing.assert_array_equal(mine, exact)
    np.testing.assert_array_equal(mine, mine.T)
    assert np.abs(features @ features.T - exact).max() <= product_error(width)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([np.nan, 0], "row 2 holds NaN"),
        ([np.inf, 0], "row 2 holds NaN or infinity"),
        ([1e300, 0], "row 2 holds NaN or infinity"),
        ([0, 0], "row 2 is all zero"),
        ([1.1, 0], "row 2 has length 1.1"),
    ],
)
def test_the_first_bad_row_is_named(row, message):
    features = np.array([[1, 0], [0, 1], row, row], np.float64)
    with pytest.raises(ValueError, match=message):
        nearest(features, 1)
    with pytest.raises(ValueError, match=f"queries.*{message}"):
        nearest(np.eye(2, dtype=np.float32), 1, queries_QD=features)


def test_a_length_within_a_thousandth_of_one_is_accepted():
    assert nearest(np.array([[1.0009, 0], [0, 0.9991]], np.float32), 1)[0].tolist() == [[0], [1]]


def test_impossible_arguments_are_refused():
    features = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        nearest(features, 0)
    with pytest.raises(ValueError, match="block"):
        nearest(features, 1, block=0)
    with pytest.raises(ValueError, match="same width"):
        nearest(features, 1, queries_QD=np.eye(2, dtype=np.float32))
    with pytest.raises(ValueError, match="at least one row"):
        nearest(np.empty((0, 3), np.float32), 1)
    with pytest.raises(ValueError, match="matrix"):
        nearest(np.ones(3, np.float32), 1)
    with pytest.raises(ValueError, match="complex"):
        nearest(features * 1j, 1)


def test_tensors_are_searched_as_the_arrays_of_their_numbers():
    features = drawn_directions(30, 16, 6, seed=0)
    expected = nearest(features, 3)
    for tensor in (torch.from_numpy(features), torch.from_numpy(features).double().requires_grad_()):
        found = nearest(tensor, 3)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
    axes = torch.eye(4, dtype=torch.bfloat16)
    assert nearest(axes, 2)[0].tolist() == [[0, 1], [1, 0], [2, 0], [3, 0]]
