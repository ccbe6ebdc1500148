"""Contrast from partials: whatever the division of the rows, it is `centroid_contrast` and its gradient."""

import math

import pytest
import torch
import torch.nn.functional as F

from reidray.losses import centroid_contrast, joined_contrast, partial_contrast, unpacked, with_gradient
from tests.reference import losses as reference

# B = images, C = clusters, R = rows of one holder, D = feature width

B, C, D = 6, 11, 5
LABELS = torch.tensor([2, 0, 10, 2, 7, 5])

DIVISIONS = {  # which holder has which clusters
    "all in one": [list(range(C))],
    "two blocks": [list(range(4)), list(range(4, C))],
    "remainders by 3": [list(range(rank, C, 3)) for rank in range(3)],
    "one each": [[cluster] for cluster in range(C)],
    "empty ones among them": [[], [], list(range(6)), [], list(range(6, C)), []],
}


def units(*shape, seed, dtype=torch.float64):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=-1)


def partials_of(features_BD, centroids_CD, division, temperature):
    partials = []
    for clusters in division:
        places_B = torch.tensor([clusters.index(label) if label in clusters else -1 for label in LABELS.tolist()])
        partials.append(partial_contrast(features_BD, places_B, centroids_CD[clusters], temperature=temperature))
    return partials


def contrast(division, temperature=0.05, dtype=torch.float64):
    """Losses, their gradients with respect to the features, and the same of `centroid_contrast`."""
    features_BD, centroids_CD = units(B, D, seed=0, dtype=dtype), units(C, D, seed=1, dtype=dtype)
    partials = partials_of(features_BD, centroids_CD, division, temperature)
    found = joined_contrast(partials, centroids_CD[LABELS], temperature=temperature)
    features_BD.requires_grad_()
    losses_B = centroid_contrast(features_BD, LABELS, centroids_CD, temperature=temperature)
    (gradient_BD,) = torch.autograd.grad(losses_B.sum(), features_BD)
    return found, (losses_B.detach(), gradient_BD)


@pytest.mark.parametrize("temperature", [0.01, 0.05, 1.0])
@pytest.mark.parametrize("name", DIVISIONS)
def test_any_division_of_the_rows_gives_the_loss_and_the_gradient_of_the_whole(name, temperature):
    found, expected = contrast(DIVISIONS[name], temperature)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_the_loss_is_the_loop_written_from_the_equation():
    losses_B, _ = contrast(DIVISIONS["remainders by 3"], 0.1)[0]
    features_BD, centroids_CD = units(B, D, seed=0), units(C, D, seed=1)
    expected = [
        reference.cluster_nce(feature, label, centroids_CD.tolist(), 0.1)
        for feature, label in zip(features_BD.tolist(), LABELS.tolist(), strict=True)
    ]
    torch.testing.assert_close(losses_B, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("rows", [1, 3, 4, 11])
def test_logits_of_a_few_rows_at_a_time_give_the_same(rows, monkeypatch):
    monkeypatch.setattr("reidray.losses.partial._BLOCK_ROWS", rows)
    found, expected = contrast(DIVISIONS["two blocks"])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_a_sharp_temperature_neither_overflows_nor_vanishes_in_single_precision():
    found, expected = contrast(DIVISIONS["one each"], 1e-4, torch.float32)  # logits up to 10,000
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1.0)
    assert bool(torch.isfinite(found[1]).all())


def test_two_orthogonal_centroids_by_hand():
    partials = [
        partial_contrast(torch.eye(2), places_B, row_1D, temperature=0.5)
        for places_B, row_1D in zip(torch.tensor([[0, 0], [-1, -1]]), torch.eye(2).split(1), strict=True)
    ]
    losses_B, gradients_BD = joined_contrast(partials, torch.eye(2)[[0, 0]], temperature=0.5)
    torch.testing.assert_close(losses_B, torch.tensor([math.log1p(math.exp(-2)), math.log1p(math.exp(2))]))
    near, far = 1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))  # probability of the other centroid
    expected = torch.tensor([[-near, near], [-far, far]]) / 0.5
    torch.testing.assert_close(gradients_BD, expected)


def test_one_cluster_has_no_loss_and_no_gradient():
    row_1D = units(1, D, seed=1)
    partial = partial_contrast(units(3, D, seed=0), torch.zeros(3, dtype=torch.int64), row_1D, temperature=0.05)
    losses_B, gradients_BD = joined_contrast([partial], row_1D.expand(3, D), temperature=0.05)
    assert losses_B.abs().max() < 1e-12
    assert gradients_BD.abs().max() < 1e-12


def test_no_images_are_no_losses():
    nobody = torch.empty(0, dtype=torch.int64)
    partial = partial_contrast(torch.empty(0, D), nobody, units(C, D, seed=1, dtype=torch.float32), temperature=0.05)
    losses_B, gradients_BD = joined_contrast([partial], torch.empty(0, D), temperature=0.05)
    assert losses_B.shape == (0,)
    assert gradients_BD.shape == (0, D)


def test_what_is_sent_comes_back_and_the_input_is_left_alone():
    features_BD, centroids_CD = units(B, D, seed=0), units(C, D, seed=1)
    (partial,) = partials_of(features_BD, centroids_CD, DIVISIONS["all in one"], 0.05)
    packed = partial.packed()
    assert packed.shape == (B, 3 + D)
    for name in ("largest_B", "sums_B", "own_B", "pulls_BD"):
        assert torch.equal(getattr(unpacked(packed), name), getattr(partial, name)), name
        assert torch.equal(getattr(unpacked(packed.unsqueeze(0)), name)[0], getattr(partial, name)), name
    assert torch.equal(features_BD, units(B, D, seed=0))
    assert torch.equal(centroids_CD, units(C, D, seed=1))


def test_backward_multiplies_what_arrives_by_the_gradient_of_each_loss():
    features_BD = units(B, D, seed=0).requires_grad_()
    losses_B, gradients_BD = units(1, B, seed=2)[0], units(B, D, seed=3)
    arriving_B = units(1, B, seed=4)[0]
    given_B = with_gradient(features_BD, losses_B, gradients_BD)
    assert torch.equal(given_B, losses_B)
    (given_B * arriving_B).sum().backward()
    torch.testing.assert_close(features_BD.grad, arriving_B.unsqueeze(1) * gradients_BD)


def test_through_a_network_the_gradient_is_that_of_the_whole():
    weights = units(D, D, seed=5)

    def gradient(losses):
        leaf = weights.clone().requires_grad_()
        features_BD = F.normalize(units(B, D, seed=0) @ leaf, dim=-1)
        (losses(features_BD) * torch.arange(1, B + 1)).mean().backward()
        return leaf.grad

    centroids_CD = units(C, D, seed=1)

    def divided(features_BD):
        partials = partials_of(features_BD, centroids_CD, DIVISIONS["remainders by 3"], 0.05)
        return with_gradient(features_BD, *joined_contrast(partials, centroids_CD[LABELS], temperature=0.05))

    whole = gradient(lambda features_BD: centroid_contrast(features_BD, LABELS, centroids_CD, temperature=0.05))
    torch.testing.assert_close(gradient(divided), whole, rtol=1e-11, atol=1e-11)
