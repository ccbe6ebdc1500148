"""Contrast with centroids, SCWM eq. 10 and 11: by hand, against tests/reference/losses.py, by invariants."""

import math

import pytest
import torch
import torch.nn.functional as F

from reidray.losses import centroid_contrast, part_separation, weighted_contrast
from reidray.memory import of_mean_one
from tests.reference import losses as reference

# B = images, C = clusters, D = feature width, L = parts


def units(*shape, seed):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def positive(count, seed=5):
    return of_mean_one(torch.rand(count, generator=torch.Generator().manual_seed(seed)) + 0.05)


LABELS = torch.tensor([2, 0, 1, 2, 3, 0])


# ---- ClusterNCE


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_equal_centroids_give_the_logarithm_of_their_number(temperature):
    centroids_CD = units(1, 5, seed=0).expand(7, 5)
    losses_B = centroid_contrast(units(6, 5, seed=1), LABELS, centroids_CD, temperature=temperature)
    torch.testing.assert_close(losses_B, torch.full((6,), math.log(7)))


def test_two_orthogonal_centroids_by_hand():
    centroids_CD = torch.eye(2)
    losses_B = centroid_contrast(torch.eye(2), torch.tensor([0, 0]), centroids_CD, temperature=0.5)
    torch.testing.assert_close(losses_B, torch.tensor([math.log1p(math.exp(-2)), math.log1p(math.exp(2))]))


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_contrast_agrees_with_the_loop_written_from_the_equation(temperature):
    features_BD, centroids_CD = units(6, 5, seed=0).double(), units(4, 5, seed=1).double()
    losses_B = centroid_contrast(features_BD, LABELS, centroids_CD, temperature=temperature)
    expected = [
        reference.cluster_nce(feature, label, centroids_CD.tolist(), temperature)
        for feature, label in zip(features_BD.tolist(), LABELS.tolist(), strict=True)
    ]
    torch.testing.assert_close(losses_B, torch.tensor(expected, dtype=torch.float64))


def test_contrast_does_not_depend_on_the_order_of_images_or_clusters():
    features_BD, centroids_CD = units(6, 5, seed=0), units(4, 5, seed=1)
    losses_B = centroid_contrast(features_BD, LABELS, centroids_CD, temperature=0.05)
    renamed = torch.tensor([2, 0, 3, 1])  # cluster c is now called renamed[c]
    moved_CD = torch.empty_like(centroids_CD)
    moved_CD[renamed] = centroids_CD
    torch.testing.assert_close(centroid_contrast(features_BD, renamed[LABELS], moved_CD, temperature=0.05), losses_B)
    found = centroid_contrast(features_BD.flip(0), LABELS.flip(0), centroids_CD, temperature=0.05)
    torch.testing.assert_close(found, losses_B.flip(0))


def test_a_step_along_the_gradient_brings_a_feature_nearer_to_its_own_centroid():
    features_BD, centroids_CD = units(6, 5, seed=0).requires_grad_(), units(4, 5, seed=1)
    centroid_contrast(features_BD, LABELS, centroids_CD, temperature=0.05).sum().backward()
    pulls_B = (features_BD.grad * centroids_CD[LABELS]).sum(1)
    probabilities_BC = (features_BD.detach() @ centroids_CD.T / 0.05).softmax(1)
    expected = (probabilities_BC @ centroids_CD - centroids_CD[LABELS]) / 0.05  # closed form: (sum p c - c+) / tau
    torch.testing.assert_close(features_BD.grad, expected, rtol=1e-4, atol=1e-5)
    assert bool((pulls_B <= 1e-6).all())


def test_a_memory_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"same width; got features \(6, 5\) and centroids \(4, 7\)"):
        centroid_contrast(units(6, 5, seed=0), LABELS, units(4, 7, seed=1), temperature=0.05)


# ---- eq. 10: where the weight stands


def contrast_and_gradient(place, weights_B, reduce=torch.sum):
    features_BD, centroids_CD = units(6, 5, seed=0).double().requires_grad_(), units(4, 5, seed=1).double()
    losses_B = weighted_contrast(
        centroid_contrast(features_BD, LABELS, centroids_CD, temperature=0.1), weights_B, place=place
    )
    reduce(losses_B).backward()
    return losses_B.detach(), features_BD.grad


