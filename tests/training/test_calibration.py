"""New necks begin with the statistics of the training images, whoever adds them up."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reidray.config import Settings
from reidray.features import build_embedder
from reidray.spans import OFF
from reidray.training.calibration import calibrate, necks_to_calibrate
from reidray.training.images import as_input

# N = images, D = width of a neck

SIZES = [5, 9, 2, 7]  # images of the shards
PIXELS = np.random.default_rng(0).integers(0, 256, (sum(SIZES), 48, 24, 3), np.uint8)
FIRSTS = np.cumsum([0, *SIZES])


class Rank:
    """One of several in threads of this process."""

    def __init__(self, rank, size, barrier, said):
        self.rank, self.size = rank, size
        self._barrier, self._said = barrier, said

    def gather(self, value):
        self._said[self.rank] = value
        self._barrier.wait()
        return [self._said[rank] for rank in range(self.size)]


def network():
    return build_embedder(backbone="small", pooling="avg", num_parts=3, part_pooling="gap", seed=0)


def context(ranks, own):
    split = SimpleNamespace(
        source=SimpleNamespace(count=len(PIXELS)),
        unit="images",
        shard=lambda number: PIXELS[FIRSTS[number] : FIRSTS[number + 1]],
    )
    return SimpleNamespace(
        settings=Settings(train={"extract_batch": 4}),
        ranks=ranks,
        device=torch.device("cpu"),
        spans=OFF,
        split=lambda _: split,
        own_shards=lambda _: own,
        tell=lambda **event: None,
    )


def calibrated(shares, names=("necks.0", "necks.1", "necks.2", "necks.3")):
    """The state of each rank's network; `shares` are the shards of each rank."""
    barrier, said = threading.Barrier(len(shares)), {}
    models = [network() for _ in shares]
    threads = [
        threading.Thread(target=calibrate, args=(context(Rank(rank, len(shares), barrier, said), own), model, names))
        for rank, (own, model) in enumerate(zip(shares, models, strict=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [model.state_dict() for model in models]


def met_by_necks():
    """What each neck meets in all images, in evaluation mode: [N, D]."""
    model, met = network().eval(), {}
    for number, neck in enumerate(model.necks):
        neck.register_forward_pre_hook(lambda _, given, number=number: met.update({number: given[0].detach()}))
    with torch.no_grad():
        model(as_input(PIXELS, torch.device("cpu")))
    return met


def test_running_statistics_become_those_of_the_training_images():
    (found,) = calibrated([[0, 1, 2, 3]])
    for number, rows_ND in met_by_necks().items():
        torch.testing.assert_close(found[f"necks.{number}.running_mean"], rows_ND.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[f"necks.{number}.running_var"], rows_ND.var(0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("shares", [[[0, 1], [2, 3]], [[3, 0], [2, 1]], [[2], [0, 3], [1]]])
def test_any_number_of_workers_gives_the_same_bits(shares):
    (alone,) = calibrated([[0, 1, 2, 3]])
    for found in calibrated(shares):
        assert all(torch.equal(tensor, found[name]) for name, tensor in alone.items())


def test_nothing_else_changes():
    before, (found,) = network().state_dict(), calibrated([[0, 1, 2, 3]], names=["necks.2"])
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, found[name])]
    assert changed == ["necks.2.running_mean", "necks.2.running_var"]


def test_strangers_are_no_longer_alike():
    model = network().eval()

    def cosine():
        with torch.no_grad():
            features_ND = model(as_input(PIXELS, torch.device("cpu"))).features_BSD[:, 1]
        between = features_ND @ features_ND.T
        return float(between[~torch.eye(len(PIXELS), dtype=torch.bool)].mean())

    before = cosine()
    model.load_state_dict(calibrated([[0, 1, 2, 3]])[0])
    assert before > 0.9
    assert abs(cosine()) < 0.2


def test_which_necks_are_new():
    model, missing = network(), ["necks.1.running_mean", "necks.1.weight", "part_classifier.weight"]
    everything = ["necks.0", "necks.1", "necks.2", "necks.3"]
    assert necks_to_calibrate(model, "new", missing) == [["necks.1"]]
    assert necks_to_calibrate(model, "new", list(model.state_dict())) == [everything]
    assert necks_to_calibrate(model, "all", []) == [everything]
    assert necks_to_calibrate(model, "none", missing) == []
