"""Where the replica lies: chosen by size, loaded row by row, compared with the bank in the end."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reidray.bank import BankShard, InProcess, MemoryBank
from reidray.config import Settings
from reidray.spans import OFF
from reidray.training.placement import compare_with_bank, load_replicas, placement
from reidray.training.ranks import OneProcess
from reidray.training.replica import Replicated, Sharded

# R = rows of a memory, S = vectors, D = their width

SHAPE = (1000, 5, 250)  # 5 MB
HEADS = {"part_identity_weight": 0.5}


def settings(replica="auto", replica_mb=2048.0, **scwm):
    return Settings(run={"replica": replica, "replica_mb": replica_mb}, scwm=scwm)


def centroids():
    return np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)


def proxies():
    """Another memory, of another width, with another number of rows."""
    return np.random.default_rng(1).normal(size=(5, 1, 4)).astype(np.float32)


BOTH = ("features", "proxies")


def context(ranks, **run):
    """A worker's, with a bank of three shards; `told` are its events."""
    bank = MemoryBank([InProcess(BankShard()) for _ in range(3)], {})
    bank.put_memory("features", 4, centroids())
    bank.put_memory("proxies", 4, proxies())
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
    where, why = placement(settings(**run), [SHAPE], ranks)
    assert where == expected
    assert "1000 x 5 x 250 numbers are 5.0 MB" in why


def test_all_memories_count_together_and_are_placed_alike():
    shapes = [(1000, 5, 250), (100, 1, 2500)]  # 5 MB and 1 MB
    for budget, expected in ((6.0, "replicated"), (5.9, "sharded")):
        where, why = placement(settings(replica_mb=budget), shapes, 2)
        assert where == expected
        assert "1000 x 5 x 250 and 100 x 1 x 2500 numbers are 6.0 MB" in why


def test_a_placement_is_told_once_until_it_changes():
    one = context(OneProcess())
    for _ in range(2):
        assert all(isinstance(replica, Replicated) for replica in load_replicas(one, BOTH, 4).values())
    assert len(one.told) == 1
    assert one.told[0].startswith("replica of the memories: replicated")
    one.settings = settings(replica="sharded")
    for _ in range(2):
        assert all(isinstance(replica, Sharded) for replica in load_replicas(one, BOTH, 4).values())
    assert len(one.told) == 2
    assert one.told[1].startswith("replica of the memories: sharded")


def test_a_method_without_memories_asks_the_bank_for_nothing():
    one = context(OneProcess())
    one.bank = None
    assert load_replicas(one, (), 4) == {}
    assert one.told == []
    compare_with_bank(context(OneProcess()), {}, 4)


@pytest.mark.parametrize("replica", ["replicated", "sharded"])
@pytest.mark.parametrize("differs", BOTH)
def test_replicas_are_the_banks_and_a_difference_is_found(replica, differs):
    one = context(OneProcess(), replica=replica)
    held = load_replicas(one, BOTH, 4)
    assert list(held) == list(BOTH)
    for name, expected in (("features", centroids()), ("proxies", proxies())):
        assert np.array_equal(held[name].held()[1].numpy(), expected)
    compare_with_bank(one, held, 4)
    held[differs].write(torch.tensor([4]), torch.zeros(1, *held[differs].held()[1].shape[1:]))
    assert np.array_equal(one.bank.memory("features", 4), centroids())  # rows of the bank are the bank's
    assert np.array_equal(one.bank.memory("proxies", 4), proxies())
    with pytest.raises(RuntimeError, match="epoch 4: the memory bank and the replica of the memories differ"):
        compare_with_bank(one, held, 4)


def compared(ranks):
    """What a rank of a process group reads and says, where rank 0 has a wrong row in the end; run by test_replica.py.

    Each rank has a bank of its own, all with the same memories.
    """
    one, asked, said = context(ranks, replica="sharded"), {name: [] for name in BOTH}, []
    take = one.bank.take_memory

    def noted(name, version, places):
        asked[name].extend(places.tolist())
        return take(name, version, places)

    one.bank.take_memory = noted
    one.bank.memory = None  # nobody may ask for all
    replicas = load_replicas(one, BOTH, 4)
    rows = {name: replica.held()[1].clone() for name, replica in replicas.items()}
    compare_with_bank(one, replicas, 4)
    if ranks.rank == 0:
        replicas["proxies"].write(torch.tensor([0]), torch.zeros(1, 1, 4))
    try:
        compare_with_bank(one, replicas, 4)
    except RuntimeError as error:
        said.append(str(error))
    return {"rows": rows, "asked": asked, "said": said}
