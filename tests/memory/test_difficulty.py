import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray.memory.difficulty import difficulty
from reidray.neighbours import nearest
from tests.reference.difficulty import difficulty as reference


def test_shared_neighbours_by_hand():
    of_global = np.array([[0, 1, 2], [1, 0, 3], [3, 2, 1], [3, -1, -1]])
    of_part = np.array([[0, 2, 3], [1, 0, 3], [2, 0, -1], [-1, 3, -1]])
    #   0: {1,2} {2,3} -> 1/3    1: {0,3} {0,3} -> 1    2: {3,1} {0} -> 0    3: nothing at all -> 0
    alpha = difficulty(of_global, of_part)
    assert alpha.tolist() == [np.float32(1 / 3), 1.0, 0.0, 0.0]
    assert alpha.dtype == np.float32


def test_the_image_itself_is_left_out_wherever_it_stands():
    # A duplicate of lower index stands before the image itself.
    features = np.array([[1, 0], [1, 0], [0.8, 0.6], [0, 1]], np.float32)
    lists = nearest(features, 3)[0]
    assert lists[1].tolist() == [0, 1, 2]
    moved = lists.copy()
    moved[1] = [2, 0, 1]
    np.testing.assert_array_equal(difficulty(lists, moved), np.ones(4, np.float32))
    without = np.array([[1, 2], [0, 2], [0, 1], [2, 0]])
    np.testing.assert_array_equal(difficulty(lists, without), difficulty(without, lists))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(0, 8), st.integers(0, 8), st.integers(0, 2**16))
def test_equals_python_sets(count, first, second, seed):
    random = np.random.default_rng(seed)
    of_global, of_part = (random.integers(-1, count, (count, columns)) for columns in (first, second))
    copies = of_global.copy(), of_part.copy()
    np.testing.assert_array_equal(difficulty(of_global, of_part), np.float32(reference(of_global, of_part)))
    np.testing.assert_array_equal(of_global, copies[0])
    np.testing.assert_array_equal(of_part, copies[1])


def test_lists_that_do_not_fit_are_refused():
    lists = np.zeros((3, 2), np.int64)
    with pytest.raises(ValueError, match="same images"):
        difficulty(lists, lists[:2])
    with pytest.raises(ValueError, match="matrix of integers"):
        difficulty(lists.astype(float), lists)
    for wrong in (3, -2):
        with pytest.raises(ValueError, match=r"part neighbours must be indices in \[0, 3\)"):
            difficulty(lists, np.full((3, 2), wrong))
