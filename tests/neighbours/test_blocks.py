"""Neighbour lists from pairs of blocks equal those of all rows, whatever the blocks, the order and what was known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray.neighbours import blocks, nearest, search
from reidray.neighbours.blocks import Found, Lists, begun, merged, no_lists, ready_block, search_strip
from reidray.neighbours.product import BFloat16Product, Float32Product
from tests.neighbours.test_nearest import WrongProduct, drawn_directions, rows_strategy, unit

PRODUCTS = [Float32Product(), BFloat16Product()]


def cut(features, ends, product):
    """Blocks between these ends; some may be empty."""
    firsts = sorted(min(end, len(features)) for end in ends)
    bounds = list(zip([0, *firsts], [*firsts, len(features)], strict=True))
    return [ready_block(features[first:last], first, product=product) for first, last in bounds]


def strips(blocks, random):
    """Every pair of blocks once, a block with itself too, in strips of random length, in random order."""
    pairs = [(a, b) if random.integers(2) else (b, a) for a in range(len(blocks)) for b in range(a, len(blocks))]
    by_block = {}
    for a, b in pairs:
        by_block.setdefault(a, []).append(b)
    tasks = []
    for a, others in by_block.items():
        others = list(random.permutation(others))
        while others:
            size = random.integers(1, len(others) + 1)
            tasks.append((a, others[:size]))
            others = others[size:]
    return [tasks[t] for t in random.permutation(len(tasks))]


def searched(features, k, ends, seed, product):
    """Lists of all rows from `search_strip`."""

    def search(rows, known, columns):
        return search_strip(rows, known, columns, product=product, tile=7)

    return lists_by(search, cut(features, ends, product), min(k, len(features)), seed)


def lists_by(search, blocks, k, seed):
    """Lists of all rows. Some tasks know less than they could, some are done twice, some are entered late."""
    random = np.random.default_rng(seed)
    lists = [no_lists(len(block.rows_RD), k) for block in blocks]
    late = []

    def enter(task, found):
        (a, others), (mine, theirs) = task, found
        for b, its in zip([a, *others], [mine, *theirs], strict=True):
            lists[b] = merged(lists[b], its)

    for a, others in strips(blocks, random):
        known = [
            np.full_like(lists[b].similarities_RK, -np.inf) if random.integers(4) == 0 else lists[b].similarities_RK
            for b in [a, *others]
        ]
        columns = [(blocks[b], its) for b, its in zip(others, known[1:], strict=True)]
        for _ in range(1 + (random.integers(5) == 0)):
            late.append(((a, others), search(blocks[a], known[0], columns)))
        while late and random.integers(3):
            enter(*late.pop(random.integers(len(late))))
    for task in late:
        enter(*task)
    return [np.concatenate(parts) for parts in zip(*lists, strict=True)]


def assert_same(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert (found[0].dtype, found[1].dtype) == (np.int64, np.float32)


ends_strategy = st.lists(st.integers(0, 40), max_size=6)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(rows_strategy, st.integers(1, 50), ends_strategy, st.integers(0, 2**16), st.sampled_from(PRODUCTS))
def test_any_blocks_in_any_order_give_the_lists_of_all_rows(features, k, ends, seed, product):
    assert_same(searched(features, k, ends, seed, product), nearest(features, k))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.builds(drawn_directions, st.integers(100, 300), st.integers(2, 24), st.integers(1, 30), st.integers(0, 2**16)),
    st.integers(1, 12),
    st.lists(st.integers(1, 300), min_size=1, max_size=3),
    st.integers(0, 2**16),
    st.sampled_from(PRODUCTS),
    st.sampled_from([2, 20, 96]),
)
def test_lists_that_fill_up_and_close_find_the_same(features, k, ends, seed, product, room):
    expected = nearest(features, k)
    before, search._SMALLEST_ROOM = search._SMALLEST_ROOM, room
    try:
        found = searched(features, k, ends, seed, product)
    finally:
        search._SMALLEST_ROOM = before
    assert_same(found, expected)


@pytest.mark.parametrize("product", PRODUCTS)
def test_blocks_of_a_single_image_give_the_lists_of_all_rows(product):
    features = unit(np.random.default_rng(0).integers(-2, 3, (23, 3)) + 0.01)
    assert_same(searched(features, 5, range(23), 1, product), nearest(features, 5))


def test_products_as_wrong_as_they_may_be_change_nothing():
    random = np.random.default_rng(4)
    features = unit(random.standard_normal((1, 512)) + 0.004 * random.standard_normal((120, 512)))
    assert_same(searched(features, 5, [30, 77], 2, WrongProduct(1)), nearest(features, 5))


def test_two_blocks_by_hand():
    product, root = Float32Product(), np.float32(np.sqrt(0.5))
    east, north, both = [1, 0], [0, 1], [root, root]
    one = ready_block(np.array([east, north], np.float32), 0, product=product)
    other = ready_block(np.array([both, north], np.float32), 2, product=product)
    known = np.array([[1, 0], [1, 0]], np.float32)  # of the first block, among itself
    mine, (theirs,) = search_strip(one, known, [(other, np.full((2, 2), -np.inf, np.float32))], product=product)
    # East has itself and takes the diagonal for north; north has itself and takes its copy, at equal similarity.
    assert mine.counts_R.tolist() == [1, 1]
    assert mine.indices_E.tolist() == [2, 3]
    assert mine.similarities_E.tolist() == [root, 1]
    assert theirs.counts_R.tolist() == [2, 2]
    assert theirs.indices_E.tolist() == [0, 1, 1, 0]


def test_what_is_no_better_than_all_that_is_known_is_not_found():
    features = unit(np.random.default_rng(1).standard_normal((60, 16)))
    one, other = cut(features, [30], Float32Product())
    across = nearest(features[30:], 1, queries_QD=features[:30])[1].max()
    for least, finds in ((across, True), (np.nextafter(across, np.float32(2)), False)):
        known = np.full((30, 4), least)
        mine, (theirs,) = search_strip(one, known, [(other, known)], product=Float32Product())
        assert mine.counts_R.any() == theirs.counts_R.any() == finds


def test_merging_twice_is_merging_once_and_leaves_the_lists_alone():
    lists = Lists(np.array([[4, -1]]), np.array([[0.5, -np.inf]], np.float32))
    found = Found(np.array([2]), np.array([7, 2]), np.array([0.5, 0.25], np.float32))
    once = merged(lists, found)
    assert once.indices_RK.tolist() == [[4, 7]]
    assert once.similarities_RK.tolist() == [[0.5, 0.5]]
    assert_same(merged(once, found), once)
    assert lists.indices_RK.tolist() == [[4, -1]]


def test_no_images_find_nothing_and_are_found_by_nobody():
    nobody, one = cut(np.array([[0.6, 0.8]], np.float32), [0], Float32Product())
    mine, (theirs,) = search_strip(nobody, no_lists(0, 1)[1], [(one, no_lists(1, 1)[1])], product=Float32Product())
    assert mine.counts_R.tolist() == []
    assert theirs.counts_R.tolist() == [0]


def test_bad_rows_are_named_by_their_index_in_the_training_set():
    with pytest.raises(ValueError, match="row 12 is all zero"):
        ready_block(np.array([[1, 0], [0, 1], [0, 0]], np.float32), 10, product=Float32Product())


def test_blocks_of_different_widths_are_refused():
    blocks = [ready_block(np.eye(width, dtype=np.float32), width, product=Float32Product()) for width in (2, 3)]
    with pytest.raises(ValueError, match=r"same width; got \(2, 2\) and \(3, 3\)"):
        search_strip(blocks[0], no_lists(2, 1)[1], [(blocks[1], no_lists(3, 1)[1])], product=Float32Product())


@pytest.mark.parametrize("product", PRODUCTS)
def test_what_is_known_is_where_the_search_begins(product):
    """It changes no answer, so only this tells that it saves work."""
    features = drawn_directions(60, 16, 6, seed=1)
    one, other = cut(features, [30], product)
    lists = no_lists(30, 4)
    nothing = blocks._candidates(one, other, begun(lists.similarities_RK), product)
    assert not nothing.sizes_Q.any()
    assert (nothing.bars_Q == -np.inf).all()
    found, _ = search_strip(one, lists.similarities_RK, [(one, lists.similarities_RK)], product=product)
    lists = merged(lists, found)
    candidates = blocks._candidates(one, other, begun(lists.similarities_RK), product)
    assert (candidates.sizes_Q == 4).all()
    assert (candidates.indices_QM[:, :4] == -1).all()  # known, and not to be measured again
    kth_R = lists.similarities_RK[:, -1]
    assert (candidates.bars_Q < kth_R).all()
    assert (candidates.bars_Q > kth_R - 0.1).all()
