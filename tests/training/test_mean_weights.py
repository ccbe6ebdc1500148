"""The running mean of the weights, by hand."""

import numpy as np
import pytest
import torch

from reidray.features import build_embedder
from reidray.training.mean_weights import MeanWeights


def network(seed=0):
    return build_embedder(backbone="small", pooling="avg", num_parts=0, part_pooling="gap", seed=seed)


def moved(seed):
    """A network whose every number was drawn."""
    model, generator = network(), torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator))
        else:
            tensor.fill_(seed)
    return model


def test_the_first_updates_are_a_plain_mean_and_the_later_ones_decay():
    models = [moved(seed) for seed in range(6)]
    mean = MeanWeights(models[0], decay=0.75)
    for updates, model in enumerate(models[1:], start=1):
        mean.follow(model, updates)
    for name, tensor in mean.state().items():
        rows = [model.state_dict()[name].double() for model in models]
        if not tensor.is_floating_point():
            assert int(tensor) == 5, name
            continue
        expected = sum(rows[:4]) / 4  # shares 1/2, 1/3, 1/4 keep a plain mean
        for row in rows[4:]:
            expected = 0.75 * expected + 0.25 * row
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-6, msg=name)


def test_it_is_another_network_that_is_never_trained():
    model = network()
    mean = MeanWeights(model, decay=0.9)
    images = torch.rand(4, 3, 48, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = mean.network(images).features_BSD
        for parameter in model.parameters():
            parameter.add_(1.0)
        np.testing.assert_array_equal(mean.network(images).features_BSD, before)
    assert not mean.network.training
    assert not any(parameter.requires_grad for parameter in mean.network.parameters())
    assert any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_a_network_that_stands_still_is_its_own_mean(decay):
    model = moved(3)
    mean = MeanWeights(model, decay=decay)
    for updates in range(1, 30):
        mean.follow(model, updates)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(mean.state()[name], tensor, rtol=0, atol=1e-6)
