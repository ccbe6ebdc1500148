"""The memory update by its name, and weights of mean 1."""

import pytest
import torch
import torch.nn.functional as F

from reidray.memory import (
    clusters_in_batch,
    equal_weights,
    moved_centroids,
    of_mean_one,
    weighted_sequence,
    weights_of_mean_one,
)
from tests.reference import memory as reference

# B = batch, C = clusters, U = clusters in the batch, S = vectors, D = feature width

LABELS = [3, 1, 3, 0, 1, 3, 3, 0, 1]  # cluster 2 of 4 has no image in the batch


def units(*shape, seed):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def uniforms(*shape, seed=2):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


MEMORY, FEATURES = units(4, 3, 5, seed=0), units(9, 3, 5, seed=1)


def moved(rule, **arguments):
    """The clusters that moved, their new rows, and the reference's rows of the same clusters given a whole memory."""
    copies = MEMORY.clone(), FEATURES.clone()
    clusters_U, rows_USD = moved_centroids(
        rule, MEMORY.__getitem__, FEATURES, torch.tensor(LABELS), momentum=0.2, uniforms_B=uniforms(9), **arguments
    )
    assert torch.equal(MEMORY, copies[0])
    assert torch.equal(FEATURES, copies[1])
    assert clusters_U.tolist() == [0, 1, 3]
    return rows_USD


def assert_rows(rows_USD, memory):
    torch.testing.assert_close(rows_USD, torch.tensor(memory)[[0, 1, 3]], rtol=0, atol=2e-6)


def test_average_and_hardest_by_name_are_the_loops():
    arguments = MEMORY.tolist(), FEATURES.tolist(), LABELS, 0.2
    assert_rows(moved("average"), reference.sequential(*arguments))
    assert_rows(moved("hardest"), reference.hardest(*arguments))


@pytest.mark.parametrize("over", ["cluster", "batch"])
def test_weighted_by_name_is_the_loop_in_both_normalisations(over):
    raw_BS = uniforms(9, 3, seed=7)
    weights = reference.weights(raw_BS.tolist(), LABELS, over)
    expected = reference.weighted(MEMORY.tolist(), FEATURES.tolist(), LABELS, weights, 0.2)
    assert_rows(moved("weighted", raw_weights_BS=raw_BS, normalise=over), expected)


@pytest.mark.parametrize("over", ["cluster", "batch"])
def test_weighted_image_after_image_is_the_loop_in_both_normalisations(over):
    raw_BS = uniforms(9, 3, seed=7)
    weights = reference.weights(raw_BS.tolist(), LABELS, over)
    if over == "cluster":  # of mean 1
        weights = [[LABELS.count(y) * w for w in row] for row, y in zip(weights, LABELS, strict=True)]
    expected = reference.weighted_sequence(MEMORY.tolist(), FEATURES.tolist(), LABELS, weights, 0.2)
    assert_rows(moved("weighted", raw_weights_BS=raw_BS, normalise=over, once=False), expected)


def test_equal_weights_give_the_average_and_a_single_weight_the_hardest_bit_for_bit():
    """So that a comparison of the three changes the weights and nothing else."""
    clusters_U, places_B = clusters_in_batch(torch.tensor(LABELS))
    rows_USD = MEMORY[clusters_U]
    arguments = rows_USD, FEATURES, places_B
    equal = weighted_sequence(*arguments, torch.ones(9, 3), momentum=0.2)
    assert torch.equal(equal, moved("average"))
    hardest_BS = torch.zeros(9, 3)
    similarities_BS = (rows_USD[places_B] * FEATURES).sum(-1)
    for place in range(len(clusters_U)):
        own = torch.nonzero(places_B == place).squeeze(1)
        hardest_BS[own[similarities_BS[own].argmin(0)], torch.arange(3)] = 1
    assert torch.equal(weighted_sequence(*arguments, hardest_BS, momentum=0.2), moved("hardest"))


def test_equal_raw_weights_of_clusters_of_4_are_the_average_bit_for_bit():
    labels_B = torch.arange(3).repeat_interleave(4)
    features_BSD, raw_BS = units(12, 3, 5, seed=4), torch.full((12, 3), 0.3)
    arguments = MEMORY.__getitem__, features_BSD, labels_B
    options = {"momentum": 0.2, "uniforms_B": uniforms(12)}
    _, weighted = moved_centroids("weighted", *arguments, raw_weights_BS=raw_BS, once=False, **options)
    assert torch.equal(weighted, moved_centroids("average", *arguments, **options)[1])


def test_a_cluster_whose_weights_are_all_zero_moves_by_the_average():
    weights_BS = weights_of_mean_one(torch.zeros(9, 3), clusters_in_batch(torch.tensor(LABELS))[1])
    assert torch.equal(weights_BS, torch.ones(9, 3))


def test_random_takes_one_image_of_each_cluster_for_all_its_spaces():
    chosen = [
        min((i for i, label in enumerate(LABELS) if label == cluster), key=uniforms(9).tolist().__getitem__)
        for cluster in (0, 1, 3)
    ]
    expected = F.normalize(0.2 * MEMORY[[0, 1, 3]] + 0.8 * FEATURES[chosen], dim=-1)
    torch.testing.assert_close(moved("random"), expected)


def test_random_chooses_every_image_about_equally_often():
    counts = torch.zeros(4)
    labels_B, features_BSD = torch.zeros(4, dtype=torch.int64), torch.eye(4).unsqueeze(1)
    for seed in range(400):
        _, rows = moved_centroids(
            "random",
            torch.ones(1, 1, 4).__getitem__,
            features_BSD,
            labels_B,
            momentum=0.0,
            uniforms_B=uniforms(4, seed=seed),
        )
        counts += rows[0, 0]
    assert counts.sum() == 400
    assert bool(((counts > 70) & (counts < 130)).all())


@pytest.mark.parametrize("rule", ["median", "weighted"])
def test_an_unknown_rule_or_weighted_without_weights_is_refused(rule):
    with pytest.raises(ValueError, match=f"unknown memory update '{rule}'"):
        moved(rule)


def test_weights_of_mean_1_keep_their_proportions_in_each_space():
    weights_BS = uniforms(9, 3) * torch.tensor([1e-3, 1.0, 50.0])
    scaled_BS = of_mean_one(weights_BS)
    torch.testing.assert_close(scaled_BS.mean(0), torch.ones(3))
    torch.testing.assert_close(scaled_BS / scaled_BS[:1], weights_BS / weights_BS[:1])
    assert torch.equal(equal_weights(torch.tensor(LABELS), 3), torch.ones(9, 3))
