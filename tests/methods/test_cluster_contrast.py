"""Cluster Contrast: one term, no parts, no heads."""

import pytest
import torch
import torch.nn.functional as F

from reidray.config import Settings
from reidray.features import Features
from reidray.methods import Targets, make_method
from reidray.training.replica import Replicated
from tests.reference import losses as reference
from tests.reference import memory as memory_reference

# B = images, C = clusters, S = 1 space, D = feature width

LABELS = torch.tensor([2, 0, 1, 2, 3, 0])
NO_ALPHAS = torch.empty(6, 0)


def units(*shape, seed):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def method(**settings):
    return make_method(Settings(method={"name": "cluster_contrast", **settings}))


def features():
    features_BSD = units(6, 1, 5, seed=0)
    return Features(torch.zeros(6, 5, 2, 1), 3 * features_BSD, features_BSD, None, None)


@pytest.mark.parametrize("epoch", [0, 40])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_its_one_loss_is_the_contrast_with_the_centroids(temperature, epoch):
    one, memory = method(temperature=temperature), units(4, 1, 5, seed=1)
    targets = Targets(LABELS, NO_ALPHAS, one.contrast_weights(LABELS, NO_ALPHAS), None, None)
    terms = one.losses(features(), targets, Replicated(memory), one.heads(Replicated(memory)), epoch)
    assert list(terms) == ["contrast"]
    expected = [
        reference.cluster_nce(feature[0], label, memory[:, 0].tolist(), temperature)
        for feature, label in zip(features().features_BSD.tolist(), LABELS.tolist(), strict=True)
    ]
    torch.testing.assert_close(terms["contrast"], torch.tensor(expected))


def test_it_has_no_heads_no_parts_and_no_weights():
    one = method()
    assert one.num_parts == 0
    assert one.heads(Replicated(units(4, 1, 5, seed=1))) is None
    assert torch.equal(one.contrast_weights(LABELS, NO_ALPHAS), torch.ones(6, 1))


@pytest.mark.parametrize(("rule", "loop"), [("average", "sequential"), ("hardest", "hardest")])
def test_its_memory_moves_by_the_rule_and_momentum_of_the_settings(rule, loop):
    memory, moved = units(4, 1, 5, seed=1), features().features_BSD
    clusters_U, rows_USD = method(update=rule, momentum=0.3).updated_rows(
        Replicated(memory), moved, LABELS, NO_ALPHAS, torch.zeros(6)
    )
    expected = getattr(memory_reference, loop)(memory.tolist(), moved.tolist(), LABELS.tolist(), 0.3)
    assert clusters_U.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(rows_USD, torch.tensor(expected), rtol=0, atol=2e-6)
