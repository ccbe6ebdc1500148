"""The networks of BUC and IHC: pooled features, an embedding with dropout, non-local blocks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reidray.features import build_embedding_network
from reidray.features.dropout import image_keys, set_keys
from reidray.features.non_local import NonLocalBlock

# B = images, D = channels, P = cells


def network(poolings=("avg",), dropout=0.5, non_local="none", seed=0, embedding=32):
    return build_embedding_network(
        backbone="small", poolings=poolings, embedding=embedding, dropout=dropout, non_local=non_local, seed=seed
    )


def images(count=4):
    return torch.randn(count, 3, 96, 48, generator=torch.Generator().manual_seed(0))


def drawn_block(width=6):
    """A block whose output layer is not zero any more."""
    block = NonLocalBlock(width, torch.Generator().manual_seed(1), norm=False).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return block


def test_a_block_agrees_with_the_sum_over_all_cells():
    block, map_BDHW = drawn_block(), torch.randn(2, 6, 4, 3, dtype=torch.float64)
    found = block(map_BDHW)
    for image, out in zip(map_BDHW, found, strict=True):
        cells_DP = image.flatten(1)
        theta, phi, g = (
            layer.weight[:, :, 0, 0] @ cells_DP + layer.bias[:, None] for layer in (block.theta, block.phi, block.g)
        )
        for place in range(12):
            seen = sum((theta[:, place] @ phi[:, other]) * g[:, other] for other in range(12)) / 12
            expected = block.output.weight[:, :, 0, 0] @ seen + block.output.bias + cells_DP[:, place]
            torch.testing.assert_close(out.flatten(1)[:, place], expected)


def test_a_new_block_changes_nothing_and_learns_all_the_same():
    for norm in (False, True):
        block = NonLocalBlock(6, torch.Generator().manual_seed(1), norm=norm)
        map_BDHW = torch.randn(2, 6, 4, 3)
        assert torch.equal(block(map_BDHW), map_BDHW)
        block(map_BDHW).square().sum().backward()
        learning = block.norm.weight if norm else block.output.weight
        assert learning.grad.abs().max() > 0


def test_with_a_batch_norm_what_a_block_adds_does_not_grow_with_the_map():
    added = {}
    for norm in (False, True):
        block = NonLocalBlock(6, torch.Generator().manual_seed(1), norm=norm)
        nn.init.constant_(block.norm.weight if norm else block.output.weight, 0.1)
        map_BDHW = torch.randn(4, 6, 4, 3, generator=torch.Generator().manual_seed(2))
        sizes = [float((block(scale * map_BDHW) - scale * map_BDHW).detach().std()) for scale in (1.0, 10.0)]
        added[norm] = sizes[1] / sizes[0]
    assert added[False] == pytest.approx(1000, rel=1e-3)  # of the third degree
    assert added[True] == pytest.approx(1, rel=1e-2)


def test_the_order_of_the_cells_does_not_matter_to_a_block():
    block, map_BDHW = drawn_block(), torch.randn(1, 6, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(block(map_BDHW.flip(3)), block(map_BDHW).flip(3))


@pytest.mark.parametrize(("poolings", "width"), [(("avg",), 192), (("avg", "max"), 384), (("avg+max",), 192)])
def test_the_ranked_feature_is_the_pooled_one_at_unit_length(poolings, width):
    one = network(poolings).eval()
    found = one(images())
    map_BDHW = one.backbone(images())
    pooled = {
        "avg": map_BDHW.mean(dim=(2, 3)),
        "max": map_BDHW.flatten(2).max(2).values,
        "avg+max": map_BDHW.mean(dim=(2, 3)) + map_BDHW.flatten(2).max(2).values,
    }
    expected = F.normalize(torch.cat([pooled[name] for name in poolings], 1), dim=1)
    assert found.features_B1P.shape == (4, 1, width)
    torch.testing.assert_close(found.features_B1P[:, 0], expected)
    torch.testing.assert_close(found.embeddings_B1E.norm(dim=2), torch.ones(4, 1))


def test_dropout_comes_after_unit_length():
    one = network(dropout=0.5, embedding=64).train()
    set_keys(one, image_keys(0, 0, 0, 4))
    dropped = one(images()).embeddings_B1E[:, 0]
    whole = network(dropout=0.0, embedding=64).train()(images()).embeddings_B1E[:, 0]
    kept = dropped != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(dropped[kept], 2 * whole[kept], rtol=1e-4, atol=1e-5)


def test_new_non_local_blocks_leave_the_network_as_it_was():
    with_blocks, without = network(non_local="norm"), network()
    assert torch.equal(with_blocks.eval()(images()).features_B1P, without.eval()(images()).features_B1P)
    assert [block.output.out_channels for block in with_blocks.non_local.values()] == [48, 96]
    wide = build_embedding_network(
        backbone="resnet50", poolings=("avg",), embedding=8, dropout=0.0, non_local="norm", seed=0
    )
    assert [block.output.out_channels for block in wide.non_local.values()] == [512, 1024]


def test_a_seed_draws_the_same_weights_whatever_was_drawn_before():
    first = network(non_local="norm", seed=3).state_dict()
    torch.rand(5)
    second, other = network(non_local="norm", seed=3).state_dict(), network(non_local="norm", seed=4).state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    for name in ("embed.weight", "non_local.2.theta.weight", "backbone.stem.0.weight"):
        assert not torch.equal(first[name], other[name]), name


def test_batch_norms_are_over_groups():
    kinds = {
        type(layer)
        for layer in network(non_local="norm").modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    }
    assert all(kind.__name__.startswith("Group") for kind in kinds)