def test_a_weight_outside_the_logarithm_scales_each_images_gradient():
    weights_B = positive(6).double()
    plain_B, plain_BD = contrast_and_gradient("none", weights_B)
    losses_B, gradient_BD = contrast_and_gradient("outside", weights_B)
    torch.testing.assert_close(losses_B, weights_B * plain_B)
    torch.testing.assert_close(gradient_BD, weights_B[:, None] * plain_BD)


def test_a_weight_inside_the_logarithm_as_printed_has_no_gradient():
    weights_B = positive(6).double()
    plain_B, plain_BD = contrast_and_gradient("none", weights_B)
    losses_B, gradient_BD = contrast_and_gradient("inside", weights_B)
    torch.testing.assert_close(gradient_BD, plain_BD, rtol=0, atol=0)
    torch.testing.assert_close(losses_B, plain_B - weights_B.log())


def test_the_printed_form_agrees_with_the_loop_written_from_the_equation():
    weights_B = positive(6).double()
    features_BD, centroids_CD = units(6, 5, seed=0).double(), units(4, 5, seed=1).double()
    expected = [
        reference.cluster_nce(feature, label, centroids_CD.tolist(), 0.1, weight)
        for feature, label, weight in zip(features_BD.tolist(), LABELS.tolist(), weights_B.tolist(), strict=True)
    ]
    losses_B, _ = contrast_and_gradient("inside", weights_B)
    torch.testing.assert_close(losses_B, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("place", ["outside", "inside", "none"])
def test_equal_weights_of_mean_1_change_nothing(place):
    plain_B, plain_BD = contrast_and_gradient("none", torch.ones(6).double())
    losses_B, gradient_BD = contrast_and_gradient(place, of_mean_one(torch.full((6,), 0.2).double()))
    torch.testing.assert_close(losses_B, plain_B)
    torch.testing.assert_close(gradient_BD, plain_BD)


def test_a_weight_of_0_gives_no_loss_outside_and_a_finite_one_inside():
    weights_B = torch.tensor([0.0, 2.0])
    losses_B = torch.tensor([1.0, 1.0])
    assert weighted_contrast(losses_B, weights_B, place="outside").tolist() == [0.0, 2.0]
    inside_B = weighted_contrast(losses_B, weights_B, place="inside")
    torch.testing.assert_close(inside_B, torch.tensor([1 - math.log(1e-6), 1 - math.log(2)]))


# ---- eq. 11


def test_separation_by_hand():
    # Two parts on their own centroids, which are orthogonal: each term is -log(e^2 / (e^2 + 1)).
    losses_B = part_separation(torch.eye(2)[None], torch.eye(2)[None], temperature=0.5)
    torch.testing.assert_close(losses_B, torch.tensor([math.log1p(math.exp(-2))]))
    crossed_B = part_separation(torch.eye(2).flip(0)[None], torch.eye(2)[None], temperature=0.5)
    torch.testing.assert_close(crossed_B, torch.tensor([math.log1p(math.exp(2))]))


def test_equal_part_centroids_give_the_logarithm_of_the_number_of_parts():
    losses_B = part_separation(units(3, 4, 5, seed=0), units(3, 1, 5, seed=1).expand(3, 4, 5), temperature=0.05)
    torch.testing.assert_close(losses_B, torch.full((3,), math.log(4)))


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_separation_agrees_with_the_loop_written_from_the_equation(temperature):
    features_BLD, centroids_BLD = units(3, 4, 5, seed=0).double(), units(3, 4, 5, seed=1).double()
    expected = [
        reference.separation(features, centroids, temperature)
        for features, centroids in zip(features_BLD.tolist(), centroids_BLD.tolist(), strict=True)
    ]
    found = part_separation(features_BLD, centroids_BLD, temperature=temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_separation_does_not_depend_on_the_order_of_the_parts():
    features_BLD, centroids_BLD = units(3, 4, 5, seed=0), units(3, 4, 5, seed=1)
    losses_B = part_separation(features_BLD, centroids_BLD, temperature=0.1)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(
        part_separation(features_BLD[:, order], centroids_BLD[:, order], temperature=0.1), losses_B
    )
    assert not torch.allclose(part_separation(features_BLD[:, order], centroids_BLD, temperature=0.1), losses_B)
