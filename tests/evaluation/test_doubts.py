"""Doubts against sums written out image by image, and what they say of clusters that anybody would call odd."""

from __future__ import annotations

import numpy as np
import pytest

from reidray.evaluation.doubts import UNKNOWN, judge, look_inside, nearer, nearest_others, nobody


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def groups(centres: list[tuple[float, ...]], sizes: list[int], spread: float, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed)
    rows = [
        np.array(centre) + spread * draws.normal(size=(size, 3)) for centre, size in zip(centres, sizes, strict=True)
    ]
    return unit(np.concatenate(rows)).astype(np.float32)


def test_the_doubt_of_an_image_is_its_distance_to_the_others_of_its_cluster_against_that_to_the_next_cluster() -> None:
    features_ND = groups([(1, 0, 0), (0, 1, 0), (0, 0, 1)], [5, 4, 3], 0.3)
    labels_N = np.array([0] * 5 + [1] * 4 + [2] * 3)
    labels_N[[4, 8]] = -1
    found = judge(features_ND, labels_N)
    centroids = unit(np.stack([features_ND[labels_N == c].sum(0) for c in range(3)]))
    for image in range(12):
        own = labels_N[image]
        away = [np.linalg.norm(features_ND[image] - centroid) for centroid in centroids]
        others = [c for c in range(3) if c != own]
        nearest = min(others, key=lambda c: away[c])
        assert found.nearest_N[image] == nearest
        if own < 0:
            assert (found.doubts_N[image], found.halves_N[image]) == (1, -1)
            continue
        rest = [other for other in range(12) if labels_N[other] == own and other != image]
        inside = np.linalg.norm(features_ND[image] - unit(features_ND[rest].sum(0)))
        assert found.doubts_N[image] == pytest.approx(inside / (inside + away[nearest]), abs=1e-4)
    for c in range(3):
        assert found.doubts_C[c] == pytest.approx(found.doubts_N[labels_N == c].mean(), abs=1e-4)


def test_rows_of_any_length_give_the_same() -> None:
    features_ND = groups([(1, 0, 0), (0, 1, 0)], [20, 15], 0.4)
    labels_N = np.repeat([0, 1], [20, 15])
    plain, longer = (
        judge(features_ND, labels_N),
        judge(features_ND * np.linspace(1, 3, 35, dtype=np.float32)[:, None], labels_N),
    )
    np.testing.assert_allclose(plain.doubts_N, longer.doubts_N, atol=2e-4)
    np.testing.assert_allclose(plain.widths_C, longer.widths_C, atol=2e-4)
    np.testing.assert_array_equal(plain.nearest_N, longer.nearest_N)
    np.testing.assert_array_equal(plain.halves_N, longer.halves_N)


def test_clusters_by_themselves_and_centroids_in_blocks_of_any_order_are_those_of_all_at_once() -> None:
    features_ND = groups([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)], [7, 1, 5, 9], 0.4)
    labels_N = np.repeat([0, 1, 2, 3], [7, 1, 5, 9])
    whole = look_inside(features_ND, labels_N)
    for cluster in range(4):
        own = labels_N == cluster
        alone = look_inside(features_ND[own], np.zeros(own.sum(), np.int64))
        np.testing.assert_allclose(alone.centroids_CD[0], whole.centroids_CD[cluster], atol=1e-6)
        np.testing.assert_allclose(alone.inside_M, whole.inside_M[own], atol=1e-6)
        np.testing.assert_array_equal(alone.halves_M, whole.halves_M[own])
        np.testing.assert_allclose(alone.across_C[0], whole.across_C[cluster], atol=1e-6)
    labels_N[[3, 9, 20]] = -1
    at_once = nearest_others(features_ND, labels_N, whole.centroids_CD, 0)
    for order in ([(2, 4), (0, 2)], [(3, 4), (1, 3), (0, 1)]):
        found = nobody(22)
        for first, end in order:
            found = nearer(found, nearest_others(features_ND, labels_N, whole.centroids_CD[first:end], first))
        np.testing.assert_allclose(found.similarities_R, at_once.similarities_R, atol=1e-6)
        np.testing.assert_array_equal(found.clusters_R, at_once.clusters_R)


