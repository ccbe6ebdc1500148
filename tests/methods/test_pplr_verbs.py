"""PPLR's terms against the loops of tests/reference/pplr.py, its labelling, and classifiers whose moments go on."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reidray.config import Settings
from reidray.features import Features
from reidray.memory import proxy_groups
from reidray.methods import make_method
from reidray.methods.label_search import Clustering, Inputs, Space
from reidray.methods.pplr import Classifiers
from reidray.methods.step import Beginning, Targets
from reidray.storage.checkpoints import optimiser_tensors
from reidray.training.history import History
from reidray.training.replica import Replicated
from reidray.training.state import RunState
from tests.reference import pplr as reference

# N = images, B = images of a group or batch, C = clusters, P = stripes, S = 1 + P vectors, D = width, Q = proxies

B, C, P, D = 6, 4, 3, 5
LABELS = torch.tensor([2, 0, 0, 2, 3, 0])
CAMERAS = torch.tensor([1, 0, 2, 0, 1, 1])
ALL_LABELS = np.repeat(np.arange(C), 4)
ALL_CAMERAS = np.array([0, 0, 1, 2, 0, 1, 1, 1, 0, 1, 2, 2, 1, 1, 1, 1])  # cluster 3 is under one camera


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def method(**own):
    given = {
        "num_stripes": P,
        "beta": 0.4,
        "agreement_from": 5,
        "label_smoothing": 0.15,
        "triplet_weight": 1.0,
        "camera_weight": 0.0,
        "camera_negatives": 3,
        "camera_temperature": 0.2,
    }
    return make_method(Settings(method={"name": "pplr"}, pplr={**given, **own}))


def centroids():
    return F.normalize(random(C, 1 + P, D, seed=1), dim=-1)


def proxies():
    return F.normalize(random(len(proxy_groups(ALL_LABELS, ALL_CAMERAS)[1]), 1 + P, D, seed=2), dim=-1)


def beginning(centroids_CSD=None, moments=None):
    rows = centroids() if centroids_CSD is None else centroids_CSD
    memories = {"centroids": Replicated(rows), "proxies": Replicated(proxies())}
    return Beginning(memories, ALL_LABELS, ALL_CAMERAS, moments or {})


def outputs():
    necks_BSD = 2 * random(B, 1 + P, D, seed=3)
    return Features(torch.zeros(B, D, 3, 1), necks_BSD, F.normalize(necks_BSD, dim=-1), None, None)


def agreements():
    return torch.rand(B, P, generator=torch.Generator().manual_seed(4))


def targets():
    return Targets(torch.arange(B), LABELS, CAMERAS, {"agreements": agreements()})


def losses(epoch=9, **own):
    one = method(**own)
    return one.group_losses(outputs(), targets(), {}, one.heads(beginning()), epoch)


def logits_of(i, vector):
    """Classifier rows are the centroids; they are applied to the features before unit length."""
    neck = outputs().necks_BSD[i, vector].tolist()
    return [sum(x * y for x, y in zip(neck, row, strict=True)) for row in centroids()[:, vector].tolist()]


def close(found_B, term):
    expected_B = torch.tensor([term(i) for i in range(B)], dtype=torch.float32)
    torch.testing.assert_close(found_B, expected_B, rtol=1e-4, atol=1e-5)


# ---- losses


def test_all_terms_stand_in_the_dictionary_one_value_an_image():
    for own, names in (
        ({}, ["global_identity", "part_identity"]),
        ({"camera_weight": 0.5}, ["global_identity", "part_identity", "camera_contrast"]),
    ):
        terms = losses(**own)
        assert list(terms) == names
        assert all(term.shape == (B,) and bool(torch.isfinite(term).all()) for term in terms.values())


@pytest.mark.parametrize("epoch", [0, 4, 5, 9])
def test_the_global_target_is_refined_by_the_stripes_in_every_epoch(epoch):
    def term(i):
        stripes = [logits_of(i, 1 + p) for p in range(P)]
        return reference.part_guided(logits_of(i, 0), stripes, int(LABELS[i]), agreements()[i].tolist(), 0.4)

    close(losses(epoch=epoch)["global_identity"], term)


@pytest.mark.parametrize("epoch", [5, 9])
def test_stripes_are_smoothed_by_agreement_from_the_epoch_of_the_settings(epoch):
    def term(i):
        label, own = int(LABELS[i]), agreements()[i].tolist()
        return sum(reference.agreement_smoothed(logits_of(i, 1 + p), label, own[p]) for p in range(P)) / P

    close(losses(epoch=epoch)["part_identity"], term)


@pytest.mark.parametrize("epoch", [0, 4])
def test_stripes_are_smoothed_alike_before_it(epoch):
    def term(i):
        return sum(reference.label_smoothed(logits_of(i, 1 + p), int(LABELS[i]), 0.15) for p in range(P)) / P

    close(losses(epoch=epoch)["part_identity"], term)


def test_the_contrast_between_cameras_is_that_of_the_whole_plus_the_mean_of_the_stripes():
    _, labels_Q, cameras_Q = proxy_groups(ALL_LABELS, ALL_CAMERAS)

    def of_vector(i, vector):
        feature, rows = outputs().features_BSD[i, vector].tolist(), proxies()[:, vector].tolist()
        owners = labels_Q.tolist(), cameras_Q.tolist()
        return reference.camera_contrast(feature, int(LABELS[i]), int(CAMERAS[i]), rows, *owners, 0.2, 3)

    def term(i):
        return 0.5 * (of_vector(i, 0) + sum(of_vector(i, 1 + p) for p in range(P)) / P)

    close(losses(camera_weight=0.5)["camera_contrast"], term)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_triplets_are_those_of_the_whole_batch_before_unit_length(weight):
    one = method(triplet_weight=weight)
    gathered = one.to_gather(outputs())
    assert list(gathered) == ["global"]
    assert torch.equal(gathered["global"], outputs().necks_BSD[:, 0])
    terms = one.batch_losses(gathered, targets(), {}, None, 9).terms
    assert list(terms) == ["triplet"]
    rows, labels = gathered["global"].tolist(), LABELS.tolist()
    close(terms["triplet"], lambda i: weight * reference.triplet(rows, labels, i))


def test_without_triplets_nothing_needs_the_whole_batch():
    assert not method(triplet_weight=0.0).has_batch_losses
    assert method().has_batch_losses


def test_gradients_reach_every_classifier_and_no_target():
    one = method(camera_weight=0.5)
    heads, said = one.heads(beginning()), outputs()
    said = said._replace(necks_BSD=said.necks_BSD.requires_grad_())
    terms = one.group_losses(said, targets(), {}, heads, 9)
    terms["global_identity"].sum().backward(retain_graph=True)
    assert heads.weight_SCD.grad.flatten(1).any(1).nonzero().flatten().tolist() == [0]
    assert said.necks_BSD.grad.flatten(2).any(2).any(0).nonzero().flatten().tolist() == [0]
    terms["part_identity"].sum().backward()
    assert heads.weight_SCD.grad.flatten(1).any(1).all()


def test_no_memory_moves():
    one = method(camera_weight=0.5)
    assert one.moved_rows({}, one.to_gather(outputs()), targets(), torch.zeros(B)) == {}


# ---- classifiers


def test_rows_are_the_centroids_and_leave_them_alone():
    centroids_CSD = centroids()
    heads = method().heads(beginning(centroids_CSD))
    assert isinstance(heads, Classifiers)
    assert torch.equal(heads.weight_SCD, centroids_CSD.transpose(0, 1))
    with torch.no_grad():
        heads.weight_SCD.zero_()
    assert torch.equal(centroids_CSD, centroids())


@pytest.mark.parametrize("room", [0, C, C + 3])
def test_logits_have_exactly_the_clusters_of_the_epoch(room):
    heads = Classifiers(centroids(), room)
    assert heads.weight_SCD.shape == (1 + P, max(room, C), D)
    assert not heads.weight_SCD[:, C:].any()
    logits_BSC = heads(outputs().necks_BSD)
    assert logits_BSC.shape == (B, 1 + P, C)
    torch.testing.assert_close(logits_BSC[2, 1], torch.tensor(logits_of(2, 1)))


def run_state(**own):
    one = method(**own)
    return RunState(one, torch.nn.Linear(2, 2), None, History("digest", labelled=0))


def renew(state, num_clusters, seed=0):
    """Heads for so many clusters, and their moments as they begin."""
    rows = F.normalize(random(num_clusters, 1 + P, D, seed=seed), dim=-1)
    state.new_heads(beginning(rows).memories, ALL_LABELS, ALL_CAMERAS, goes_on=False)
    assert torch.equal(state.heads.layers.weight_SCD[:, :num_clusters].transpose(0, 1), rows)
    return optimiser_tensors(state.heads.optimiser)


def trained(state):
    """The moments after a step."""
    heads = state.heads.layers
    heads(outputs().necks_BSD).square().sum().backward()
    state.heads.optimiser.step()
    state.heads.optimiser.zero_grad()
    return {name: tensor.clone() for name, tensor in optimiser_tensors(state.heads.optimiser)[0].items()}


def test_moments_of_renewed_rows_go_on_where_they_are_kept():
    state = run_state(classifier_moments="kept")
    assert renew(state, C) == {}
    left = trained(state)
    assert left["exp_avg"].any()
    assert left["step"] == 1
    found = renew(state, C, seed=9)[0]
    assert found.keys() == left.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in left.items())
    assert trained(state)["step"] == 2


def test_moments_of_renewed_rows_begin_at_0_where_they_are_dropped():
    state = run_state(classifier_moments="dropped")
    renew(state, C)
    trained(state)
    assert renew(state, C, seed=9) == {}
    assert trained(state)["step"] == 1


def test_room_grows_with_the_clusters_and_moments_survive_fewer_and_more_of_them():
    state = run_state()
    renew(state, 4)
    first = trained(state)
    more = renew(state, 6)[0]
    assert more["exp_avg"].shape == (1 + P, 6, D)
    assert torch.equal(more["exp_avg"][:, :4], first["exp_avg"])
    assert not more["exp_avg"][:, 4:].any()
    second = trained(state)

    fewer = renew(state, 3)[0]
    assert state.heads.layers.weight_SCD.shape == (1 + P, 6, D)
    assert state.heads.layers(outputs().necks_BSD).shape == (B, 1 + P, 3)
    assert all(torch.equal(fewer[name], second[name]) for name in second)
    third = trained(state)
    # rows without a cluster have no gradient: their moments only fade
    torch.testing.assert_close(third["exp_avg_sq"][:, 3:], 0.999 * second["exp_avg_sq"][:, 3:])

    again = renew(state, 6)[0]
    assert all(torch.equal(again[name], third[name]) for name in third)
    assert again["exp_avg_sq"][:, 3:].any()
    assert state.heads.layers(outputs().necks_BSD).shape == (B, 1 + P, 6)


# ---- labelling


class Stand:
    """A search service with given answers; it notes what it was asked."""

    count = len(ALL_LABELS)

    def __init__(self, **inputs):
        self.inputs = Inputs(**{"epoch": 0, "cameras_N": ALL_CAMERAS, **inputs})
        self.asked = []

    def nearest(self, space, k):
        self.asked.append((space, k))
        return (space, k)

    def cluster(self, neighbours, jaccard, dbscan):
        self.asked.append(neighbours)
        return Clustering(np.where(np.arange(self.count) == 5, -1, ALL_LABELS), 0.5)

    def overlaps(self, whole, others, k):
        self.asked.append((whole, others, k))
        return np.linspace(0, 1, self.count * len(others), dtype=np.float32).reshape(self.count, -1)

    def means(self, feature, labels_N):
        return np.full((labels_N.max() + 1, 1 + P, D), len(np.unique(labels_N)), np.float32)


@pytest.mark.parametrize(("k1", "neighbours"), [(30, 20), (9, 20)])
def test_the_global_feature_is_clustered_and_compared_with_every_stripe(k1, neighbours):
    settings = Settings(method={"name": "pplr", "k1": k1}, pplr={"num_stripes": P, "agreement_neighbours": neighbours})
    search = Stand()
    found = make_method(settings).label(search)
    whole = (Space("features"), max(k1, neighbours + 1))  # one search serves both
    stripes = [(Space("features", (1 + p,)), neighbours + 1) for p in range(P)]
    assert search.asked == [whole, *stripes, whole, (whole, stripes, neighbours + 1)]
    assert found.labels_N.tolist() == np.where(np.arange(16) == 5, -1, ALL_LABELS).tolist()
    assert list(found.tables) == ["agreements"]
    assert found.tables["agreements"].shape == (16, P)
    assert found.figures == {"silhouette": 0.5, "agreement": pytest.approx(0.5)}
    assert list(found.memories) == ["centroids"]


def test_with_cameras_the_proxies_are_a_memory_of_their_own():
    one = method(camera_weight=0.5)
    found = one.label(Stand())
    assert list(found.memories) == list(one.memories) == ["centroids", "proxies"]
    _, labels_Q, _ = proxy_groups(found.labels_N, ALL_CAMERAS)
    assert len(found.memories["centroids"]) == C
    assert len(found.memories["proxies"]) == len(labels_Q)


def test_proxies_of_heads_are_those_of_the_labels():
    heads = method(camera_weight=0.5).heads(beginning())
    rows, labels_Q, cameras_Q = heads.proxies
    assert torch.equal(rows, proxies())
    expected = [(label, camera) for _, label, camera in reference.proxies(np.ones((16, 1, 1)), ALL_LABELS, ALL_CAMERAS)]
    assert list(zip(labels_Q.tolist(), cameras_Q.tolist(), strict=True)) == expected
    assert method().heads(beginning()).proxies is None


def test_images_without_cameras_are_refused_in_a_sentence_where_cameras_are_needed():
    some = dataclasses.replace(Stand().inputs, cameras_N=np.where(np.arange(16) < 3, -1, ALL_CAMERAS))
    assert method().check_inputs(some) == []
    assert method(camera_weight=0.5).check_inputs(Stand().inputs) == []
    words = r"pplr.camera_weight=0.5 needs the camera of every training image, and 3 of 16 have none: set .*=0"
    with pytest.raises(ValueError, match=words):
        method(camera_weight=0.5).check_inputs(some)
    assert method(camera_weight=0.5).needs == {"cameras"}
    assert method().needs == frozenset()
