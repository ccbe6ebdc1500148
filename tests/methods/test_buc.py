"""BUC and IHC: stages, labels from merging, the repelled loss and its lookup table."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reidray.config import Settings
from reidray.evaluation.criteria import centroid_silhouette
from reidray.features.embedding import Embedded
from reidray.labelling import Criterion, merging_mb, most_images
from reidray.methods import make_method
from reidray.methods.label_search import Inputs, Merging, Space
from reidray.methods.step import Targets
from reidray.training.replica import Replicated
from tests.reference import losses as loss_reference
from tests.reference import memory as memory_reference

# N = images, B = images of a batch, C = clusters, E = width of the embedding

COUNT = 240
NAMES = ["buc", "ihc"]


def method(name="buc", sections=None, **own):
    return make_method(Settings(method={"name": name}, **{name: {"embedding": 8, **own}}, **(sections or {})))


class Stand:
    """A search service that merges as it likes; it notes what it was asked."""

    count = COUNT

    def __init__(self, epoch=0, labels=None, persons=None):
        self.inputs = Inputs(epoch, np.full(COUNT, -1), persons, labels_N=labels)
        self.asked = []

    def merged(self, space, labels_N, count, criterion):
        self.asked.append((space, count, criterion))
        return Merging(np.maximum(labels_N - count, 0), 0.25)


# ---- stages


@pytest.mark.parametrize("name", NAMES)
def test_stages_are_merged_as_long_as_clusters_are_left_to_merge(name):
    one = method(name)
    assert one.merges(COUNT) == 12  # 5 %
    assert one.stages(COUNT) == 19  # as BUC's public code: 240 - 19 * 12 = 12 clusters in the last one
    assert method(name, least_clusters=100).stages(COUNT) == 11  # 240 - 11 * 12 = 108; one more would leave 96
    assert method(name, least_clusters=108).stages(COUNT) == 11
    assert method(name, least_clusters=500).stages(COUNT) == 0
    assert method(name, merge_share=0.1).stages(COUNT) == 9
    with pytest.raises(ValueError, match=rf"{name}.merge_share=0.05 of 19 images is no merge at all"):
        one.merges(19)


@pytest.mark.parametrize(("name", "full"), [("buc", 16), ("ihc", 15)])
def test_every_stage_labels_once_and_begins_with_a_fresh_optimiser_at_a_lower_rate(name, full):
    plans = method(name, least_clusters=216).schedule(COUNT)
    assert [plan.relabel for plan in plans] == [True, *[False] * 19, True, False, True, False, True]
    assert [plan.new_optimiser for plan in plans] == [*[False] * 20, True, False, True, False, False]
    assert [plan.rate for plan in plans[:-1]] == [1.0] * full + [0.1] * (24 - full)
    assert [plan.trains for plan in plans] == [True] * 24 + [False]


def test_the_trunk_learns_more_slowly_with_sgd_and_nesterov():
    one = method(learning_rate=0.2, backbone_rate=0.25)
    named = [(f"network.{name}", parameter) for name, parameter in one.network().named_parameters()]
    optimiser = one.optimiser(named)
    assert type(optimiser) is torch.optim.SGD
    new, trunk = optimiser.param_groups
    assert (new["lr"], trunk["lr"]) == pytest.approx((0.2, 0.05))
    assert len(new["params"]) == 4  # fully connected layer and batch norm
    assert len(new["params"]) + len(trunk["params"]) == len(named)
    for group in optimiser.param_groups:
        assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 5e-4)


# ---- labels


@pytest.mark.parametrize("name", NAMES)
def test_at_first_every_image_is_a_cluster_and_their_order_is_shuffled(name):
    found = method(name).label(Stand())
    assert sorted(found.labels_N.tolist()) == list(range(COUNT))
    assert np.abs(np.diff(found.labels_N)).mean() > COUNT / 5  # adjacent images are no adjacent clusters
    other = method(name, {"train": {"seed": 1}}).label(Stand())
    assert other.labels_N.tolist() != found.labels_N.tolist()
    assert found.memories["lookup"].shape == (COUNT, 1, 8)
    assert not found.memories["lookup"].any()
    assert found.judged is None


CRITERIA = {
    "buc": [
        ({}, Criterion("squared_minimum", 0.003, 0.0)),
        ({"linkage": "minimum", "size_weight": 0.0}, Criterion("minimum", 0.0, 0.0)),
    ],
    "ihc": [
        ({}, Criterion("intermediate", 0.0, 0.3)),
        ({"compactness_weight": 0.0}, Criterion("intermediate", 0.0, 0.0)),
        ({"linkage": "minimum", "size_weight": 0.003, "compactness_weight": 0.0}, Criterion("minimum", 0.003, 0.0)),
    ],
}


@pytest.mark.parametrize(("name", "own", "criterion"), [(name, *case) for name in NAMES for case in CRITERIA[name]])
def test_a_stage_merges_the_clusters_of_the_one_before_by_the_criterion(name, own, criterion):
    one, before = method(name, **own), np.random.default_rng(0).permutation(COUNT)
    stand = Stand(epoch=20, labels=before)
    found = one.label(stand)
    assert stand.asked == [(Space("features"), 12, criterion)]
    assert found.labels_N.tolist() == np.maximum(before - 12, 0).tolist()
    assert found.memories["lookup"].shape == (COUNT - 12, 1, 8)
    assert not found.memories["lookup"].any()
    assert found.judged == 0.25


def test_the_last_epoch_judges_the_last_stage_and_merges_nothing():
    one = method()
    labels_N = np.arange(COUNT) % 12
    stand = Stand(epoch=len(one.schedule(COUNT)) - 1, labels=labels_N)
    found = one.label(stand)
    assert [count for _, count, _ in stand.asked] == [0]
    assert found.labels_N.tolist() == labels_N.tolist()
    assert one.selects_network


def test_with_true_identities_nothing_is_merged_and_images_without_a_person_are_left_out():
    one = method("ihc")
    assert one.check_inputs(Inputs(0, np.full(32_621, -1), np.zeros(32_621, np.int64))) == []
    labels_N = np.arange(COUNT) % 12
    labels_N[:40] = -1
    batches = one.batches(labels_N, np.zeros(COUNT), 0)
    assert batches.shape == (3, 64)
    assert batches.min() >= 40


def test_true_identities_are_taken_as_they_are():
    persons_N = np.repeat(np.arange(24), 10) * 7
    assert method().label(Stand(persons=persons_N)).labels_N.tolist() == np.repeat(np.arange(24), 10).tolist()


def test_distances_that_do_not_fit_are_refused_with_the_number_of_images_that_would():
    inputs = Inputs(0, np.full(32_621, -1))
    with pytest.raises(ValueError, match=r"32,621 images needs 6,385 MB .* allows 4,096, with which 26,127 images fit"):
        method("ihc").check_inputs(inputs)
    (sentence,) = method("buc").check_inputs(inputs)
    assert "19 times 1,631 clusters are merged, from 32,621 to 1,632; their distances need up to 2,128 MB" in sentence
    for criterion in (Criterion("minimum", 0.0, 0.0), Criterion("intermediate", 0.0, 0.3)):
        most = most_images(1000, criterion)
        assert merging_mb(most, criterion) <= 1000 < merging_mb(most + 1, criterion)


# ---- training


def test_batches_are_all_images_in_a_new_order():
    one = method(sections={"train": {"seed": 3}})
    first, second = (one.batches(np.zeros(COUNT, np.int64), np.zeros(COUNT), epoch) for epoch in (0, 1))
    assert first.shape == (COUNT // 64, 64)
    assert len(np.unique(first)) == first.size
    assert not np.array_equal(first, second)
    assert np.array_equal(first, one.batches(np.zeros(COUNT, np.int64), np.zeros(COUNT), 0))
    with pytest.raises(ValueError, match="a batch of 64 images needs as many, got 63"):
        one.batches(np.zeros(63, np.int64), np.zeros(63), 0)


def units(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


LABELS = torch.tensor([2, 0, 2, 1])
TARGETS = Targets(torch.arange(4), LABELS, torch.full((4,), -1))


def test_the_repelled_loss_is_a_softmax_over_the_lookup_table():
    one, table, embeddings = method(temperature=0.2), units(5, 1, 8, seed=0), units(4, 1, 8, seed=1)
    found = one.group_losses(Embedded(embeddings, embeddings), TARGETS, {"lookup": Replicated(table)}, None, 0)
    expected = [
        loss_reference.cluster_nce(row[0], label, table[:, 0].tolist(), 0.2)
        for row, label in zip(embeddings.tolist(), LABELS.tolist(), strict=True)
    ]
    assert list(found) == ["repelled"]
    torch.testing.assert_close(found["repelled"], torch.tensor(expected, dtype=torch.float64))


def test_an_empty_table_repels_nothing():
    one = method()
    embeddings = units(4, 1, 8, seed=1).requires_grad_()
    table = Replicated(torch.zeros(5, 1, 8, dtype=torch.float64))
    loss_B = one.group_losses(Embedded(embeddings, embeddings), TARGETS, {"lookup": table}, None, 0)["repelled"]
    torch.testing.assert_close(loss_B, torch.full((4,), float(np.log(5)), dtype=torch.float64))
    loss_B.sum().backward()
    assert not embeddings.grad.any()


def test_rows_of_the_table_are_moving_averages_in_the_order_of_the_batch():
    one, embeddings = method(lookup_momentum=0.5), units(4, 1, 8, seed=1)
    table = units(5, 1, 8, seed=0)
    table[2] = 0
    moved = one.moved_rows({"lookup": Replicated(table)}, {"lookup": embeddings}, TARGETS, torch.zeros(4))
    clusters_U, rows_USD = moved["lookup"]
    expected = memory_reference.sequential(table.tolist(), embeddings.tolist(), LABELS.tolist(), 0.5)
    assert clusters_U.tolist() == [0, 1, 2]
    torch.testing.assert_close(rows_USD, torch.tensor(expected, dtype=torch.float64)[:3])


# ---- the criterion that chooses the network


def test_the_silhouette_by_centroids_is_that_of_its_definition():
    random = np.random.default_rng(0)
    features_ND = random.standard_normal((40, 5))
    features_ND /= np.linalg.norm(features_ND, axis=1, keepdims=True)
    labels_N = np.concatenate([np.arange(6), [6], random.integers(0, 6, 33)])
    silhouettes = []
    for image, label in enumerate(labels_N):
        others = [i for i in np.flatnonzero(labels_N == label) if i != image]
        if others:
            means = [features_ND[labels_N == other].mean(0) for other in range(7) if other != label]
            inside = features_ND[others].mean(0)
            inside, *outside = (
                np.linalg.norm(features_ND[image] - mean / np.linalg.norm(mean)) for mean in (inside, *means)
            )
            silhouettes.append((min(outside) - inside) / max(inside, min(outside)))
    found = centroid_silhouette(features_ND, labels_N, at_once=7)
    assert len(silhouettes) == 39
    assert found == pytest.approx(np.sum(silhouettes) / 40, abs=1e-5)  # an image by itself counts 0


def test_without_two_clusters_or_a_cluster_of_two_there_is_no_silhouette():
    features_ND = np.eye(4)
    assert centroid_silhouette(features_ND, np.arange(4)) is None
    assert centroid_silhouette(features_ND, np.zeros(4, int)) is None
    pairs = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert centroid_silhouette(pairs, np.array([0, 0, 1, 1])) == pytest.approx(1.0)
    assert centroid_silhouette(pairs, np.array([0, 1, 0, 1])) == pytest.approx(-0.5, abs=0.6)
