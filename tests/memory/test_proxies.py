"""Proxies of clusters under cameras: by hand, against the loop of tests/reference/pplr.py, by invariants."""

import math

import numpy as np
import pytest

from reidray.memory import camera_proxies, cluster_centroids
from tests.reference import pplr as reference

# N = images, Q = proxies, S = spaces, D = feature width


def images(seed, count=60):
    """Unit features of uneven clusters under 4 cameras; cluster 0 is under one camera only, some are outliers."""
    random = np.random.default_rng(seed)
    features_NSD = random.normal(size=(count, 3, 7))
    features_NSD /= np.linalg.norm(features_NSD, axis=2, keepdims=True)
    labels_N = np.minimum(random.geometric(0.3, count), 8) - 2
    cameras_N = random.choice([0, 1, 2, 15], count)
    cameras_N[labels_N == 0] = 2
    return features_NSD.astype(np.float32), labels_N, cameras_N


def test_a_proxy_is_the_unit_mean_of_a_cluster_under_a_camera_by_hand():
    features_NSD = np.array([[[1, 0]], [[0, 1]], [[0.6, 0.8]], [[0, -1]], [[0.8, 0.6]]], np.float32)
    labels_N, cameras_N = np.array([1, 1, 0, -1, 1]), np.array([4, 4, 4, 4, 2])
    proxies_QSD, labels_Q, cameras_Q = camera_proxies(features_NSD, labels_N, cameras_N)
    assert proxies_QSD.dtype == np.float32
    assert labels_Q.tolist() == [0, 1, 1]
    assert cameras_Q.tolist() == [4, 2, 4]
    half = math.sqrt(0.5)
    np.testing.assert_allclose(proxies_QSD, [[[0.6, 0.8]], [[0.8, 0.6]], [[half, half]]], rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_proxies_agree_with_the_loop(seed):
    batch = images(seed)
    expected = reference.proxies(batch[0], batch[1].tolist(), batch[2].tolist())
    proxies_QSD, labels_Q, cameras_Q = camera_proxies(*batch)
    pairs = list(zip(labels_Q.tolist(), cameras_Q.tolist(), strict=True))
    assert pairs == [(label, camera) for _, label, camera in expected]
    np.testing.assert_allclose(proxies_QSD, np.array([rows for rows, _, _ in expected]), atol=1e-7)


def test_there_is_a_proxy_for_each_camera_of_each_cluster_in_order():
    features_NSD, labels_N, cameras_N = images(0)
    proxies_QSD, labels_Q, cameras_Q = camera_proxies(features_NSD, labels_N, cameras_N)
    pairs = list(zip(labels_Q.tolist(), cameras_Q.tolist(), strict=True))
    assert pairs == sorted({(y, c) for y, c in zip(labels_N.tolist(), cameras_N.tolist(), strict=True) if y >= 0})
    assert [camera for label, camera in pairs if label == 0] == [2]
    np.testing.assert_allclose(np.linalg.norm(proxies_QSD, axis=2), 1, rtol=1e-6)


def test_under_one_camera_proxies_are_centroids_bit_for_bit():
    features_NSD, labels_N, cameras_N = images(1)
    count = int(labels_N.max()) + 1
    proxies_QSD, labels_Q, _ = camera_proxies(features_NSD, labels_N, np.full_like(cameras_N, 3))
    np.testing.assert_array_equal(labels_Q, np.arange(count))
    np.testing.assert_array_equal(proxies_QSD, cluster_centroids(features_NSD, labels_N, count))


def test_outliers_and_images_elsewhere_do_not_touch_a_proxy():
    features_NSD, labels_N, cameras_N = images(2)
    whole = camera_proxies(features_NSD, labels_N, cameras_N)
    kept = labels_N == 1
    part = camera_proxies(features_NSD[kept], labels_N[kept], cameras_N[kept])
    for all_of, some_of in zip(whole, part, strict=True):
        np.testing.assert_array_equal(all_of[whole[1] == 1], some_of)


def test_the_order_of_images_changes_at_most_the_last_bit_and_nothing_is_written_to():
    batch = images(3)
    copies = [array.copy() for array in batch]
    order = np.random.default_rng(0).permutation(60)
    found, moved = camera_proxies(*batch), camera_proxies(*(array[order] for array in batch))
    np.testing.assert_allclose(moved[0], found[0], atol=1e-7)
    for one, other in zip(found[1:], moved[1:], strict=True):
        np.testing.assert_array_equal(one, other)
    for now, before in zip(batch, copies, strict=True):
        np.testing.assert_array_equal(now, before)


def test_without_clusters_there_are_no_proxies():
    features_NSD, labels_N, cameras_N = images(4)
    proxies_QSD, labels_Q, cameras_Q = camera_proxies(features_NSD, np.full_like(labels_N, -1), cameras_N)
    assert proxies_QSD.shape == (0, 3, 7)
    assert len(labels_Q) == len(cameras_Q) == 0


def test_features_of_other_images_than_the_labels_are_refused():
    features_NSD, labels_N, cameras_N = images(0)
    with pytest.raises(ValueError, match="got 60 features, 60 labels and 59 cameras"):
        camera_proxies(features_NSD, labels_N, cameras_N[1:])
