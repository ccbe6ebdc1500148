"""Dropout keyed by the image: the same whatever group or worker forwards it, and as random as dropout should be."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from reidray.features.dropout import KeyedDropout, image_keys, keyed_uniforms, set_keys

# B = images, D = numbers of an image

B, D = 24, 512


def keys(seed=3, epoch=1, step=2, batch=B):
    return image_keys(seed, epoch, step, batch)


def inputs(*shape, seed=0):
    return torch.randn(*(shape or (B, D)), generator=torch.Generator().manual_seed(seed)) + 5  # no zeros


def dropped(rows, keys_B, p=0.5):
    layer = KeyedDropout(p).train()
    set_keys(layer, keys_B)
    return layer(rows)


def kept(keys_B, p=0.5, width=D):
    return dropped(torch.ones(len(keys_B), width), keys_B, p) != 0


def deviations(count, trials, share):
    """How many standard deviations of a binomial a count is from what is expected."""
    return abs(count - trials * share) / (trials * share * (1 - share)) ** 0.5


# ---- keyed by the image


@pytest.mark.parametrize("cuts", [[], [12], [5], [1, 2, 3], [8, 16], list(range(1, B))])
def test_splitting_a_batch_changes_nothing(cuts):
    rows, keys_B = inputs(), keys()
    whole = dropped(rows, keys_B)
    edges = [0, *cuts, B]
    parts = [dropped(rows[start:stop], keys_B[start:stop]) for start, stop in itertools.pairwise(edges)]
    assert torch.equal(torch.cat(parts), whole)


def test_the_place_in_a_group_does_not_matter():
    rows, keys_B = inputs(), keys()
    order = torch.randperm(B, generator=torch.Generator().manual_seed(1))
    assert torch.equal(dropped(rows[order], keys_B[order]), dropped(rows, keys_B)[order])


def test_neither_does_what_else_was_drawn_nor_the_state_of_pytorchs_generator():
    torch.manual_seed(0)
    first = dropped(inputs(), keys())
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(dropped(inputs(), keys()), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_shape_of_an_image_matters_only_by_its_order():
    rows, keys_B = inputs(B, 8, 16, 4), keys()
    assert torch.equal(dropped(rows, keys_B).flatten(1), dropped(rows.flatten(1), keys_B))


def test_images_differ_from_each_other():
    masks = kept(keys())
    assert len({tuple(row) for row in masks.tolist()}) == B


@pytest.mark.parametrize("other", [{"seed": 4}, {"epoch": 2}, {"step": 3}, {"epoch": 2, "step": 1}])
def test_seeds_epochs_and_steps_differ_from_each_other(other):
    one, two = keys(), keys(**other)
    assert not set(one.tolist()) & set(two.tolist())
    equal = int((kept(one) == kept(two)).sum())
    assert deviations(equal, B * D, 0.5) < 4  # as often equal as independent draws are


def test_keys_of_a_step_are_all_different_and_come_again():
    assert torch.equal(keys(), keys())
    assert keys().dtype == torch.int64
    many = torch.cat([keys(step=step, batch=256) for step in range(40)])
    assert len(many.unique()) == len(many)


class Layered(nn.Module):
    """Three dropouts, one of them deeper than the others."""

    def __init__(self):
        super().__init__()
        self.first = KeyedDropout(0.5)
        self.inner = nn.Sequential(nn.Linear(2, 2), KeyedDropout(0.5))
        self.last = KeyedDropout(0.5)


def test_layers_of_a_network_differ_from_each_other():
    network = Layered().train()
    set_keys(network, keys())
    layers = [network.first, network.inner[1], network.last]
    masks = [layer(torch.ones(B, D)) != 0 for layer in layers]
    for one, two in itertools.combinations(masks, 2):
        assert deviations(int((one == two).sum()), B * D, 0.5) < 4
    again = Layered().train()
    set_keys(again, keys())
    assert torch.equal(again.last(torch.ones(B, D)) != 0, masks[2])


# ---- as random as it should be


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9])
def test_the_rate_is_within_binomial_bounds(p):
    masks = torch.stack([kept(keys(step=step), p) for step in range(20)])
    assert deviations(int(masks.sum()), masks.numel(), 1 - p) < 4
    for axis in ((0, 1), (0, 2)):  # of every place, and of every image of a batch
        counts = masks.sum(axis)
        trials = masks.numel() // len(counts)
        assert max(deviations(int(count), trials, 1 - p) for count in counts) < 5


@pytest.mark.parametrize("axis", ["of one image", "of one place", "of all"])
def test_uniforms_are_uniform(axis):
    """Chi-square over 64 equal bins: mean 63, standard deviation sqrt(126)."""
    shape = {"of one image": (1, 65536), "of one place": (65536, 1), "of all": (512, 128)}[axis]
    uniforms = keyed_uniforms(keys(batch=shape[0]), shape[1])
    assert uniforms.dtype == torch.float32
    assert tuple(uniforms.shape) == shape
    assert 0 <= uniforms.min() < 1e-3
    assert 0.999 < uniforms.max() < 1
    counts = np.bincount((uniforms * 64).long().ravel().numpy(), minlength=64)
    expected = uniforms.numel() / 64
    assert abs(((counts - expected) ** 2 / expected).sum() - 63) < 4 * 126**0.5


@pytest.mark.parametrize("apart", [(0, 1), (1, 0), (0, 2), (1, 1)])
def test_neighbouring_images_and_places_are_independent(apart):
    """Chi-square of pairs over 8 x 8 bins: mean 63, standard deviation sqrt(126)."""
    uniforms = (keyed_uniforms(keys(batch=256), 256) * 8).long()
    rows, columns = apart
    one, two = uniforms[: 256 - rows, : 256 - columns], uniforms[rows:, columns:]
    counts = np.bincount((8 * one + two).ravel().numpy(), minlength=64)
    expected = one.numel() / 64
    assert abs(((counts - expected) ** 2 / expected).sum() - 63) < 4 * 126**0.5


def test_keys_that_follow_each_other_are_mixed_as_well():
    uniforms = keyed_uniforms(torch.arange(1024), 64)
    counts = np.bincount((uniforms * 64).long().ravel().numpy(), minlength=64)
    expected = uniforms.numel() / 64
    assert abs(((counts - expected) ** 2 / expected).sum() - 63) < 4 * 126**0.5


# ---- what a layer does


def test_what_is_kept_grows_so_that_the_mean_stays():
    rows = inputs()
    for p in (0.25, 0.5):
        found = dropped(rows, keys(), p)
        mask = found != 0
        torch.testing.assert_close(found[mask], rows[mask] / (1 - p))
        assert torch.equal(mask, kept(keys(), p))


def test_the_gradient_flows_only_where_something_was_kept():
    rows = inputs().requires_grad_()
    weights = inputs(seed=1)
    (dropped(rows, keys(), 0.25) * weights).sum().backward()
    mask = kept(keys(), 0.25)
    assert not rows.grad[~mask].any()
    torch.testing.assert_close(rows.grad[mask], weights[mask] / 0.75)


def test_evaluation_mode_is_the_identity_and_needs_no_keys():
    rows = inputs()
    assert KeyedDropout(0.5).eval()(rows) is rows
    layer = KeyedDropout(0.5).train()
    set_keys(layer, keys()[:3])
    assert layer.eval()(rows) is rows


def test_rate_0_is_the_identity_and_needs_no_keys():
    rows = inputs()
    assert KeyedDropout(0.0).train()(rows) is rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_types_are_kept(dtype):
    assert dropped(inputs().to(dtype), keys()).dtype == dtype
    assert torch.equal(dropped(inputs().to(dtype), keys()) != 0, kept(keys()))


def test_a_group_without_images_is_let_through():
    rows = torch.empty(0, D, requires_grad=True)
    found = dropped(rows, keys()[:0])
    assert found.shape == (0, D)
    assert found.dtype == torch.float32
    found.sum().backward()


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_a_rate_that_is_none_is_refused(p):
    with pytest.raises(ValueError, match=f"dropout must be at least 0 and below 1; got {p}"):
        KeyedDropout(p)


def test_keys_must_come_first_and_be_as_many_as_images():
    layer = KeyedDropout(0.5).train()
    with pytest.raises(AssertionError, match="set_keys comes before"):
        layer(inputs())
    set_keys(layer, keys()[:3])
    with pytest.raises(ValueError, match="got 3 keys for 24 images"):
        layer(inputs())


def test_keys_are_no_part_of_what_is_saved():
    network = Layered().train()
    names = list(network.state_dict())
    set_keys(network, keys())
    assert list(network.state_dict()) == names == ["inner.0.weight", "inner.0.bias"]
