"""Losses of part masks, SCWM eq. 4 and 5: by hand, against tests/reference/losses.py, by invariants."""

import math

import pytest
import torch

from reidray.losses import diversity_loss, parsing_loss
from tests.reference import losses as reference

# B = images, L = parts, H, W = cells


def logits(parts=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, parts, 5, 2, generator=generator, dtype=torch.float64) * 2


def targets(parts=4):
    return logits(parts, seed=7).softmax(1)


def visible():
    cells_BHW = torch.ones(3, 5, 2, dtype=torch.float64)
    cells_BHW[0, 1:3] = 0
    cells_BHW[2] = 0  # nothing is left of the last image
    return cells_BHW


# ---- eq. 4


def test_parsing_loss_by_hand():
    # Two cells: the first predicted (3/4, 1/4) and of part 0, the second (1/2, 1/2) and half of each.
    logits_BLHW = torch.tensor([[[[math.log(3), 0.0]], [[0.0, 0.0]]]])
    targets_BLHW = torch.tensor([[[[1.0, 0.5]], [[0.0, 0.5]]]])
    both, first = torch.ones(1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    assert parsing_loss(logits_BLHW, targets_BLHW, both).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert parsing_loss(logits_BLHW, targets_BLHW, first).item() == pytest.approx(math.log(4 / 3))


def test_parsing_loss_agrees_with_the_loop_over_the_cells_that_were_not_erased():
    expected = [
        reference.parsing(*rows) for rows in zip(logits().tolist(), targets().tolist(), visible().tolist(), strict=True)
    ]
    found = parsing_loss(logits(), targets(), visible())
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert found[2] == 0.0


def test_erased_cells_have_neither_loss_nor_gradient():
    changed = targets()
    changed[0, :, 1:3] = targets()[0, :, 1:3].flip(0)
    assert torch.equal(parsing_loss(logits(), changed, visible()), parsing_loss(logits(), targets(), visible()))
    logits_BLHW = logits().requires_grad_()
    parsing_loss(logits_BLHW, targets(), visible()).sum().backward()
    seen_BLHW = visible()[:, None].expand(-1, 4, -1, -1).bool()
    assert not bool(logits_BLHW.grad[~seen_BLHW].any())
    assert bool((logits_BLHW.grad[seen_BLHW] != 0).all())


def test_parsing_loss_does_not_depend_on_the_resolution():
    doubled = [tensor.repeat_interleave(2, -1).repeat_interleave(2, -2) for tensor in (logits(), targets(), visible())]
    torch.testing.assert_close(parsing_loss(*doubled), parsing_loss(logits(), targets(), visible()))


def test_undecided_logits_give_the_logarithm_of_the_number_of_parts():
    cells_BHW = torch.ones(3, 5, 2, dtype=torch.float64)
    found = parsing_loss(torch.zeros_like(logits()), targets(), cells_BHW)
    torch.testing.assert_close(found, torch.full((3,), math.log(4), dtype=torch.float64))


# ---- eq. 5


@pytest.mark.parametrize("parts", [2, 3, 4, 7])
def test_diversity_is_the_literal_double_sum_over_pairs(parts):
    masks_BLHW = targets(parts)
    expected = [reference.diversity(masks) for masks in masks_BLHW.tolist()]
    torch.testing.assert_close(diversity_loss(masks_BLHW, cells="mean"), torch.tensor(expected, dtype=torch.float64))
    single = diversity_loss(masks_BLHW.float(), cells="mean")
    torch.testing.assert_close(single, torch.tensor(expected), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("parts", [2, 3, 4, 7])
def test_the_gradient_of_diversity_through_the_softmax_is_that_of_the_double_sum(parts):
    logits_BLHW = logits(parts).requires_grad_()
    diversity_loss(logits_BLHW.softmax(1), cells="mean").sum().backward()
    again_BLHW = logits(parts).requires_grad_()
    masks_BLHW = again_BLHW.softmax(1)
    pairs = [masks_BLHW[:, i] * masks_BLHW[:, j] for i in range(parts) for j in range(i + 1, parts)]
    (2 / (parts * (parts - 1)) * torch.stack(pairs).sum(0).mean((1, 2)).sum()).backward()
    torch.testing.assert_close(logits_BLHW.grad, again_BLHW.grad)


@pytest.mark.parametrize("parts", [2, 3, 4, 7])
def test_diversity_is_0_for_hard_masks_and_greatest_for_equal_ones(parts):
    hard_BLHW = torch.nn.functional.one_hot(logits(parts).argmax(1), parts).permute(0, 3, 1, 2).double()
    assert not bool(diversity_loss(hard_BLHW, cells="mean").any())
    equal_BLHW = torch.full_like(hard_BLHW, 1 / parts)
    torch.testing.assert_close(
        diversity_loss(equal_BLHW, cells="mean"), torch.full((3,), 1 / parts**2, dtype=torch.float64)
    )
    soft_B = diversity_loss(targets(parts), cells="mean")
    assert bool(((soft_B > 0) & (soft_B < 1 / parts**2)).all())


@pytest.mark.parametrize("parts", [2, 4])
def test_as_printed_diversity_is_the_sum_over_the_cells(parts):
    masks_BLHW = targets(parts)
    cells = masks_BLHW.shape[2] * masks_BLHW.shape[3]
    found = diversity_loss(masks_BLHW, cells="sum")
    torch.testing.assert_close(found, cells * diversity_loss(masks_BLHW, cells="mean"))
    expected = [reference.diversity(masks) * cells for masks in masks_BLHW.tolist()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_diversity_of_two_parts_by_hand():
    masks_BLHW = torch.tensor([[[[0.25, 1.0]], [[0.75, 0.0]]]])
    assert diversity_loss(masks_BLHW, cells="mean").item() == pytest.approx((0.25 * 0.75 + 0) / 2)
