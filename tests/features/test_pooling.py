import pytest
import torch

from reidray.features import POOLINGS, build_pooling
from reidray.features.pooling import GeneralizedMeanPooling


def test_poolings_of_a_map_of_four_cells_by_hand():
    map_BDHW = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert build_pooling("avg")(map_BDHW).item() == 3.0
    assert build_pooling("max")(map_BDHW).item() == 6.0
    assert build_pooling("avg+max")(map_BDHW).item() == 9.0
    assert build_pooling("gem")(map_BDHW).item() == pytest.approx(((1 + 8 + 27 + 216) / 4) ** (1 / 3), rel=1e-6)


def test_generalized_mean_lies_between_mean_and_maximum_and_grows_with_its_power():
    map_BDHW = torch.rand(3, 5, 4, 2, generator=torch.Generator().manual_seed(0)) + 0.1
    low, high = (GeneralizedMeanPooling(power=power)(map_BDHW) for power in (3.0, 9.0))
    assert (map_BDHW.mean(dim=(2, 3)) < low).all()
    assert (low < high).all()
    assert (high < map_BDHW.amax(dim=(2, 3))).all()
    torch.testing.assert_close(GeneralizedMeanPooling(power=1.0)(map_BDHW), map_BDHW.mean(dim=(2, 3)))


def test_generalized_mean_of_an_empty_map_has_finite_gradients():
    pooling = GeneralizedMeanPooling()
    map_BDHW = torch.zeros(2, 3, 4, 2, requires_grad=True)
    pooling(map_BDHW).sum().backward()
    assert torch.isfinite(map_BDHW.grad).all()
    assert torch.isfinite(pooling.p.grad).all()


def test_the_power_is_learned_or_fixed_and_in_the_state_dict_either_way():
    learnable, fixed = GeneralizedMeanPooling(), GeneralizedMeanPooling(learnable=False)
    assert [name for name, _ in learnable.named_parameters()] == ["p"]
    assert list(fixed.parameters()) == []
    assert learnable.state_dict().keys() == fixed.state_dict().keys() == {"p"}


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_do_not_see_the_order_of_cells(name):
    map_BDHW = torch.rand(2, 3, 4, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(build_pooling(name)(map_BDHW), build_pooling(name)(map_BDHW.flip(3)))


def test_unknown_names_and_powers_are_refused():
    with pytest.raises(ValueError, match=r"model\.pooling must be one of avg, max, gem, avg\+max; got 'mean'"):
        build_pooling("mean")
    with pytest.raises(ValueError, match="must be > 0; got 0"):
        GeneralizedMeanPooling(power=0.0)
