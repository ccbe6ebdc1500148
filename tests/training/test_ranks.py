"""Ranks: alone, and two processes that gather in rank order."""

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from reidray.training.ranks import OneProcess, ProcessGroup


def rows(rank, count, dtype=torch.float32):
    return (100 * rank + torch.arange(count * 3).reshape(count, 3)).to(dtype)


def first_given(rank):
    """What a rank has where rank 0's is wanted."""
    return {
        "floats": rows(rank, 3),
        "integers": rows(rank, 2, torch.int64),
        "transposed": rows(rank, 3).T,
        "number": torch.tensor(7.5 + rank),
        "nothing": torch.empty(0, 4),
    }


def spoken(rank, folder):
    """What a rank finds out from the others; run in a process of its own."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(minutes=10))
    ranks = ProcessGroup()
    found = {"rank": ranks.rank, "size": ranks.size}
    for counts in ((2, 2), (3, 1), (1, 4), (0, 2)):
        found[counts] = ranks.gather_rows(rows(rank, counts[rank]), counts)
    found["integers"] = ranks.gather_rows(rows(rank, 2, torch.int64), [2, 2])
    found["transposed"] = ranks.gather_rows(rows(rank, 3).T, [3, 3])
    found["vectors"] = ranks.gather_rows(rows(rank, 2 - rank)[:, 0], [2, 1])
    for counts in ((2, 2), (3, 1), (0, 2)):
        found["for", counts] = ranks.exchange_rows(rows(rank, sum(counts)), counts)
    found["values"] = ranks.gather({"rank": rank})
    found["word"] = ranks.broadcast(f"from {rank}" if rank == 0 else None)
    for name, given in first_given(rank).items():
        before = given.clone()
        found["from first", name] = ranks.from_first(given)
        found["left alone", name] = torch.equal(given, before)
    ranks.barrier()
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(spoken, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_one_process_finds_what_it_gives():
    ranks, given = OneProcess(), rows(0, 4)
    assert (ranks.rank, ranks.size) == (0, 1)
    assert ranks.gather_rows(given, [4]) is given
    assert torch.equal(ranks.exchange_rows(given, [4]), given.unsqueeze(0))
    assert ranks.gather("word") == ["word"]
    assert ranks.broadcast("word") == "word"
    assert ranks.from_first(given) is given
    ranks.barrier()


def test_every_rank_knows_its_place(pair):
    assert [(found["rank"], found["size"]) for found in pair] == [(0, 2), (1, 2)]


@pytest.mark.parametrize("counts", [(2, 2), (3, 1), (1, 4), (0, 2)])
def test_rows_come_in_rank_order_however_many_each_has(pair, counts):
    expected = torch.cat([rows(0, counts[0]), rows(1, counts[1])])
    for found in pair:
        assert torch.equal(found[counts], expected)


@pytest.mark.parametrize("counts", [(2, 2), (3, 1), (0, 2)])
def test_each_rank_gets_what_all_have_for_it(pair, counts):
    total, first = sum(counts), counts[0]
    for found, own in zip(pair, (slice(0, first), slice(first, total)), strict=True):
        expected = torch.stack([rows(0, total)[own], rows(1, total)[own]])
        assert torch.equal(found["for", counts], expected)


def test_rows_keep_their_type_and_shape(pair):
    for found in pair:
        assert torch.equal(found["integers"], torch.cat([rows(0, 2), rows(1, 2)]).long())
        assert found["integers"].dtype == torch.int64
        assert torch.equal(found["transposed"], torch.cat([rows(0, 3).T, rows(1, 3).T]))
        assert found["vectors"].tolist() == [0, 3, 100]


def test_values_come_in_rank_order_and_words_from_rank_0(pair):
    for found in pair:
        assert found["values"] == [{"rank": 0}, {"rank": 1}]
        assert found["word"] == "from 0"


@pytest.mark.parametrize("name", first_given(0))
def test_the_first_ranks_tensor_is_on_every_rank_and_what_was_given_is_left_alone(pair, name):
    expected = first_given(0)[name]
    for found in pair:
        assert torch.equal(found["from first", name], expected)
        assert found["from first", name].dtype == expected.dtype
        assert found["from first", name].shape == expected.shape
        assert found["left alone", name]
