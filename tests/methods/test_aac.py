"""AAC: Cluster Contrast's clusters, divided by attributes; and what it says of its supervision."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reidray.config import Settings
from reidray.features import Features
from reidray.labelling import split_by_attributes
from reidray.methods import make_method
from reidray.methods.label_search import Clustering, DbscanSettings, Inputs, JaccardSettings, Space
from reidray.methods.step import Targets
from reidray.training.replica import Replicated
from tests.reference import attributes as reference

# N = images, A = attributes, S = 1 vector, D = feature width

COUNT, WIDTH = 24, 4
CLUSTERS = np.repeat([0, 1, 2, -1], [10, 6, 5, 3])


def attributes(seed=0):
    """Two attributes of few values, so that images of a cluster often share them; one image has none noted."""
    values_NA = np.random.default_rng(seed).integers(0, 2, (COUNT, 2)).astype(np.int8)
    values_NA[3] = -1
    return values_NA


class Stand:
    """A search service whose clusters are given; it notes what it was asked."""

    count = COUNT

    def __init__(self, **inputs):
        given = {"epoch": 0, "cameras_N": np.full(COUNT, -1), "attributes_NA": attributes()}
        self.inputs = Inputs(**{**given, **inputs})
        self.asked = []
        self.means_of = []

    def nearest(self, space, k):
        self.asked.append((space, k))
        return (space, k)

    def cluster(self, neighbours, jaccard, dbscan):
        self.asked.append((neighbours, jaccard, dbscan))
        return Clustering(CLUSTERS.copy(), 0.25)

    def means(self, feature, labels_N):
        self.means_of.append((feature, labels_N.copy()))
        return np.full((labels_N.max() + 1, 1, WIDTH), 0.5, np.float32)


def method(**own):
    return make_method(Settings(method={"name": "aac", "k1": 9, "k2": 3, "eps": 0.4}, aac={"least": 2, **own}))


@pytest.mark.parametrize("least", [1, 2, 3, 99])
def test_labels_are_the_clusters_divided_by_attributes(least):
    search = Stand()
    found = method(least=least).label(search)
    split = split_by_attributes(CLUSTERS, attributes(), least=least)
    np.testing.assert_array_equal(found.labels_N, split.labels_N)
    assert found.labels_N.tolist() == reference.labels_after(CLUSTERS.tolist(), attributes().tolist(), least)
    assert found.figures == {
        "silhouette": 0.25,
        "new_clusters": split.num_splits,
        "split_clusters": split.num_split_clusters,
        "moved_images": split.num_moved,
        "attribute_vectors": len({tuple(row) for row in attributes().tolist() if set(row) != {-1}}),
    }
    assert (split.num_splits > 0) == (least < 99)


def test_the_memory_begins_with_the_means_of_the_divided_clusters():
    search = Stand()
    found = method().label(search)
    ((feature, labels_N),) = search.means_of
    assert feature == "features"
    np.testing.assert_array_equal(labels_N, found.labels_N)
    assert list(found.memories) == ["features"]
    assert found.memories["features"].shape == (found.labels_N.max() + 1, 1, WIDTH)
    assert found.labels_N.max() > CLUSTERS.max()
    assert found.tables == {}


def test_clusters_are_searched_as_cluster_contrast_searches_them():
    search, other = Stand(), Stand()
    method().label(search)
    make_method(Settings(method={"name": "cluster_contrast", "k1": 9, "k2": 3, "eps": 0.4})).label(other)
    assert search.asked == other.asked
    space = Space("features")
    jaccard = JaccardSettings(k1=9, k2=3, keep=0.4, counts_itself=True)
    assert search.asked == [(space, 9), ((space, 9), jaccard, DbscanSettings(eps=0.4, min_samples=4))]


@pytest.mark.parametrize(("epoch", "divided"), [(0, False), (2, False), (3, True), (4, True)])
def test_clusters_are_divided_from_the_epoch_of_the_settings(epoch, divided):
    found = method(start_epoch=3).label(Stand(epoch=epoch))
    assert (not np.array_equal(found.labels_N, CLUSTERS)) == divided
    assert ("moved_images" in found.figures) == divided
    assert "attribute_vectors" in found.figures


def test_images_without_attributes_are_refused_in_a_sentence():
    inputs = dataclasses.replace(Stand().inputs, attributes_NA=None)
    with pytest.raises(ValueError, match=r"method.name=aac needs attributes and the packed images have none: put .*"):
        method().check_inputs(inputs)


def test_it_says_that_it_is_weakly_supervised_and_how_much_the_attributes_tell():
    one = method()
    (sentence,) = one.check_inputs(Stand().inputs)
    vectors = len({tuple(row) for row in attributes().tolist() if set(row) != {-1}})
    assert sentence == (
        f"aac is weakly supervised: 2 attributes of the training images make {vectors} distinct vectors"
    )
    assert one.supervision == "weakly supervised"
    assert one.needs == {"attributes"}


def test_with_true_identities_it_needs_no_attributes_and_divides_nothing():
    one = make_method(Settings(method={"name": "aac", "labels": "ground_truth"}))
    persons_N = np.repeat(np.arange(8), 3)
    stand = Stand(persons_N=persons_N, attributes_NA=None)
    assert one.needs == frozenset()
    assert one.check_inputs(stand.inputs) == []
    found = one.label(stand)
    assert found.labels_N.tolist() == persons_N.tolist()
    assert found.figures == {}
    assert stand.asked == []


def test_what_it_reports():
    one = method()
    assert set(one.reported) == {"attribute_vectors", "split_clusters", "moved_images"}


@pytest.mark.parametrize("epoch", [0, 9])
def test_it_trains_as_cluster_contrast(epoch):
    generator = torch.Generator().manual_seed(0)
    features_BSD = F.normalize(torch.randn(6, 1, WIDTH, generator=generator), dim=-1)
    memory = {"features": Replicated(F.normalize(torch.randn(4, 1, WIDTH, generator=generator), dim=-1))}
    targets = Targets(torch.arange(6), torch.tensor([2, 0, 1, 2, 3, 0]), torch.full((6,), -1))
    outputs = Features(torch.zeros(6, WIDTH, 2, 1), features_BSD, features_BSD, None, None)
    base = make_method(Settings(method={"name": "cluster_contrast"}))
    found, expected = (one.group_losses(outputs, targets, memory, None, epoch) for one in (method(), base))
    assert list(found) == list(expected) == ["contrast"]
    assert torch.equal(found["contrast"], expected["contrast"])
    arguments = memory, {"features": features_BSD}, targets, torch.zeros(6)
    for rows, other in zip(
        method().moved_rows(*arguments)["features"], base.moved_rows(*arguments)["features"], strict=True
    ):
        assert torch.equal(rows, other)