def test_of_identical_images_there_is_no_doubt() -> None:
    features_ND = np.repeat(groups([(1, 2, 3), (3, -1, 2)], [1, 1], 0.3), 5, axis=0)
    found = judge(features_ND, np.repeat([0, 1], 5))
    assert set(found.doubts_N) == set(found.widths_C) == {0}


@pytest.mark.parametrize("seed", range(5))
def test_of_two_images_the_first_is_the_first_half(seed: int) -> None:
    draws = np.random.default_rng(seed)
    features_ND = unit(draws.normal(size=(40, 64))).astype(np.float32)
    assert judge(features_ND, np.repeat(np.arange(20), 2)).halves_N.tolist() == [0, 1] * 20


def test_of_two_clusters_that_are_equally_near_the_lower_one_is_the_nearest() -> None:
    centroids = np.array([(0, 1, 0), (0, 0, 1), (0, 0, 1)], np.float32)
    features, labels = np.array([(0, 0, 1)], np.float32), np.array([0])
    pieces = [nearest_others(features, labels, centroids[[place]], place) for place in (2, 1, 0)]
    found = nearer(nearer(pieces[0], pieces[1]), pieces[2])
    assert found.clusters_R.tolist() == nearest_others(features, labels, centroids, 0).clusters_R.tolist() == [1]
    assert pieces[2].clusters_R.tolist() == [-1]  # its own alone


def test_a_cluster_of_two_groups_falls_into_them_and_one_of_a_single_group_hardly_does() -> None:
    features_ND = groups([(1, 0, 0), (0, 1, 0), (0, 0, 1)], [10, 6, 12], 0.05)
    labels_N = np.repeat([0, 0, 1], [10, 6, 12])
    found = judge(features_ND, labels_N)
    halves = found.halves_N[:16]
    assert len(set(halves[:10])) == len(set(halves[10:])) == 1
    assert halves[0] != halves[10]
    assert found.widths_C[0] > 0.5 > 0.2 > found.widths_C[1]


def test_a_width_is_the_distance_of_far_images_against_that_to_the_next_cluster() -> None:
    features_ND = groups([(1, 0, 0), (1, 0.9, 0), (0, 0, 1), (-1, 0, 0)], [6, 5, 8, 1], 0.04)
    labels_N = np.repeat([0, 0, 1, 2], [6, 5, 8, 1])
    found = judge(features_ND, labels_N)
    centroids = unit(np.stack([features_ND[labels_N == c].sum(0) for c in range(3)]))
    for cluster in (0, 1):
        own = features_ND[labels_N == cluster]
        others = np.delete(centroids, cluster, axis=0)
        outside = np.linalg.norm(own[:, None] - others[None], axis=2).min(1).mean()
        seed = own[np.linalg.norm(own - centroids[cluster], axis=1).argmax()]
        width = np.linalg.norm(own - seed, axis=1).max()
        assert found.widths_C[cluster] == pytest.approx(width / (width + outside), abs=1e-4)
    assert found.widths_C[2] == 0  # one image has no width
    assert judge(features_ND, np.zeros(20, np.int64)).widths_C.tolist() == [0]  # and one cluster no next


def test_of_an_image_that_is_alone_or_a_cluster_that_is_alone_nothing_is_said() -> None:
    features_ND = groups([(1, 0, 0), (0, 1, 0)], [1, 4], 0.1)
    found = judge(features_ND, np.array([0, 1, 1, 1, 1]))
    assert found.doubts_N[0] == UNKNOWN > found.doubts_N[1:].max()
    alone = judge(features_ND, np.zeros(5, np.int64))
    assert set(alone.doubts_N) == {UNKNOWN}
    assert set(alone.nearest_N) == {-1}
    nobody = judge(features_ND, np.full(5, -1))
    assert set(nobody.doubts_N) == {1}
    assert len(nobody.doubts_C) == 0
