"""Centroids and the rules that move them: by hand, against the loops of tests/reference/memory.py, by invariants."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reidray.memory import (
    average_update,
    chosen_update,
    cluster_centroids,
    clusters_in_batch,
    hardest_update,
    normalised_weights,
    weighted_update,
)
from tests.reference import memory as reference

# B = batch, C = clusters, S = spaces, D = feature width

LABELS = [3, 1, 3, 0, 1, 3, 3, 0, 1]  # cluster 2 of 4 has no image in the batch


def units(*shape, seed):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def batch(seed=0, spaces=3, width=5):
    return units(4, spaces, width, seed=seed), units(len(LABELS), spaces, width, seed=seed + 1), torch.tensor(LABELS)


def applied(rule, centroids_CSD, features_BSD, labels_B, *arguments, **settings):
    """All centroids after a rule has moved those of the batch."""
    clusters_U, places_B = clusters_in_batch(labels_B)
    after_CSD = centroids_CSD.clone()
    after_CSD[clusters_U] = rule(centroids_CSD[clusters_U], features_BSD, places_B, *arguments, **settings)
    return after_CSD


def average(memory, features, labels, **settings):
    return applied(average_update, memory, features, labels, **settings)


def hardest(memory, features, labels, **settings):
    return applied(hardest_update, memory, features, labels, **settings)


def equally_weighted(memory, features, labels, **settings):
    weights = normalised_weights(torch.ones(features.shape[:2]), clusters_in_batch(labels)[1])
    return applied(weighted_update, memory, features, labels, weights, **settings)


def by_chance(memory, features, labels, **settings):
    keys = torch.rand(features.shape[:2], generator=torch.Generator().manual_seed(4))
    return applied(chosen_update, memory, features, labels, keys, **settings)


RULES = [average, hardest, equally_weighted, by_chance]


def assert_close(found, expected, atol=2e-6):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float32), rtol=0, atol=atol)


# ---- centroids of clusters


def test_a_centroid_is_the_unit_mean_of_its_members_by_hand():
    features_NSD = np.array([[[1, 0]], [[0, 1]], [[0.6, 0.8]], [[0, -1]]], np.float32)
    centroids_CSD = cluster_centroids(features_NSD, np.array([1, 1, 0, -1]), 2)
    assert centroids_CSD.dtype == np.float32
    np.testing.assert_allclose(centroids_CSD, [[[0.6, 0.8]], [[math.sqrt(0.5), math.sqrt(0.5)]]], rtol=1e-7)


def test_centroids_agree_with_exactly_rounded_sums():
    random = np.random.default_rng(0)
    features_NSD = random.normal(size=(60, 3, 7)).astype(np.float32)
    labels_N = np.concatenate([np.arange(5), random.integers(-1, 5, 55)])
    copies = features_NSD.copy(), labels_N.copy()
    found = cluster_centroids(features_NSD, labels_N, 5)
    expected = np.array(reference.centroids(features_NSD, labels_N, 5))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(features_NSD, copies[0])
    np.testing.assert_array_equal(labels_N, copies[1])


def test_centroids_do_not_depend_on_the_order_of_the_images():
    random = np.random.default_rng(1)
    features_NSD = random.normal(size=(400, 1, 8)).astype(np.float32)
    labels_N = np.concatenate([np.arange(3), random.integers(-1, 3, 397)])
    found = cluster_centroids(features_NSD, labels_N, 3)
    shuffled = random.permutation(400)
    # Summed in float64, so that another order changes the last bit of a float32 at the very most.
    np.testing.assert_array_max_ulp(cluster_centroids(features_NSD[shuffled], labels_N[shuffled], 3), found, maxulp=1)


def test_centroids_do_not_depend_on_what_stands_between_the_members():
    random = np.random.default_rng(2)
    features_NSD = random.normal(size=(300, 2, 8)).astype(np.float32)
    labels_N = random.integers(0, 3, 300)
    by_cluster = np.argsort(labels_N, kind="stable")
    found = cluster_centroids(features_NSD, labels_N, 3)
    np.testing.assert_array_equal(cluster_centroids(features_NSD[by_cluster], labels_N[by_cluster], 3), found)
    with_outliers = np.insert(features_NSD, 100, 9.0, axis=0)
    np.testing.assert_array_equal(cluster_centroids(with_outliers, np.insert(labels_N, 100, -1), 3), found)


@pytest.mark.parametrize(
    ("labels", "num_clusters"),
    [([0, 2, 2], 3), ([0, 1, 1], 3), ([1, 2, 1], 3), ([0, 1, 2], 2), ([-1, -1, -1], 1), ([], 1), ([0, 0, 0], 0)],
)
def test_a_cluster_without_a_member_is_refused(labels, num_clusters):
    features_NSD = np.ones((len(labels), 1, 2), np.float32)
    with pytest.raises(ValueError, match=rf"each of the {num_clusters} clusters"):
        cluster_centroids(features_NSD, np.array(labels, np.int64), num_clusters)


def test_members_that_cancel_give_a_finite_centroid():
    features_NSD = np.array([[[1, 0]], [[-1, 0]]], np.float32)
    np.testing.assert_array_equal(cluster_centroids(features_NSD, np.zeros(2, np.int64), 1), np.zeros((1, 1, 2)))


def test_clusters_of_a_batch_are_ascending_and_each_image_finds_its_own():
    labels_B = torch.tensor(LABELS)
    clusters_U, places_B = clusters_in_batch(labels_B)
    assert clusters_U.tolist() == [0, 1, 3]
    assert torch.equal(clusters_U[places_B], labels_B)


# ---- what all rules share


@pytest.mark.parametrize("rule", RULES)
def test_an_update_keeps_unit_length_and_other_rows(rule):
    memory, features, labels = batch()
    after = rule(memory, features, labels, momentum=0.2)
    torch.testing.assert_close(after.norm(dim=-1), torch.ones(4, 3))
    assert torch.equal(after[2], memory[2])
    assert not torch.isclose(after[[0, 1, 3]], memory[[0, 1, 3]]).all(dim=-1).any()


@pytest.mark.parametrize("rule", [average_update, hardest_update, chosen_update, weighted_update])
def test_a_rule_leaves_all_its_input_alone(rule):
    memory, features, labels = batch()
    clusters_U, places_B = clusters_in_batch(labels)
    given = [memory[clusters_U], features, places_B]
    if rule in (chosen_update, weighted_update):
        given.append(torch.rand(9, 3, generator=torch.Generator().manual_seed(4)))
    copies = [tensor.clone() for tensor in given]
    after = rule(*given, momentum=0.2)
    assert not torch.equal(after, given[0])
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, copies, strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_momentum_1_leaves_the_memory_where_it_is(rule):
    memory, features, labels = batch()
    torch.testing.assert_close(rule(memory, features, labels, momentum=1.0), memory)


@pytest.mark.parametrize("rule", RULES)
def test_spaces_do_not_touch_each_other(rule):
    memory, features, labels = batch()
    other_memory, other_features = memory.clone(), features.clone()
    other_memory[:, 1:], other_features[:, 1:] = units(4, 2, 5, seed=8), units(9, 2, 5, seed=9)
    expected = rule(memory, features, labels, momentum=0.2)[:, 0]
    assert torch.equal(rule(other_memory, other_features, labels, momentum=0.2)[:, 0], expected)


@pytest.mark.parametrize("rule", [average, hardest, equally_weighted])
def test_the_order_of_clusters_in_the_batch_does_not_matter(rule):
    memory, features, labels = batch()
    by_cluster = torch.sort(labels, stable=True).indices  # images of one cluster stay in their order
    expected = rule(memory, features, labels, momentum=0.2)
    torch.testing.assert_close(rule(memory, features[by_cluster], labels[by_cluster], momentum=0.2), expected)


@pytest.mark.parametrize("rule", RULES)
def test_one_image_of_a_cluster_is_the_plain_moving_average_whatever_the_rule(rule):
    memory, features = units(2, 3, 5, seed=0), units(2, 3, 5, seed=1)
    after = rule(memory, features, torch.tensor([1, 0]), momentum=0.3)
    torch.testing.assert_close(after, F.normalize(0.3 * memory + 0.7 * features.flip(0), dim=-1))


# ---- average


def test_average_update_by_hand():
    memory = torch.tensor([[[1.0, 0.0]]])
    features = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    after = average(memory, features, torch.tensor([0, 0]), momentum=0.5)
    # (1, 1) / sqrt 2 after the first image, then half of that plus half of (1, 0)
    x, y = (1 + math.sqrt(0.5)) / 2, math.sqrt(0.5) / 2
    assert_close(after, [[[x / math.hypot(x, y), y / math.hypot(x, y)]]])


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.2, 0.9])
def test_average_update_is_the_loop_over_the_images_in_batch_order(momentum):
    for seed in range(5):
        memory, features, labels = batch(seed)
        expected = reference.sequential(memory.tolist(), features.tolist(), LABELS, momentum)
        assert_close(average(memory, features, labels, momentum=momentum), expected)


def test_average_update_depends_on_the_order_within_a_cluster():
    memory, features, labels = batch()
    swapped = features.clone()
    swapped[[1, 4]] = features[[4, 1]]  # both of cluster 1
    after, otherwise = (average(memory, rows, labels, momentum=0.2) for rows in (features, swapped))
    assert torch.equal(after[[0, 2, 3]], otherwise[[0, 2, 3]])
    assert not torch.allclose(after[1], otherwise[1], atol=1e-3)


def test_average_update_does_not_depend_on_the_order_between_clusters():
    memory, features, labels = batch()
    order = [3, 0, 1, 2, 4, 7, 5, 8, 6]  # each cluster's own images in their order
    assert [LABELS[i] for i in order] != LABELS
    after = average(memory, features, labels, momentum=0.2)
    assert torch.equal(average(memory, features[order], labels[order], momentum=0.2), after)


def test_average_update_with_momentum_0_takes_the_last_image():
    memory, features, labels = batch()
    after = average(memory, features, labels, momentum=0.0)
    torch.testing.assert_close(after[[3, 1, 0]], features[[6, 8, 7]])


# ---- hardest and random


def test_hardest_update_takes_the_least_similar_image_of_each_space_by_hand():
    memory = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    features = torch.tensor([[[0.0, 1.0], [0.6, 0.8]], [[0.8, 0.6], [1.0, 0.0]]])  # image 0 in space 0, 1 in space 1
    after = hardest(memory, features, torch.tensor([0, 0]), momentum=0.5)
    assert_close(after, [[[math.sqrt(0.5)] * 2, [math.sqrt(0.5)] * 2]])


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.9])
def test_hardest_update_agrees_with_the_loop(momentum):
    for seed in range(5):
        memory, features, labels = batch(seed)
        expected = reference.hardest(memory.tolist(), features.tolist(), LABELS, momentum)
        assert_close(hardest(memory, features, labels, momentum=momentum), expected)


def test_of_equally_hard_images_the_first_is_taken():
    memory = torch.tensor([[[0.0, 0.0, 1.0]]])
    features = torch.tensor([[[0.0, 0.6, 0.8]], [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]]])
    after = hardest(memory, features, torch.zeros(4, dtype=torch.int64), momentum=0.5)
    assert_close(after, [[[math.sqrt(0.5), 0, math.sqrt(0.5)]]])
    after = hardest(memory, features[[2, 1]], torch.zeros(2, dtype=torch.int64), momentum=0.5)
    assert_close(after, [[[0, math.sqrt(0.5), math.sqrt(0.5)]]])


def test_the_chosen_image_is_the_one_with_the_least_key():
    memory, features, labels = batch()
    keys = torch.linspace(0.9, 0.1, len(LABELS)).unsqueeze(1).expand(-1, 3)  # falling: the last image of each cluster
    after = applied(chosen_update, memory, features, labels, keys, momentum=0.2)
    last = torch.stack([features[7], features[8], features[6]])
    torch.testing.assert_close(after[[0, 1, 3]], F.normalize(0.2 * memory[[0, 1, 3]] + 0.8 * last, dim=-1))


# ---- weighted


def alphas(seed=3, spaces=3):
    return torch.rand(len(LABELS), spaces, generator=torch.Generator().manual_seed(seed))


def places(over):
    return clusters_in_batch(torch.tensor(LABELS))[1] if over == "cluster" else None


def test_weights_of_a_cluster_sum_to_1_by_hand():
    raw = torch.tensor([[0.1], [0.3], [0.0], [0.2]])
    assert_close(normalised_weights(raw, torch.tensor([0, 0, 1, 1])), [[0.25], [0.75], [0.0], [1.0]])
    assert_close(normalised_weights(raw, None), [[1 / 6], [1 / 2], [0.0], [1 / 3]])


@pytest.mark.parametrize("over", ["cluster", "batch"])
def test_weights_agree_with_the_loop_and_sum_to_1(over):
    raw = alphas()
    raw[[1, 4, 8], 1] = 0.0  # all of cluster 1, in one space
    found = normalised_weights(raw, places(over))
    assert_close(found, reference.weights(raw.tolist(), LABELS, over))
    assert bool((found >= 0).all())
    groups = [torch.tensor(LABELS) == label for label in {*LABELS}] if over == "cluster" else [torch.ones(9).bool()]
    for group in groups:
        torch.testing.assert_close(found[group].sum(0), torch.ones(3))


@pytest.mark.parametrize("over", ["cluster", "batch"])
def test_weights_that_are_all_zero_become_equal(over):
    raw = alphas()
    raw[:, 2] = 0.0
    found = normalised_weights(raw, places(over))
    expected = [1 / LABELS.count(label) if over == "cluster" else 1 / len(LABELS) for label in LABELS]
    assert_close(found[:, 2], expected)
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("over", ["cluster", "batch"])
def test_weights_do_not_depend_on_the_scale_of_the_raw_ones(over):
    raw = alphas()
    torch.testing.assert_close(normalised_weights(raw / 1024, places(over)), normalised_weights(raw, places(over)))


def test_weighted_update_by_hand():
    memory = torch.tensor([[[1.0, 0.0]]])
    features = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    weights = torch.tensor([[0.75], [0.25]])
    after = applied(weighted_update, memory, features, torch.tensor([0, 0]), weights, momentum=0.5)
    assert_close(after, [[[0.625 / math.hypot(0.625, 0.375), 0.375 / math.hypot(0.625, 0.375)]]])


@pytest.mark.parametrize("over", ["cluster", "batch"])
@pytest.mark.parametrize("momentum", [0.1, 0.2, 0.9])
def test_weighted_update_agrees_with_the_loop(over, momentum):
    for seed in range(5):
        memory, features, labels = batch(seed)
        raw = alphas(seed)
        found = applied(
            weighted_update, memory, features, labels, normalised_weights(raw, places(over)), momentum=momentum
        )
        weights = reference.weights(raw.tolist(), LABELS, over)
        expected = reference.weighted(memory.tolist(), features.tolist(), LABELS, weights, momentum)
        assert_close(found, expected)


def test_weighted_update_does_not_depend_on_the_order_of_the_batch():
    memory, features, labels = batch()
    weights = normalised_weights(alphas(), places("cluster"))
    order = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))
    after = applied(weighted_update, memory, features, labels, weights, momentum=0.2)
    again = applied(weighted_update, memory, features[order], labels[order], weights[order], momentum=0.2)
    torch.testing.assert_close(again, after)


def test_weights_over_a_cluster_lead_from_the_mean_of_its_images_to_the_hardest_one():
    memory, features, labels = batch()
    _, places_B = clusters_in_batch(labels)
    mean = torch.stack([features[labels == label].mean(0) for label in (0, 1, 3)])
    after = equally_weighted(memory, features, labels, momentum=0.2)
    torch.testing.assert_close(after[[0, 1, 3]], F.normalize(0.2 * memory[[0, 1, 3]] + 0.8 * mean, dim=-1))

    similarities_BS = (memory[labels] * features).sum(-1)
    least_BS = torch.stack([similarities_BS[labels == label].amin(0) for label in labels])
    all_on_the_hardest = normalised_weights((similarities_BS == least_BS).float(), places_B)
    found = applied(weighted_update, memory, features, labels, all_on_the_hardest, momentum=0.2)
    torch.testing.assert_close(found, hardest(memory, features, labels, momentum=0.2))

    between = applied(  # half of each, as the text of Table 3 says
        weighted_update,
        memory,
        features,
        labels,
        (all_on_the_hardest + normalised_weights(torch.ones(9, 3), places_B)) / 2,
        momentum=0.2,
    )
    to_mean, to_hardest, apart = (
        torch.linalg.vector_norm(a - b, dim=-1) for a, b in ((between, after), (between, found), (after, found))
    )
    moved = torch.tensor([0, 1, 3])
    assert bool((to_mean[moved] < apart[moved]).all())
    assert bool((to_hardest[moved] < apart[moved]).all())


def test_weights_over_the_batch_are_a_slower_moving_average():
    memory, features, labels = batch()
    per_cluster, per_batch = (
        applied(weighted_update, memory, features, labels, normalised_weights(alphas(), places(over)), momentum=0.2)
        for over in ("cluster", "batch")
    )
    moved = torch.tensor([0, 1, 3])
    far, near = ((after - memory).norm(dim=-1)[moved] for after in (per_cluster, per_batch))
    assert bool((near < far).all())
