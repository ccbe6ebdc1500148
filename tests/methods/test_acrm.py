"""ACRM: relations in graphs, selective losses and updates, and what is clustered."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reidray.config import Settings
from reidray.memory import hardest_images, selective_update
from reidray.methods import make_method
from reidray.methods.acrm import GraphCorrelation, attention_shares
from reidray.methods.label_search import Clustering, Inputs, Space
from reidray.methods.step import Targets
from reidray.neighbours import neighbour_walk
from reidray.training.replica import Replicated
from reidray.training.state import drawn_from
from tests.reference import acrm as reference

# B = images, C = clusters, D = feature width, N = images of a search

LABELS = torch.tensor([2, 0, 1, 2, 3, 0, 2, 2, 0, 1])
B, C, D = len(LABELS), 4, 6
TARGETS = Targets(torch.arange(B), LABELS, torch.full((B,), -1))
COUNT = 40


def units(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def method(method=None, **own):
    return make_method(Settings(method={"name": "acrm", **(method or {})}, acrm=own))


def graph(temperature=5.0):
    with drawn_from(4):
        one = GraphCorrelation(D, temperature).double()
        torch.nn.init.uniform_(one.theta[1].weight, 0.5, 2.0)
        torch.nn.init.uniform_(one.phi[1].bias, -1.0, 1.0)
    return one


def of_reference(one, rows, temperature):
    """Attention and v-hat of the images of one graph."""
    queries, keys = (
        reference.normed(
            rows,
            embed[0].weight.tolist(),
            list(zip(embed[1].weight.tolist(), embed[1].bias.tolist(), strict=True)),
        )
        for embed in (one.theta, one.phi)
    )
    table = reference.attention(queries, keys, temperature)
    return table, reference.related(rows, table)


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_attention_and_related_features_agree_with_the_equations(temperature):
    one, nodes_BD = graph(temperature), units(B, D, seed=0)
    attention_BB = one.attention(nodes_BD.unsqueeze(0))[0]
    table, related = of_reference(one, nodes_BD.tolist(), temperature)
    torch.testing.assert_close(attention_BB, torch.tensor(table, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    found = one.related(nodes_BD.unsqueeze(0), attention_BB.unsqueeze(0))[0]
    torch.testing.assert_close(found, torch.tensor(related, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_without_temperature_every_image_sees_the_mean_of_its_graph():
    one, nodes_BD = graph(0.0), units(B, D, seed=0)
    attention_1BB = one.attention(nodes_BD.unsqueeze(0))
    torch.testing.assert_close(attention_1BB, torch.full_like(attention_1BB, 1 / B))
    found = one.related(nodes_BD.unsqueeze(0), attention_1BB)[0]
    mean_BD = nodes_BD.mean(0).expand_as(nodes_BD)
    torch.testing.assert_close(found, F.normalize(torch.cat([nodes_BD, mean_BD], 1), dim=1))


def test_images_of_other_graphs_do_not_matter_in_evaluation_mode():
    one, nodes_GBD = graph().eval(), units(3, B, D, seed=1)
    alone = one.attention(nodes_GBD[1:2])
    torch.testing.assert_close(one.attention(nodes_GBD)[1:2], alone)
    made = method().transform("features", nodes_GBD.unsqueeze(2), one)
    assert made.shape == (3, B, 1, 2 * D)
    torch.testing.assert_close(made[1:2, :, 0], one.related(nodes_GBD[1:2], alone))
    torch.testing.assert_close(made.norm(dim=-1), torch.ones_like(made[..., 0]))


@pytest.mark.parametrize("k", [1, 2, 4, 9])
@pytest.mark.parametrize("momentum", [0.1, 0.2])
def test_the_hardest_images_move_the_centroid_hardest_first(k, momentum):
    centroids_CSD, features_BSD = units(C, 2, D, seed=2), units(B, 2, D, seed=3)
    features_BSD[6] = features_BSD[3]  # equally hard
    found = selective_update(centroids_CSD, features_BSD, LABELS, k=k, momentum=momentum)
    for vector in range(2):
        arguments = centroids_CSD[:, vector].tolist(), features_BSD[:, vector].tolist(), LABELS.tolist()
        expected = torch.tensor(reference.selective(*arguments, k, momentum), dtype=torch.float64)
        torch.testing.assert_close(found[:, vector], expected, rtol=1e-12, atol=1e-12)


def test_ranks_of_hardness_count_within_a_cluster():
    similarities_B = torch.tensor([0.3, 0.1, 0.5, 0.3, 0.0, -0.2, 0.1, 0.3, 0.1, 0.4])
    assert hardest_images(similarities_B, LABELS).tolist() == [1, 1, 1, 2, 0, 0, 0, 3, 2, 0]


@pytest.mark.parametrize(("loss", "k"), [("top_k", 1), ("top_k", 2), ("all", 2)])
def test_losses_are_those_of_the_chosen_images_for_both_kinds_of_features(loss, k):
    one = method({"temperature": 0.3}, loss=loss, k=k, graph_weight=0.5)
    modules, features_BSD = graph(), units(B, 1, D, seed=5)
    memories = {"features": units(C, 1, D, seed=6), "related": units(C, 1, 2 * D, seed=7)}
    replicas = {name: Replicated(rows) for name, rows in memories.items()}
    found = one.batch_losses({"features": features_BSD}, TARGETS, replicas, modules, 3)
    assert list(found.terms) == ["contrast", "related_contrast"]
    _, related = of_reference(modules, features_BSD[:, 0].tolist(), 5.0)
    torch.testing.assert_close(found.rows["related"][:, 0], torch.tensor(related, dtype=torch.float64))
    rows = {"features": features_BSD[:, 0].tolist(), "related": related}
    taken = B if loss == "all" else k
    for name, term, weight in (("features", "contrast", 1.0), ("related", "related_contrast", 0.5)):
        expected = weight * reference.selective_loss(
            memories[name][:, 0].tolist(), rows[name], LABELS.tolist(), taken, 0.3
        )
        assert found.terms[term].shape == (B,)
        assert found.terms[term].mean().item() == pytest.approx(expected, rel=1e-9)


def test_shares_of_attention_on_itself_the_cluster_and_elsewhere():
    attention_BB = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    found = attention_shares(attention_BB, torch.tensor([1, 0, 1]))
    assert found["attention_itself"].tolist() == pytest.approx([0.5, 0.6, 0.6])
    assert found["attention_cluster"].tolist() == pytest.approx([0.2, 0.0, 0.2])
    assert found["attention_elsewhere"].tolist() == pytest.approx([0.3, 0.4, 0.2], abs=1e-6)


@pytest.mark.parametrize("update", ["top_k", "average", "random"])
def test_both_memories_move_by_the_rule(update):
    one = method({"momentum": 0.2}, update=update, k=2)
    memories = {"features": units(C, 1, D, seed=6), "related": units(C, 1, 2 * D, seed=7)}
    gathered = {"features": units(B, 1, D, seed=8), "related": units(B, 1, 2 * D, seed=9)}
    replicas = {name: Replicated(rows) for name, rows in memories.items()}
    moved = one.moved_rows(replicas, gathered, TARGETS, torch.linspace(0.9, 0, B))
    assert list(moved) == ["features", "related"]
    for name, (clusters_U, rows_USD) in moved.items():
        assert clusters_U.tolist() == [0, 1, 2, 3]
        before, features = memories[name][:, 0].tolist(), gathered[name][:, 0].tolist()
        if update == "top_k":
            expected = reference.selective(before, features, LABELS.tolist(), 2, 0.2)
        elif update == "random":  # the last image of each cluster has the least number
            expected = [list(row) for row in before]
            for cluster in range(C):
                last = max(i for i, label in enumerate(LABELS.tolist()) if label == cluster)
                expected[cluster] = reference.moved(before[cluster], features[last], 0.2)
        else:
            expected = [list(row) for row in before]
            for feature, label in zip(features, LABELS.tolist(), strict=True):
                expected[label] = reference.moved(expected[label], feature, 0.2)
        torch.testing.assert_close(rows_USD[:, 0], torch.tensor(expected, dtype=torch.float64))


# ---- what is clustered


class Stand:
    """A search service with neighbours of its own; it notes what it was asked."""

    count = COUNT

    def __init__(self, epoch=0):
        self.inputs = Inputs(epoch, np.full(COUNT, -1))
        self.indices_NK = np.argsort(np.random.default_rng(3).random((COUNT, COUNT)), axis=1)[:, :9]
        self.order_N = self.clustered = None
        self.means_of = []

    def nearest(self, space, k):
        stand = self

        class Lists:
            def __init__(self):
                self.space = space

            def indices(self):
                return stand.indices_NK

        return Lists()

    def transformed(self, feature, order_N, graph, name):
        assert (feature, graph, name) == ("features", 16, "related")
        self.order_N = order_N
        return name

    def cluster(self, neighbours, jaccard, dbscan):
        self.clustered = neighbours.space
        return Clustering(np.arange(COUNT) % 4, 0.5)

    def means(self, feature, labels_N):
        self.means_of.append(feature)
        return np.zeros((4, 1, 3), np.float32)


def test_related_features_are_clustered_and_both_kinds_have_centroids():
    stand = Stand()
    found = method().label(stand)
    assert stand.clustered == Space("related")
    assert stand.means_of == ["features", "related"]
    assert set(found.memories) == set(method().memories)


def test_without_refinement_raw_features_are_clustered():
    stand = Stand()
    method(refine=False).label(stand)
    assert stand.clustered == Space("features")
    assert stand.order_N is not None  # the second memory begins with related features all the same
    stand = Stand()
    one = method(refine=False, graph_weight=0.0)
    one.label(stand)
    assert (one.memories, one.modules(), stand.means_of) == (("features",), None, ["features"])
    with pytest.raises(ValueError, match=r"acrm\.refine=true needs acrm\.graph_weight above 0"):
        method(graph_weight=0.0)


def test_graphs_follow_file_names_a_walk_over_neighbours_or_chance():
    orders = {}
    for order in ("file_name", "shuffled", "neighbours"):
        stand = Stand()
        method(order=order).label(stand)
        orders[order] = stand.order_N.tolist()
        assert sorted(orders[order]) == list(range(COUNT))
    assert orders["file_name"] == list(range(COUNT))
    assert orders["shuffled"] != orders["file_name"]
    assert orders["neighbours"] == reference.walk(Stand().indices_NK.tolist(), orders["shuffled"])
    later = Stand(epoch=1)
    method(order="shuffled").label(later)
    assert later.order_N.tolist() != orders["shuffled"]


def test_the_walk_looks_at_k1_neighbours_though_the_lists_are_longer():
    shuffled, stand = Stand(), Stand()
    method(order="shuffled").label(shuffled)
    method({"k1": 3}).label(stand)
    expected = reference.walk(stand.indices_NK[:, :3].tolist(), shuffled.order_N.tolist())
    assert stand.order_N.tolist() == expected
    assert expected != reference.walk(stand.indices_NK.tolist(), shuffled.order_N.tolist())


@pytest.mark.parametrize(
    ("own", "centred"),
    [
        ({}, ["features", "related"]),
        ({"order": "shuffled"}, ["related"]),
        ({"refine": False}, ["features"]),
        ({"refine": False, "graph_weight": 0.0}, ["features"]),
    ],
)
def test_only_what_is_searched_is_centred(own, centred):
    stand, made = Stand(), []
    stand.inputs = Inputs(0, np.arange(COUNT) % 2)
    stand.centred = lambda feature, name: made.append(feature) or name
    method({"camera_centring": True}, **own).label(stand)
    assert made == centred
    assert stand.clustered == Space(f"{centred[-1]}_centred")


def test_a_walk_over_all_neighbours_never_starts_again():
    indices_NK = np.argsort(np.random.default_rng(5).random((COUNT, COUNT)), axis=1)
    order_N = neighbour_walk(indices_NK, np.arange(COUNT)[::-1])
    assert order_N[0] == COUNT - 1
    assert order_N.tolist() == reference.walk(indices_NK.tolist(), list(range(COUNT))[::-1])


def test_an_order_that_leaks_identities_is_said():
    (sentence,) = method(order="file_name").check_inputs(Stand().inputs)
    assert "do not call the result unsupervised" in sentence
    assert method().check_inputs(Stand().inputs) == []
