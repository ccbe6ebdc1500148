import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reidray.features import Embedder, SmallNet, build_embedder, part_features, stripe_features, take_statistics
from reidray.features.group_norm import GroupBatchNorm1d, GroupBatchNorm2d


def small(
    num_parts: int = 4, part_pooling: str = "gap", pooling: str = "avg", seed: int = 0, num_stripes: int = 0
) -> Embedder:
    return build_embedder(
        backbone="small",
        pooling=pooling,
        num_parts=num_parts,
        num_stripes=num_stripes,
        part_pooling=part_pooling,
        seed=seed,
    )


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 96, 48, generator=torch.Generator().manual_seed(0))


def test_every_space_has_a_feature_of_unit_length():
    features = small().train()(images())
    assert features.map_BDHW.shape == (4, 192, 12, 6)
    assert features.necks_BSD.shape == features.features_BSD.shape == (4, 5, 192)
    assert features.part_logits_BLHW.shape == features.masks_BLHW.shape == (4, 4, 12, 6)
    torch.testing.assert_close(features.features_BSD.norm(dim=2), torch.ones(4, 5))
    torch.testing.assert_close(features.masks_BLHW.sum(dim=1), torch.ones(4, 12, 6))
    torch.testing.assert_close(features.features_BSD * features.necks_BSD.norm(dim=2, keepdim=True), features.necks_BSD)


def test_without_parts_there_is_the_global_space_alone():
    features = small(num_parts=0).train()(images())
    assert features.features_BSD.shape == (4, 1, 192)
    assert features.part_logits_BLHW is None
    assert features.masks_BLHW is None


def test_every_stripe_has_a_neck_and_a_feature_of_unit_length_after_the_global_one():
    embedder = small(num_parts=0, num_stripes=3).train()
    features = embedder(images())
    assert features.features_BSD.shape == (4, 4, 192)
    assert len(embedder.necks) == 4
    assert features.part_logits_BLHW is None
    assert features.masks_BLHW is None
    torch.testing.assert_close(features.features_BSD.norm(dim=2), torch.ones(4, 4))
    pooled_BSD = torch.cat([features.map_BDHW.mean(dim=(2, 3))[:, None], stripe_features(features.map_BDHW, 3)], 1)
    for vector, pooled_BD in enumerate(pooled_BSD.unbind(1)):
        plain = nn.BatchNorm1d(192)(pooled_BD)  # a new neck has weight 1 and bias 0, as PyTorch's
        torch.testing.assert_close(features.necks_BSD[:, vector], plain, rtol=1e-4, atol=1e-4)


def test_parts_are_masks_or_stripes():
    with pytest.raises(AssertionError, match="masks or stripes"):
        small(num_parts=4, num_stripes=3)


def test_part_features_are_the_masked_means_of_equation_1_by_hand():
    map_BDHW = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # D = 2, one row of two cells
    masks_BLHW = torch.tensor([[[[0.75, 0.0]], [[0.25, 1.0]]]])
    gap = part_features(map_BDHW, masks_BLHW, part_pooling="gap")
    masked = part_features(map_BDHW, masks_BLHW, part_pooling="masked")
    assert gap.tolist() == [[[0.75 / 2, 2.25 / 2], [(0.25 + 2) / 2, (0.75 + 4) / 2]]]
    torch.testing.assert_close(masked, torch.tensor([[[1.0, 3.0], [2.25 / 1.25, 4.75 / 1.25]]]))


def test_parts_of_the_printed_equation_sum_to_the_global_average():
    embedder = small()
    features = embedder.eval()(images())
    parts_BLD = part_features(features.map_BDHW, features.masks_BLHW, part_pooling="gap")
    torch.testing.assert_close(parts_BLD.sum(dim=1), features.map_BDHW.mean(dim=(2, 3)))


def test_an_empty_part_has_a_finite_feature():
    map_BDHW, masks_BLHW = torch.ones(1, 3, 2, 2), torch.zeros(1, 1, 2, 2)
    assert torch.equal(part_features(map_BDHW, masks_BLHW, part_pooling="masked"), torch.zeros(1, 1, 3))


def test_stripes_are_means_of_rows_from_the_top_by_hand():
    map_BDHW = torch.tensor([[[[1.0, 3.0], [5.0, 7.0], [9.0, 11.0]]]])
    assert stripe_features(map_BDHW, 1).tolist() == [[[6.0]]]
    assert stripe_features(map_BDHW, 3).tolist() == [[[2.0], [6.0], [10.0]]]
    assert stripe_features(map_BDHW, 2).tolist() == [[[4.0], [8.0]]]  # three rows: the middle one is in both


