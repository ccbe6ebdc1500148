"""Cluster Contrast: one term, no parts, no heads."""

import pytest
import torch
import torch.nn.functional as F

from reidray.config import Settings
from reidray.features import Features
from reidray.methods import make_method
from reidray.methods.step import Beginning, Targets
from reidray.training.replica import Replicated
from tests.reference import losses as reference
from tests.reference import memory as memory_reference

# B = images, C = clusters, S = 1 vector, D = feature width

LABELS = torch.tensor([2, 0, 1, 2, 3, 0])
TARGETS = Targets(torch.arange(6), LABELS, torch.full((6,), -1))


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
    terms = one.group_losses(features(), TARGETS, {"features": Replicated(memory)}, None, epoch)
    assert list(terms) == ["contrast"]
    expected = [
        reference.cluster_nce(feature[0], label, memory[:, 0].tolist(), temperature)
        for feature, label in zip(features().features_BSD.tolist(), LABELS.tolist(), strict=True)
    ]
    torch.testing.assert_close(terms["contrast"], torch.tensor(expected))


def test_it_has_no_heads_no_parts_no_weights_and_nothing_beside_the_network():
    one = method()
    assert one.num_parts == 0
    memories = {"features": Replicated(units(4, 1, 5, seed=1))}
    assert one.heads(Beginning(memories, LABELS.numpy(), TARGETS.cameras_B.numpy(), {})) is None
    assert one.targets(TARGETS) == {}
    assert one.modules() is None
    assert not one.has_batch_losses


@pytest.mark.parametrize(("rule", "loop"), [("average", "sequential"), ("hardest", "hardest")])
def test_its_memory_moves_by_the_rule_and_momentum_of_the_settings(rule, loop):
    memory, moved = units(4, 1, 5, seed=1), features().features_BSD
    found = method(update=rule, momentum=0.3).moved_rows(
        {"features": Replicated(memory)}, {"features": moved}, TARGETS, torch.zeros(6)
    )
    assert list(found) == ["features"]
    clusters_U, rows_USD = found["features"]
    expected = getattr(memory_reference, loop)(memory.tolist(), moved.tolist(), LABELS.tolist(), 0.3)
    assert clusters_U.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(rows_USD, torch.tensor(expected), rtol=0, atol=2e-6)
