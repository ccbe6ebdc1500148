"""Batch norms take their statistics from whole images, whoever looks at which."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reidray.config import Settings
from reidray.features import build_embedder, build_embedding_network, take_statistics
from reidray.spans import OFF
from reidray.training.clean_statistics import chosen_samples, measure_statistics
from reidray.training.images import as_input

# N = images

GROUP = 4
PIXELS = np.random.default_rng(0).integers(0, 256, (30, 48, 24, 3), np.uint8)


class Rank:
    """One of several in threads of this process."""

    def __init__(self, rank, size, barrier, said):
        self.rank, self.size = rank, size
        self._barrier, self._said = barrier, said

    def gather_rows(self, rows, counts):
        assert len(rows) == counts[self.rank]
        self._said[self.rank] = rows
        self._barrier.wait()
        return torch.cat([self._said[rank] for rank in range(self.size)])


def network():
    return build_embedder(backbone="small", pooling="avg", num_parts=0, part_pooling="gap", seed=0)


def embedding_network():
    """As of BUC: what is trained has dropout."""
    return build_embedding_network(
        backbone="small", poolings=("avg",), embedding=16, dropout=0.5, non_local="none", seed=0
    )


def context(ranks, frames=0):
    def rows(indices):
        return PIXELS[indices]

    def chosen(indices_B, *, seed, epoch, step):
        return indices_B[:, None] if not frames else (2 * indices_B[:, None] + np.arange(2)) % len(PIXELS)

    split = SimpleNamespace(
        source=SimpleNamespace(count=len(PIXELS)),
        unit="tracklets" if frames else "images",
        images=SimpleNamespace(rows=rows),
        chosen=chosen,
    )
    return SimpleNamespace(
        settings=Settings(model={"bn_group_size": GROUP}),
        ranks=ranks,
        device=torch.device("cpu"),
        spans=OFF,
        split=lambda _: split,
        tell=lambda **event: None,
    )


def measured(size, samples=1000, frames=0, made=network):
    """The network of each rank."""
    barrier, said = threading.Barrier(size), {}
    models = [made() for _ in range(size)]
    threads = [
        threading.Thread(
            target=measure_statistics,
            args=(context(Rank(rank, size, barrier, said), frames), model),
            kwargs={"samples": samples, "epoch": 0},
        )
        for rank, model in enumerate(models)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return models


def test_running_statistics_are_the_means_over_groups():
    (model,) = measured(1)
    groups_GB = chosen_samples(len(PIXELS), 1000, group=GROUP, seed=0)
    assert groups_GB.shape == (7, GROUP)
    other, taken = network().train(), []
    with torch.no_grad():
        for group_B in groups_GB:
            other(as_input(PIXELS[group_B], torch.device("cpu")))
            taken.append(take_statistics(other))
    expected_T = torch.stack(taken).double().mean(0)
    layers = [layer for layer in model.modules() if getattr(layer, "running_mean", None) is not None]
    found_T = torch.cat([tensor for layer in layers for tensor in (layer.running_mean, layer.running_var)])
    torch.testing.assert_close(found_T.double(), expected_T, rtol=0, atol=1e-6)
    assert not model.training


def test_the_first_layer_has_the_mean_of_all_pixels_it_meets():
    """By hand: what stands before the first batch norm is one convolution."""
    (model,) = measured(1)
    chosen = chosen_samples(len(PIXELS), 1000, group=GROUP, seed=0).reshape(-1)
    first = next(layer for layer in model.backbone.modules() if getattr(layer, "running_mean", None) is not None)
    met = []
    handle = first.register_forward_pre_hook(lambda _, given: met.append(given[0].detach()))
    with torch.no_grad():
        model(as_input(PIXELS[chosen], torch.device("cpu")))
    handle.remove()
    torch.testing.assert_close(first.running_mean, met[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 9])
def test_any_number_of_workers_gives_the_same_bits(size):
    """Also where some have no group at all."""
    (alone,) = measured(1)
    for model in measured(size):
        for name, tensor in alone.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name]), name


def test_nothing_is_dropped():
    (model,) = measured(1, made=embedding_network)
    (plain,) = measured(1)
    layers = [
        [layer for layer in one.modules() if getattr(layer, "running_mean", None) is not None]
        for one in (model.backbone, plain.backbone)
    ]
    assert all(torch.equal(one.running_mean, other.running_mean) for one, other in zip(*layers, strict=True))
    assert not any(layer.training for layer in model.modules())
    assert all(layer.training for layer in model.train().modules())


def test_no_weight_changes_and_tracklets_are_averaged():
    before = dict(network().named_parameters())
    for frames in (0, 2):
        (model,) = measured(1, samples=12, frames=frames)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())
        assert all(tensor.isfinite().all() for tensor in model.buffers())


def test_whole_groups_of_different_images_are_drawn_alike_each_time():
    groups_GB = chosen_samples(100, 50, group=16, seed=3)
    assert groups_GB.shape == (3, 16)
    assert len(np.unique(groups_GB)) == 48
    np.testing.assert_array_equal(groups_GB, chosen_samples(100, 50, group=16, seed=3))
    assert (groups_GB != chosen_samples(100, 50, group=16, seed=4)).any()
    assert chosen_samples(5, 50, group=16, seed=3).shape == (1, 16)  # fewer images than a group: some twice
