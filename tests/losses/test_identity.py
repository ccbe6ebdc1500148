"""Identity losses, SCWM eq. 13-15: by hand, against tests/reference/losses.py, by invariants."""

import math

import pytest
import torch
import torch.nn.functional as F

from reidray.losses import distilled_global_targets, identity_loss, refined_part_targets
from tests.reference import losses as reference

# B = images, C = clusters, L = parts

LABELS = torch.tensor([2, 0, 4])


def alphas():
    return torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def part_logits():
    return torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2


# ---- eq. 13


def test_part_targets_by_hand():
    targets_BLC = refined_part_targets(torch.tensor([1]), torch.tensor([[1.0, 0.0, 0.5]]), 4)
    expected = [[[0, 1, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.125, 0.625, 0.125, 0.125]]]
    assert targets_BLC.tolist() == expected


def test_part_targets_agree_with_the_loop_and_sum_to_1():
    targets_BLC = refined_part_targets(LABELS, alphas(), 5)
    expected = [reference.part_targets(y, a, 5) for y, a in zip(LABELS.tolist(), alphas().tolist(), strict=True)]
    torch.testing.assert_close(targets_BLC, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(targets_BLC.sum(-1), torch.ones(3, 4, dtype=torch.float64))
    assert bool((targets_BLC >= 0).all())


def test_a_constant_alpha_is_label_smoothing():
    targets_BLC = refined_part_targets(LABELS, torch.full((3, 4), 0.9, dtype=torch.float64), 5)
    losses_BL = identity_loss(part_logits(), targets_BLC)
    for part in range(4):
        expected = F.cross_entropy(part_logits()[:, part], LABELS, label_smoothing=0.1, reduction="none")
        torch.testing.assert_close(losses_BL[:, part], expected)


# ---- eq. 14


def test_global_targets_by_hand():
    # Parts with alpha 0 and log 3 have shares 1/4 and 3/4; the first predicts (1/2, 1/2), the second (1/5, 4/5).
    alphas_BL = torch.tensor([[0.0, math.log(3)]])
    logits_BLC = torch.tensor([[[0.0, 0.0], [0.0, math.log(4)]]])
    targets_BC = distilled_global_targets(torch.tensor([0]), alphas_BL, logits_BLC, beta=0.35)
    mixed = [1 / 8 + 3 / 20, 1 / 8 + 12 / 20]
    torch.testing.assert_close(targets_BC, torch.tensor([[0.35 + 0.65 * mixed[0], 0.65 * mixed[1]]]))


@pytest.mark.parametrize("beta", [0.0, 0.35, 1.0])
def test_global_targets_agree_with_the_loop_and_sum_to_1(beta):
    targets_BC = distilled_global_targets(LABELS, alphas(), part_logits(), beta=beta)
    expected = [
        reference.global_targets(label, alphas_L, logits_LC, beta)
        for label, alphas_L, logits_LC in zip(LABELS.tolist(), alphas().tolist(), part_logits().tolist(), strict=True)
    ]
    torch.testing.assert_close(targets_BC, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(targets_BC.sum(-1), torch.ones(3, dtype=torch.float64))


def test_beta_1_is_the_pseudo_label():
    targets_BC = distilled_global_targets(LABELS, alphas(), part_logits(), beta=1.0)
    assert torch.equal(targets_BC, F.one_hot(LABELS, 5).double())


def test_a_part_of_higher_alpha_has_a_larger_say():
    logits_BLC = torch.tensor([[[9.0, 0.0], [0.0, 9.0]]])
    targets_BC = distilled_global_targets(torch.tensor([0]), torch.tensor([[0.1, 0.9]]), logits_BLC, beta=0.0)
    assert targets_BC[0, 1] > targets_BC[0, 0]


def test_targets_carry_no_gradient():
    logits_BLC = part_logits().requires_grad_()
    assert not refined_part_targets(LABELS, alphas(), 5).requires_grad
    targets_BC = distilled_global_targets(LABELS, alphas(), logits_BLC, beta=0.35)
    assert not targets_BC.requires_grad
    global_logits_BC = part_logits()[:, 0].clone().requires_grad_()
    identity_loss(global_logits_BC, targets_BC).sum().backward()
    assert logits_BLC.grad is None
    # closed form: softmax minus target
    torch.testing.assert_close(global_logits_BC.grad, global_logits_BC.detach().softmax(-1) - targets_BC)


# ---- eq. 15


def test_identity_loss_by_hand():
    logits = torch.tensor([0.0, math.log(3)])
    assert identity_loss(logits, torch.tensor([0.5, 0.5])).item() == pytest.approx(-0.5 * math.log(3 / 16))


def test_equal_logits_give_the_logarithm_of_the_number_of_clusters():
    targets_BLC = refined_part_targets(LABELS, alphas(), 5)
    found = identity_loss(torch.zeros(3, 4, 5, dtype=torch.float64), targets_BLC)
    torch.testing.assert_close(found, torch.full((3, 4), math.log(5), dtype=torch.float64))


def test_identity_loss_agrees_with_the_loop_over_any_leading_axes():
    targets_BLC = refined_part_targets(LABELS, alphas(), 5)
    expected = [
        [reference.cross_entropy(logits_C, targets_C) for logits_C, targets_C in zip(*rows, strict=True)]
        for rows in zip(part_logits().tolist(), targets_BLC.tolist(), strict=True)
    ]
    torch.testing.assert_close(identity_loss(part_logits(), targets_BLC), torch.tensor(expected, dtype=torch.float64))


def test_identity_loss_is_least_where_the_prediction_is_the_target():
    targets_BC = refined_part_targets(LABELS, alphas(), 5)[:, 0]
    least_B = identity_loss(targets_BC.log(), targets_BC)
    torch.testing.assert_close(least_B, -(targets_BC * targets_BC.log()).sum(-1))  # its entropy
    assert bool((identity_loss(part_logits()[:, 0], targets_BC) > least_B).all())
