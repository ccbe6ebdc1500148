import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from reidray.parsing import agglomerate
from tests.reference.parsing import cut

LINKAGES = ["average", "complete", "single"]


def by_first_member(labels):
    order = []
    return np.array(
        [order.index(label) if label in order else order.append(label) or len(order) - 1 for label in labels]
    )


def points_on_a_line(*places):
    places = np.array(places, float)
    return np.abs(places[:, None] - places)


@pytest.mark.parametrize("method", LINKAGES)
def test_pairs_on_a_line_join_first(method):
    distances = points_on_a_line(0, 10, 1, 11.5, 30)
    assert agglomerate(distances, 3, linkage=method).tolist() == [0, 1, 0, 1, 2]
    assert agglomerate(distances, 2, linkage=method).tolist() == [0, 0, 0, 0, 1]


def test_single_linkage_follows_a_chain_that_complete_linkage_breaks():
    distances = points_on_a_line(0, 1, 2.1, 3.3, 4.6, 6.3)
    assert agglomerate(distances, 2, linkage="single").tolist() == [0, 0, 0, 0, 0, 1]
    assert agglomerate(distances, 2, linkage="complete").tolist() == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("method", LINKAGES)
@pytest.mark.parametrize("n", [2, 3, 7, 40, 120])
def test_equal_to_scipy_without_ties(method, n):
    random = np.random.default_rng(n)
    for _ in range(4):
        distances = squareform(random.random(n * (n - 1) // 2))
        tree = linkage(squareform(distances), method)
        for count in {1, 2, 3, min(6, n), n}:
            expected = by_first_member(fcluster(tree, count, "maxclust"))
            np.testing.assert_array_equal(agglomerate(distances, count, linkage=method), expected)


@pytest.mark.parametrize("method", ["average", "complete"])
def test_equal_to_scipys_tree_with_ties_and_forbidden_pairs(method):
    random = np.random.default_rng(5)
    for trial in range(60):
        n = int(random.integers(3, 50))
        distances = np.round(squareform(random.random(n * (n - 1) // 2)), 1 if trial % 2 else 9)
        distances[squareform(random.random(n * (n - 1) // 2) < 0.4)] = 1000.0
        for count in (1, 2, 3, 6):
            np.testing.assert_array_equal(
                agglomerate(distances, count, linkage=method), cut(distances, count, method), f"trial {trial}"
            )


@settings(derandomize=True, deadline=None, max_examples=250)
@given(
    st.integers(1, 24),
    st.sampled_from(["average", "complete"]),
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(0, 2**32 - 1),
)
def test_equal_to_scipys_tree_whatever_the_ties(n, method, count, values, seed):
    distances = squareform(np.random.default_rng(seed).integers(0, values, n * (n - 1) // 2).astype(float))
    np.testing.assert_array_equal(agglomerate(distances, count, linkage=method), cut(distances, count, method))


@pytest.mark.parametrize("method", LINKAGES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_distances_still_give_exactly_the_clusters_asked_for(method, value):
    distances = np.full((9, 9), value)
    for count in range(1, 12):
        assert agglomerate(distances, count, linkage=method).max() == min(count, 9) - 1


def test_the_lowest_index_is_preferred_among_equal_distances():
    assert agglomerate(points_on_a_line(0, 1, 2, 3), 3, linkage="average").tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_no_more_points_than_clusters_stay_apart(n):
    assert agglomerate(np.ones((n, n)), 3, linkage="average").tolist() == list(range(n))


def test_minus_zero_is_the_lowest_distance_as_zero_is():
    distances = points_on_a_line(0, 5, 5, 9)
    labels = agglomerate(distances, 3, linkage="average")
    assert labels.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(agglomerate(np.where(distances == 0, -0.0, distances), 3, linkage="average"), labels)


def test_the_matrix_is_not_modified():
    distances = points_on_a_line(0, 1, 5, 9)
    before = distances.copy()
    agglomerate(distances, 1, linkage="average")
    np.testing.assert_array_equal(distances, before)


def test_the_largest_distances_are_joined_too():
    far = np.full((4, 4), 1e300)
    far[0, 1] = far[1, 0] = far[2, 3] = far[3, 2] = 1.0
    for how in LINKAGES:
        assert agglomerate(far, 2, linkage=how).tolist() == [0, 0, 1, 1]
        assert agglomerate(far, 1, linkage=how).tolist() == [0] * 4


def test_unusable_matrices_and_settings_are_refused():
    good = points_on_a_line(0, 1, 5)
    with pytest.raises(ValueError, match="square"):
        agglomerate(good[:2], 2, linkage="average")
    for wrong in (np.inf, np.nan, 1e301):
        with pytest.raises(ValueError, match=r"up to 1e\+300"):
            agglomerate(np.where(good > 4, wrong, good), 2, linkage="average")
    with pytest.raises(ValueError, match="symmetric"):
        agglomerate(np.triu(good), 2, linkage="average")
    with pytest.raises(ValueError, match=r">= 0, got -1\.0"):
        agglomerate(np.where(good == 1, -1.0, good), 2, linkage="average")
    with pytest.raises(ValueError, match="num_clusters"):
        agglomerate(good, 0, linkage="average")
    with pytest.raises(ValueError, match="'ward'"):
        agglomerate(good, 2, linkage="ward")
