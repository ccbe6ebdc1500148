"""Criteria without labels: by hand, against the definitions, and by what must not change them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, silhouette_score

from reidray.evaluation.criteria import (
    assigned_share,
    camera_cycle,
    camera_mixing,
    correlation_interval,
    mean_silhouette,
    neighbour_agreement,
    rank_correlation,
    stability,
)
from tests.reference import cycles, silhouettes


def stored(distances_NN):
    """The sparse form: pairs at distance 1 left out, the diagonal stored."""
    rows, columns = np.nonzero(distances_NN < 1)
    values = distances_NN[rows, columns]
    ends = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(distances_NN)))])
    return sparse.csr_array((values, columns, ends), shape=distances_NN.shape)


def drawn_distances(random, count, share_of_ones):
    upper = np.triu(random.random((count, count)).astype(np.float32), 1)
    upper[random.random((count, count)) < share_of_ones] = 1
    upper = np.triu(upper, 1)
    return upper + upper.T


# --- cycles across cameras ---


def test_cycles_by_hand():
    # images 0, 1 of camera 0 and 2, 3 of camera 1; 4 has no camera
    indices = [
        [0, 4, 1, 2],  # across to 2, which goes back to 0: closed
        [1, 0, 3, 2],  # across to 3, which goes back to 0, one of its neighbours: closed
        [2, 3, 0, 1],  # across to 0, which goes back to 2: closed
        [3, 0, 1, 4],  # across to 0, back to 2, which is not in its own list: open
        [4, 0, 1, 2],
    ]
    assert camera_cycle(indices, [0, 0, 1, 1, -1]) == 3 / 4
    # 0 and 4 go to each other; 3 goes to 4 and back to 0, its neighbour; 1 and 2 know no other camera
    assert camera_cycle(indices, [0, 0, 0, 0, 1]) == 3 / 5


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(2, 30), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**16))
def test_cycles_are_those_of_the_definition(count, k, cameras, seed):
    random = np.random.default_rng(seed)
    indices = np.argsort(random.random((count, count)), axis=1)[:, :k]  # an image may be anywhere in its own list
    cameras = random.integers(-1, cameras, count)
    assert camera_cycle(indices, cameras) == cycles.camera_cycle(indices.tolist(), cameras.tolist())


def test_people_close_all_cycles_and_cameras_close_none():
    cameras = np.arange(40) % 2
    person = np.eye(20)[np.arange(40) // 2]
    place = np.eye(2)[cameras]
    close = np.argsort(-(person @ person.T + 0.1 * place @ place.T), axis=1, kind="stable")[:, :13]
    assert camera_cycle(close, cameras) == 1.0
    by_camera = np.argsort(-(place @ place.T) + 0.1 * person @ person.T, axis=1, kind="stable")[:, :13]
    assert camera_cycle(by_camera, cameras) == 0.0
    assert camera_cycle(close, np.zeros(40)) is None
    assert camera_cycle(close, np.full(40, -1)) is None


def test_cycles_of_features_that_know_nobody_are_many_and_more_in_few_dimensions():
    random = np.random.default_rng(0)
    cameras, found = random.integers(0, 3, 600), {}
    for width in (2, 64):
        rows = random.normal(size=(600, width))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        found[width] = camera_cycle(np.argsort(-rows @ rows.T, axis=1)[:, :13], cameras)
    assert 0.5 < found[64] < found[2] - 0.1
    assert camera_cycle(np.tile(np.arange(13), (600, 1)), cameras) == 1.0  # all features are the same


def test_cycles_do_not_depend_on_the_order_of_the_images():
    random = np.random.default_rng(3)
    indices, cameras = np.argsort(random.random((50, 50)), axis=1)[:, :9], random.integers(-1, 3, 50)
    order = random.permutation(50)
    place = np.argsort(order)
    assert camera_cycle(place[indices[order]], cameras[order]) == camera_cycle(indices, cameras)


# --- silhouette ---


def test_silhouette_by_hand():
    distances = np.ones((5, 5))
    np.fill_diagonal(distances, 0)
    for i, j, distance in ((0, 1, 0.2), (2, 3, 0.4), (0, 2, 0.6)):
        distances[i, j] = distances[j, i] = distance
    # 0: a .2, b (.6 + 1) / 2 = .8; 1: a .2, b 1; 2: a .4, b .8; 3: a .4, b 1; 4 has no label
    expected = ((0.8 - 0.2) / 0.8 + 0.8 + (0.8 - 0.4) / 0.8 + 0.6 + 0) / 5
    assert mean_silhouette([0, 0, 1, 1, -1], stored(distances)) == pytest.approx(expected)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(2, 25), st.integers(1, 5), st.integers(0, 2**16), st.sampled_from([0.0, 0.5, 0.9]))
def test_silhouette_is_that_of_the_dense_definition(count, clusters, seed, ones):
    random = np.random.default_rng(seed)
    distances = drawn_distances(random, count, ones)
    labels = random.integers(-1, clusters, count)
    expected = silhouettes.mean_silhouette(labels, distances)
    assert mean_silhouette(labels, stored(distances)) == pytest.approx(expected, abs=1e-6)


def test_silhouette_is_scikit_learns_where_every_image_has_a_label():
    random = np.random.default_rng(0)
    distances = drawn_distances(random, 60, 0.4)
    labels = np.arange(60) % 7
    expected = silhouette_score(distances, labels, metric="precomputed")
    assert mean_silhouette(labels, stored(distances)) == pytest.approx(expected, abs=1e-6)


def test_silhouette_does_not_depend_on_the_names_of_clusters_or_the_order_of_images():
    random = np.random.default_rng(1)
    distances, labels = drawn_distances(random, 30, 0.5), random.integers(-1, 4, 30)
    value = mean_silhouette(labels, stored(distances))
    renamed = np.array([7, 2, 9, 0, -1])[labels]
    assert mean_silhouette(renamed, stored(distances)) == pytest.approx(value, abs=1e-12)
    order = random.permutation(30)
    assert mean_silhouette(labels[order], stored(distances[np.ix_(order, order)])) == pytest.approx(value, abs=1e-12)


def test_one_cluster_no_cluster_and_single_images_have_no_silhouette():
    distances = stored(drawn_distances(np.random.default_rng(2), 4, 0.0))
    for labels in ([0, 0, 0, 0], [-1, -1, -1, -1], [0, 1, 2, 3], [0, 0, -1, -1]):
        assert mean_silhouette(labels, distances) == 0.0


def test_perfect_clusters_have_silhouette_one():
    distances = np.ones((6, 6), np.float32)
    distances[:3, :3] = distances[3:, 3:] = 0
    assert mean_silhouette([0, 0, 0, 1, 1, 1], stored(distances)) == 1.0


def test_labels_of_other_images_are_refused():
    with pytest.raises(ValueError, match=r"3 labels and distances of shape \(4, 4\)"):
        mean_silhouette([0, 0, 1], stored(drawn_distances(np.random.default_rng(3), 4, 0.0)))


# --- stability, cameras, shares ---


def test_stability_is_the_rand_index_over_images_with_a_label_in_both():
    now, before = [0, 0, 1, 1, 2, -1, 2], [5, 5, 5, 3, 3, 3, -1]
    assert stability(now, before) == pytest.approx(adjusted_rand_score([0, 0, 1, 1, 2], [5, 5, 5, 3, 3]))
    assert stability(now, before) == pytest.approx(stability(before, now))


def test_the_same_clusters_are_stable_whatever_their_names_and_one_cluster_says_nothing():
    labels = np.repeat([0, 1, 2], 5)
    assert stability(labels, np.array([8, 3, 4])[labels]) == 1.0
    assert stability(np.zeros(9, int), np.zeros(9, int)) == 0.0
    assert stability([0, -1], [-1, 0]) is None


def test_labels_drawn_anew_are_unstable_on_average():
    random = np.random.default_rng(4)
    values = [stability(random.integers(0, 6, 80), random.integers(0, 6, 80)) for _ in range(200)]
    assert abs(np.mean(values)) < 0.01  # 0 by the definition; the standard error of this mean is about .001


def test_camera_mixing_by_definition_and_at_its_ends():
    labels, cameras = [0, 0, 1, 1, 2, 2, -1, 2], [0, 1, 0, 0, 1, 1, 0, -1]
    expected = 1 - adjusted_mutual_info_score([0, 0, 1, 1, 2, 2], [0, 1, 0, 0, 1, 1])
    assert camera_mixing(labels, cameras) == pytest.approx(expected)
    assert camera_mixing([0, 0, 1, 1], [3, 3, 7, 7]) == 0.0  # a cluster is a camera
    assert camera_mixing([0, 0, 1, 1], [3, 3, 3, -1]) is None
    assert camera_mixing([0, 0, 1, 1], [-1, -1, -1, -1]) is None


def test_vectors_of_two_lengths_are_refused():
    for criterion in (stability, camera_mixing):
        with pytest.raises(ValueError, match="one length"):
            criterion([0, 1], [0])


def test_shares_by_hand():
    assert assigned_share([0, -1, 3, -1]) == 0.5
    alphas_NL = np.array([[0.2, 0.4], [0.6, 0.0]], np.float32)
    assert neighbour_agreement(alphas_NL) == pytest.approx(0.3)
    assert neighbour_agreement(np.empty((4, 0), np.float32)) is None


# --- correlation ---


def test_rank_correlation_is_scipys_with_ties():
    values, truths = [1, 2, 2, 5, 9, 3], [4, 4, 6, 1, 8, 8]
    assert rank_correlation(values, truths) == pytest.approx(spearmanr(values, truths).statistic)
    assert rank_correlation(np.exp(values), truths) == pytest.approx(rank_correlation(values, truths))


def test_too_few_or_equal_figures_have_no_rank_correlation():
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert rank_correlation([1, np.nan, 2], [1, 2, 3]) is None


def test_draws_that_are_all_of_one_trial_have_no_interval():
    class Same:
        def integers(self, low, high, shape):
            return np.zeros(shape, int)

    assert correlation_interval([1, 2, 3], [1, 2, 3], Same(), resamples=5) is None
    assert correlation_interval([1, 2], [1, 2], np.random.default_rng(0), resamples=10) is None


def test_the_interval_is_wide_for_few_trials_and_holds_the_value():
    random = np.random.default_rng(5)
    truths = random.random(20)
    values = truths + 0.5 * random.random(20)
    low, high = correlation_interval(values, truths, random, resamples=300)
    assert low < rank_correlation(values, truths) < high <= 1
    assert correlation_interval(truths, truths, random, resamples=100) == pytest.approx((1.0, 1.0))
