import copy

import pytest
import torch
from torch import nn

from reidray.features import apply_statistics, convert, statistics_size, take_statistics


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4)
        )
        nn.init.normal_(layers[1].weight)
        nn.init.normal_(layers[5].bias)
    return layers


def images(groups: int, size: int = 6) -> torch.Tensor:
    return torch.randn(groups, size, 3, 8, 6, generator=torch.Generator().manual_seed(3)) * 2 + 1


def test_one_group_a_step_is_pytorchs_batch_norm():
    plain, group = net().train(), convert(net()).train()
    for batch in images(3):
        expected, found = plain(batch), group(batch)
        apply_statistics(group, take_statistics(group)[None])
        assert torch.equal(found, expected)
    assert list(group.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(group.state_dict()[name], value, rtol=1e-6, atol=1e-7)
    assert torch.equal(group.eval()(batch), group.eval()(batch))
    torch.testing.assert_close(group.eval()(batch), plain.eval()(batch))


def test_gradients_are_pytorchs():
    plain, group = net().train(), convert(net()).train()
    batch = images(1)[0]
    for model in (plain, group):
        model(batch).square().sum().backward()
    for expected, found in zip(plain.parameters(), group.parameters(), strict=True):
        assert torch.equal(found.grad, expected.grad)


def test_statistics_are_mean_and_unbiased_variance_layer_by_layer():
    model = convert(net()).train()
    batch = images(1)[0]
    statistics_T = (model(batch), take_statistics(model))[1]
    mapped = model[0](batch)
    assert statistics_size(model) == 16
    assert statistics_T.shape == (16,)
    torch.testing.assert_close(statistics_T[:4], mapped.mean((0, 2, 3)))
    torch.testing.assert_close(statistics_T[4:8], mapped.var((0, 2, 3), correction=1))


def test_a_forward_pass_changes_no_buffer():
    model = convert(net()).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(images(1)[0])
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
def test_running_statistics_do_not_depend_on_the_number_of_workers(workers):
    groups, batches = 6, images(6)
    alone = convert(net()).train()
    rows = []
    for batch in batches:
        alone(batch)
        rows.append(take_statistics(alone))
    apply_statistics(alone, torch.stack(rows))

    replicas = [copy.deepcopy(convert(net()).train()) for _ in range(workers)]
    gathered = torch.empty(groups, statistics_size(replicas[0]))
    for rank, replica in enumerate(replicas):  # contiguous shares, each in its own time
        for group in range(rank * groups // workers, (rank + 1) * groups // workers):
            replica(batches[group])
            gathered[group] = take_statistics(replica)
    for replica in replicas:
        apply_statistics(replica, gathered)
        for name, value in alone.state_dict().items():
            assert torch.equal(replica.state_dict()[name], value), name
    assert replicas[0][1].num_batches_tracked.item() == groups


def test_the_groups_of_a_step_are_applied_in_order_by_hand():
    model = convert(nn.BatchNorm1d(1, momentum=0.5))
    apply_statistics(model, torch.tensor([[4.0, 9.0], [2.0, 3.0]]))
    assert model.running_mean.item() == 0.5 * (0.5 * 0 + 0.5 * 4) + 0.5 * 2
    assert model.running_var.item() == 0.5 * (0.5 * 1 + 0.5 * 9) + 0.5 * 3
    apply_statistics(model, torch.empty(0, 2))
    assert model.num_batches_tracked.item() == 2


def test_statistics_can_be_taken_once_per_training_pass():
    model = convert(net()).train()
    with pytest.raises(RuntimeError, match="no statistics to take"):
        take_statistics(model)
    model(images(1)[0])
    with pytest.raises(AssertionError, match="ran twice in training mode"):
        model(images(1)[0])
    take_statistics(model)
    with pytest.raises(RuntimeError, match="no statistics to take"):
        take_statistics(model)
    model.eval()(images(1)[0])
    with pytest.raises(RuntimeError, match="no statistics to take"):
        take_statistics(model)


def test_a_failed_pass_is_forgotten_when_training_mode_is_set_again():
    model = convert(net()).train()
    model(images(1)[0])
    model.train()
    model(images(1)[0])
    assert take_statistics(model).shape == (16,)


def test_a_group_of_one_value_per_channel_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 4\): raise model.bn_group_size"):
        convert(nn.BatchNorm1d(4)).train()(torch.zeros(1, 4))


def test_conversion_keeps_tensors_and_mode_and_is_idempotent():
    plain = net().eval()
    tensors = {name: value.data_ptr() for name, value in plain.state_dict(keep_vars=True).items()}
    plain[5].bias.requires_grad_(False)
    converted = convert(plain)
    assert {name: value.data_ptr() for name, value in converted.state_dict(keep_vars=True).items()} == tensors
    assert not converted[1].training
    assert not converted[5].bias.requires_grad
    kept = converted[1]
    assert convert(converted)[1] is kept


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm3d(2), nn.BatchNorm1d(2, track_running_stats=False), nn.BatchNorm2d(2, momentum=None)],
)
def test_a_batch_norm_that_cannot_be_grouped_is_refused(layer):
    with pytest.raises(ValueError, match="must be 1- or 2-dimensional with running statistics"):
        convert(nn.Sequential(layer))


def test_lower_precision_maps_keep_float32_statistics():
    model = convert(nn.BatchNorm2d(3)).train()
    output = model(torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).bfloat16())
    assert output.dtype == torch.bfloat16
    assert take_statistics(model).dtype == torch.float32
