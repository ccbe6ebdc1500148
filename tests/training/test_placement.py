"""Where the replica lies: chosen by size, loaded row by row, compared with the bank in the end."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reidray.bank import BankShard, InProcess, MemoryBank
from reidray.config import Settings
from reidray.spans import OFF
from reidray.training.placement import compare_with_bank, load_replica, placement
from reidray.training.ranks import OneProcess
from reidray.training.replica import Replicated, Sharded

# C = clusters, S = spaces, D = feature width

SHAPE = (1000, 5, 250)  # 5 MB
HEADS = {"part_identity_weight": 0.5}


def settings(replica="auto", replica_mb=2048.0, **scwm):
    return Settings(run={"replica": replica, "replica_mb": replica_mb}, scwm=scwm)


def centroids():
    return np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)


def context(ranks, **run):
    """A worker's, with a bank of three shards; `told` are its events."""
    bank = MemoryBank([InProcess(BankShard()) for _ in range(3)], {})
    bank.put_centroids(4, centroids())
    told = []
    return SimpleNamespace(
        settings=settings(**run),
        ranks=ranks,
        bank=bank,
        device=torch.device("cpu"),
        placement="",
        spans=OFF,
        told=told,
        tell=lambda **event: told.append(event["text"]),
    )


@pytest.mark.parametrize(
    ("run", "ranks", "expected"),
    [
        ({}, 4, "replicated"),
        ({"replica_mb": 5.0}, 4, "replicated"),  # all of it fits exactly
        ({"replica_mb": 4.9}, 4, "sharded"),
        ({"replica_mb": 4.9}, 1, "replicated"),  # nobody to share with
        ({"replica_mb": 4.9, **HEADS}, 4, "replicated"),
        ({"replica": "sharded"}, 4, "sharded"),
        ({"replica": "sharded"}, 1, "sharded"),
        ({"replica": "replicated", "replica_mb": 4.9}, 4, "replicated"),
    ],
)
def test_auto_shares_out_what_does_not_fit_and_what_is_asked_for_is_done(run, ranks, expected):
    where, why = placement(settings(**run), SHAPE, ranks)
    assert where == expected
    assert "1000 x 5 x 250 numbers are 5.0 MB" in why


def test_a_placement_is_told_once_until_it_changes():
    one = context(OneProcess())
    for _ in range(2):
        assert isinstance(load_replica(one, 4), Replicated)
    assert len(one.told) == 1
    assert one.told[0].startswith("replica of the centroids: replicated")
    one.settings = settings(replica="sharded")
    for _ in range(2):
        assert isinstance(load_replica(one, 4), Sharded)
    assert len(one.told) == 2
    assert one.told[1].startswith("replica of the centroids: sharded")


@pytest.mark.parametrize("replica", ["replicated", "sharded"])
def test_a_replica_is_the_banks_and_a_difference_is_found(replica):
    one = context(OneProcess(), replica=replica)
    held = load_replica(one, 4)
    assert np.array_equal(held.held()[1].numpy(), centroids())
    compare_with_bank(one, held, 4)
    held.write(torch.tensor([5]), torch.zeros(1, 2, 3))
    assert np.array_equal(one.bank.centroids(4), centroids())  # rows of the bank are the bank's
    with pytest.raises(RuntimeError, match="epoch 4: the memory bank and the replica of the centroids differ"):
        compare_with_bank(one, held, 4)


def compared(ranks):
    """What a rank of a process group reads and says, where rank 0 has a wrong row in the end; run by test_replica.py.

    Each rank has a bank of its own, all with the same centroids.
    """
    one, asked, said = context(ranks, replica="sharded"), [], []
    take = one.bank.take_centroids
    one.bank.take_centroids = lambda version, clusters: asked.extend(clusters.tolist()) or take(version, clusters)
    one.bank.centroids = None  # nobody may ask for all
    replica = load_replica(one, 4)
    rows_RSD = replica.held()[1].clone()
    compare_with_bank(one, replica, 4)
    if ranks.rank == 0:
        replica.write(torch.tensor([0]), torch.zeros(1, 2, 3))
    try:
        compare_with_bank(one, replica, 4)
    except RuntimeError as error:
        said.append(str(error))
    return {"rows": rows_RSD, "asked": asked, "said": said}
