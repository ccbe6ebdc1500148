import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray.memory.difficulty import difficulty
from reidray.neighbours import nearest
from tests.reference.difficulty import difficulty as reference
from tests.reference.pplr import agreements


def test_shared_neighbours_by_hand():
    of_global = np.array([[0, 1, 2], [1, 0, 3], [3, 2, 1], [3, -1, -1]])
    of_parts = np.array([[[0, 2, 3], [1, 0, 3], [2, 0, -1], [-1, 3, -1]], of_global])
    #   0: {1,2} {2,3} -> 1/3    1: {0,3} {0,3} -> 1    2: {3,1} {0} -> 0    3: nothing at all -> 0
    alphas = difficulty(of_global, of_parts)
    assert alphas[:, 0].tolist() == [np.float32(1 / 3), 1.0, 0.0, 0.0]
    assert alphas[:, 1].tolist() == [1.0, 1.0, 1.0, 0.0]
    assert alphas.dtype == np.float32
    assert difficulty(of_global, []).shape == (4, 0)


def test_the_image_itself_is_left_out_wherever_it_stands():
    # A duplicate of lower index stands before the image itself.
    features = np.array([[1, 0], [1, 0], [0.8, 0.6], [0, 1]], np.float32)
    lists = nearest(features, 3)[0]
    assert lists[1].tolist() == [0, 1, 2]
    moved = lists.copy()
    moved[1] = [2, 0, 1]
    np.testing.assert_array_equal(difficulty(lists, [moved]), np.ones((4, 1), np.float32))
    without = np.array([[1, 2], [0, 2], [0, 1], [2, 0]])
    np.testing.assert_array_equal(difficulty(lists, [without]), difficulty(without, [lists]))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.integers(1, 12),
    st.lists(st.integers(0, 8), max_size=3),
    st.integers(0, 8),
    st.sampled_from([np.int64, np.int32]),
    st.integers(0, 2**16),
)
def test_equals_python_sets(count, columns_of_parts, columns, integer, seed):
    random = np.random.default_rng(seed)
    of_global = random.integers(-1, count, (count, columns)).astype(integer)
    of_parts = [random.integers(-1, count, (count, some)) for some in columns_of_parts]
    copies = [lists.copy() for lists in (of_global, *of_parts)]
    alphas = difficulty(of_global, iter(of_parts))
    assert alphas.shape == (count, len(of_parts))
    for part, of_part in enumerate(of_parts):
        np.testing.assert_array_equal(alphas[:, part], np.float32(reference(of_global, of_part)))
    for now, before in zip((of_global, *of_parts), copies, strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_equals_the_cross_agreement_of_pplr(k):
    # Parts are the whole with more and more noise; there are no duplicates, so each image leads its own list.
    random = np.random.default_rng(k)
    spaces = random.normal(size=(120, 8)) + np.array([0, 0.2, 1, 9])[:, None, None] * random.normal(size=(4, 120, 8))
    spaces = (spaces / np.linalg.norm(spaces, axis=2, keepdims=True)).astype(np.float32)
    lists = [nearest(features, k + 1)[0] for features in spaces]
    assert all((found[:, 0] == np.arange(120)).all() for found in lists)
    expected = agreements(spaces[0], spaces[1:], k)
    np.testing.assert_array_equal(difficulty(lists[0], lists[1:]), np.float32(expected))
    assert expected[:, 0].mean() > expected[:, 1].mean() > expected[:, 2].mean()


def test_a_part_that_agrees_scores_one_and_order_does_not_matter():
    random = np.random.default_rng(0)
    lists = random.integers(0, 50, (50, 6))
    others = random.integers(0, 50, (2, 50, 6))
    alphas = difficulty(lists, [lists, others[0], others[1][:, ::-1]])
    np.testing.assert_array_equal(alphas[:, 0], 1)
    np.testing.assert_array_equal(alphas[:, 1], difficulty(lists[:, ::-1], others)[:, 0])
    np.testing.assert_array_equal(alphas[:, 2], difficulty(lists, others)[:, 1])


def test_lists_that_do_not_fit_are_refused():
    lists = np.zeros((3, 2), np.int64)
    with pytest.raises(ValueError, match="same images"):
        difficulty(lists, [lists, lists[:2]])
    with pytest.raises(ValueError, match="global neighbours must be a matrix of integers"):
        difficulty(lists.astype(float), [lists])
    with pytest.raises(ValueError, match="part 0 neighbours must be a matrix of integers"):
        difficulty(lists, lists)
    for wrong in (3, -2):
        with pytest.raises(ValueError, match=r"part 1 neighbours must be indices in \[0, 3\)"):
            difficulty(lists, [lists, np.full((3, 2), wrong)])
        with pytest.raises(ValueError, match=r"global neighbours must be indices in \[0, 3\)"):
            difficulty(np.full((3, 2), wrong), [lists])
