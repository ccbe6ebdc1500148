import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray.neighbours.ordering import by_place, near_places


def walk(lists):
    """Depth first, by recursion."""
    order = []

    def visit(image):
        if image not in order:
            order.append(image)
            for neighbour in lists[image][:12]:
                visit(int(neighbour))

    for image in range(len(lists)):
        visit(image)
    return order


def test_a_walk_by_hand():
    # 0 leads to 3, 3 to 1; 1 knows nobody new, nor do 3 and 0; 2 comes last.
    lists = np.array([[0, 3], [1, 0], [2, 1], [3, 1]])
    places = near_places(lists)
    assert places.images_P.tolist() == [0, 3, 1, 2]
    assert places.places_N.tolist() == [0, 2, 3, 1]
    similarities = np.arange(8, dtype=np.float32).reshape(4, 2)
    neighbours, moved = by_place(places, lists, similarities)
    assert neighbours.tolist() == [[0, 1], [1, 2], [2, 0], [3, 2]]
    assert moved.tolist() == [[0, 1], [6, 7], [2, 3], [4, 5]]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 60), st.integers(1, 15), st.integers(0, 2**16))
def test_every_image_has_one_place_in_the_order_of_the_walk(count, columns, seed):
    lists = np.random.default_rng(seed).integers(0, count, (count, columns))
    places = near_places(lists)
    assert places.images_P.tolist() == walk(lists)
    np.testing.assert_array_equal(places.places_N[places.images_P], np.arange(count))
    neighbours, _ = by_place(places, lists, np.zeros(lists.shape, np.float32))
    np.testing.assert_array_equal(places.images_P[neighbours], lists[places.images_P])