@pytest.mark.parametrize("height", [1, 2, 5, 8, 12, 24])
@pytest.mark.parametrize("num_stripes", [1, 2, 3, 4, 7])
def test_stripes_are_those_of_pytorch_with_their_gradients(height, num_stripes):
    generator = torch.Generator().manual_seed(height)
    map_BDHW = torch.randn(2, 5, height, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    stripes_BPD = stripe_features(map_BDHW, num_stripes)
    expected_BPD = F.adaptive_avg_pool2d(map_BDHW, (num_stripes, 1)).squeeze(3).transpose(1, 2)
    torch.testing.assert_close(stripes_BPD, expected_BPD)
    weights_BPD = torch.randn(2, num_stripes, 5, generator=generator, dtype=torch.float64)
    found, expected = (torch.autograd.grad(rows, map_BDHW, weights_BPD)[0] for rows in (stripes_BPD, expected_BPD))
    torch.testing.assert_close(found, expected)


def test_equal_stripes_have_the_global_average_as_their_mean_in_any_memory_format():
    map_BDHW = small().eval()(images()).map_BDHW
    stripes_BPD = stripe_features(map_BDHW, 3)
    assert stripes_BPD.shape == (4, 3, 192)
    torch.testing.assert_close(stripes_BPD.mean(dim=1), map_BDHW.mean(dim=(2, 3)))
    torch.testing.assert_close(stripe_features(map_BDHW.contiguous(), 3), stripes_BPD)


def test_features_of_a_black_map_are_finite_and_so_are_their_gradients():
    embedder = small().eval()
    for parameter in embedder.backbone.parameters():
        nn.init.zeros_(parameter)
    features = embedder(images(2))
    features.features_BSD.sum().backward()
    assert torch.isfinite(features.features_BSD).all()
    assert all(torch.isfinite(p.grad).all() for p in embedder.parameters() if p.grad is not None)


def test_neck_biases_stay_zero_and_all_else_is_trained():
    embedder = small(pooling="gem")
    frozen = [name for name, parameter in embedder.named_parameters() if not parameter.requires_grad]
    assert frozen == [f"necks.{space}.bias" for space in range(5)]
    assert all(not neck.bias.any() for neck in embedder.necks)
    embedder.train()(images()).features_BSD.square().sum().backward()
    assert all(p.grad is not None for p in embedder.parameters() if p.requires_grad)


def test_all_batch_norms_are_group_norms():
    embedder = build_embedder(backbone="resnet18", pooling="avg", num_parts=2, part_pooling="gap", seed=0)
    norms = [layer for layer in embedder.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(layer, GroupBatchNorm1d | GroupBatchNorm2d) for layer in norms)


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = small(seed=7).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    second, other = small(seed=7).state_dict(), small(seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["part_classifier.weight"], other["part_classifier.weight"])
    assert first["part_classifier.weight"].std().item() == pytest.approx(0.01, rel=0.05)
    assert not first["part_classifier.bias"].any()


def test_the_trunk_does_not_depend_on_the_heads():
    without = small(num_parts=0)
    for others in (small(num_parts=4), small(num_parts=0, num_stripes=3)):
        for name, value in without.state_dict().items():
            assert torch.equal(others.state_dict()[name], value), name


def test_two_equal_passes_give_equal_bits():
    outcomes = []
    for _ in range(2):
        embedder = small(pooling="gem").train()
        features = embedder(images())
        features.features_BSD[:, :, 0].sum().backward()
        outcomes.append([features.features_BSD, take_statistics(embedder), *(p.grad for p in embedder.parameters())])
    assert all(
        first is second if first is None else torch.equal(first, second)
        for first, second in zip(*outcomes, strict=True)
    )


def test_heads_compute_in_float32_under_autocast():
    embedder = small(pooling="gem").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = embedder(images())
    assert {tensor.dtype for tensor in features} == {torch.float32}
    torch.testing.assert_close(features.features_BSD.norm(dim=2), torch.ones(4, 5))
    assert take_statistics(embedder).dtype == torch.float32


def test_memory_format_of_the_images_changes_nothing():
    embedder = small().eval()
    batch = images()
    expected = embedder(batch).features_BSD
    assert torch.equal(embedder(batch.contiguous(memory_format=torch.channels_last)).features_BSD, expected)


def test_senseless_settings_are_refused():
    with pytest.raises(
        ValueError, match=r"model\.backbone must be one of small, resnet18, .*osnet_x1_0, .* or timm:NAME; got 'vit'"
    ):
        build_embedder(backbone="vit", pooling="avg", num_parts=0, part_pooling="gap", seed=0)
    with pytest.raises(ValueError, match=r"model\.part_pooling must be one of gap, masked; got 'mean'"):
        small(part_pooling="mean")
    with pytest.raises(ValueError, match=r"must be 0 .* or at least 2 with the background; got 1"):
        Embedder(SmallNet(seed=0), pooling="avg", num_parts=1, part_pooling="gap", seed=0)
