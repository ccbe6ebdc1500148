"""Features made anew graph by graph: the same bits by one labeller and by many, equal to the sum written out."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reidray.methods import METHODS, Entry
from reidray.methods.label_search import Labels, Space
from reidray.methods.method import Method
from reidray.training.graphs import pieces
from reidray.training.state import new_modules
from tests.training.test_block_search import COUNT, WIDTH, Mortal, assert_same, drawn, labelled, settings_of

GRAPH = 7


class Refining(Method):
    """Clusters of features that see the others of their graph; the graphs are in an order of their own."""

    tables = ("order",)
    memories = ("features", "refined")

    def modules(self):
        return nn.Sequential(nn.Linear(WIDTH, 5), nn.BatchNorm1d(5))

    def transform(self, feature, rows_GBSD, modules):
        assert not modules.training
        rows_GBD = rows_GBSD[:, :, 0]
        seen_GB5 = modules(rows_GBD.flatten(0, 1)).view(*rows_GBD.shape[:2], 5)
        mean_GBD = (seen_GB5 @ seen_GB5.transpose(1, 2)).softmax(-1) @ rows_GBD
        return F.normalize(torch.cat([rows_GBD, mean_GBD], -1), dim=-1).unsqueeze(2)

    def label(self, search):
        order_N = np.argsort(search.nearest(Space("features"), 3).indices()[:, 2], kind="stable")
        refined = search.transformed("features", order_N, GRAPH, "refined")
        found = self.clustered(search, Space(refined))
        memories = {name: search.means(name, found.labels_N) for name in ("features", refined)}
        return Labels(found.labels_N, memories=memories, tables={"order": order_N})

    def group_losses(self, *arguments):
        raise NotImplementedError


@pytest.fixture
def settings(monkeypatch):
    monkeypatch.setitem(sys.modules, "reidray.methods.refining", sys.modules[__name__])
    monkeypatch.setitem(METHODS, "cluster_contrast", Entry("refining", "Refining"))
    return lambda **run: settings_of("cluster_contrast", eps=0.7, **run)


@pytest.fixture(autouse=True)
def tensors(monkeypatch, settings):
    """The modules as they are in epoch 4 come with what labellers are told."""
    modules = new_modules(Refining(settings()))
    with torch.no_grad():
        modules[1].running_mean.add_(0.1)
    found = {name: tensor.numpy() for name, tensor in modules.state_dict().items()}
    from tests.training import test_block_search

    before = test_block_search.inputs

    def inputs(persons=None):
        return type(before())(**{**before(persons).__dict__, "modules": found})

    monkeypatch.setattr(test_block_search, "inputs", inputs)
    return modules.eval()


@pytest.mark.parametrize(("block", "members"), [(30, 1), (30, 2), (60, 3), (1000, 2)])
def test_blocks_write_what_one_labeller_writes(settings, block, members):
    whole = labelled(settings(labelling="whole", search_block=block))
    assert whole[1].num_clusters > 3
    assert whole[0][-1].shape[2] == 2 * WIDTH
    assert_same(labelled(settings(labelling="blocks", search_block=block), members=members), whole)


def test_labellers_that_die_now_and_then_change_nothing(settings):
    struck = labelled(settings(labelling="blocks"), member=Mortal, members=3)
    assert sum(member.deaths for member in struck[2]) > 0
    assert_same(struck, labelled(settings(labelling="whole")))


def test_every_image_sees_its_own_graph_and_the_last_one_may_be_smaller(settings, tensors):
    assert COUNT % GRAPH
    labels_N, order_N, _, memory_CSD = labelled(settings(labelling="blocks"), members=2)[0]
    features_ND, refined = drawn(1)[:, 0], np.empty((COUNT, 2 * WIDTH), np.float32)
    for start in range(0, COUNT, GRAPH):
        own = order_N[start : start + GRAPH]
        rows = torch.from_numpy(features_ND[own])
        seen = tensors(rows)
        refined[own] = F.normalize(torch.cat([rows, (seen @ seen.T).softmax(-1) @ rows], 1)).detach().numpy()
    for cluster, row in enumerate(memory_CSD[:, 0]):
        mean = refined[labels_N == cluster].mean(0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize(
    ("order", "graph"), [(np.arange(9), 3), (np.array([0, 0, 2, 3, 4, 5, 6, 7, 8, 9]), 3), (np.arange(10), 0)]
)
def test_an_order_without_every_image_is_refused(order, graph):
    with pytest.raises(ValueError, match="all 10 images once"):
        pieces(order, graph, 10, 6)


def test_pieces_are_whole_graphs():
    found = [own.tolist() for own in pieces(np.arange(10)[::-1], 3, 10, 7)]
    assert found == [[9, 8, 7, 6, 5, 4], [3, 2, 1], [0]]
    assert [len(own) for own in pieces(np.arange(10), 4, 10, 1)] == [4, 4, 2]
    assert [len(own) for own in pieces(np.arange(3), 5, 3, 100)] == [3]
