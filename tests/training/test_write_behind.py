"""Rows on their way to the bank: few messages, the newest row of each cluster, nothing left behind."""

from __future__ import annotations

import numpy as np

from reidray.bank import BankShard, InProcess, MemoryBank
from reidray.training.write_behind import WriteBehind


class Counted:
    """A shard, and the steps of its calls of update_centroids."""

    def __init__(self) -> None:
        self._shard = InProcess(BankShard())
        self.steps: list[int] = []

    def submit(self, method, *arguments):
        if method == "update_centroids":
            self.steps.append(arguments[1])
        return self._shard.submit(method, *arguments)


def test_the_bank_has_every_step_after_half_the_messages():
    members = [Counted(), Counted()]
    bank = MemoryBank(members, {"train": [(0, 4)]})
    dice = np.random.default_rng(0)
    held_CSD = dice.standard_normal((9, 2, 3)).astype(np.float32)
    bank.put_centroids(3, held_CSD)
    behind = WriteBehind(bank, 3)
    for step in range(7):
        moved = np.concatenate([[0, 1], dice.choice(np.arange(2, 9), 3, replace=False)])  # both shards in every step
        held_CSD[moved] = dice.standard_normal((5, 2, 3))
        behind.add(step, moved, held_CSD[moved])
    assert [member.steps for member in members] == [[1, 3, 5]] * 2
    assert not np.array_equal(bank.centroids(3), held_CSD)
    behind.send()
    behind.send()  # nothing left
    assert [member.steps for member in members] == [[1, 3, 5, 6]] * 2
    np.testing.assert_array_equal(bank.centroids(3), held_CSD)


def test_of_a_cluster_that_moved_twice_the_later_row_is_sent():
    bank = MemoryBank([InProcess(BankShard())], {"train": [(0, 4)]})
    bank.put_centroids(0, np.zeros((3, 1, 1), np.float32))
    behind = WriteBehind(bank, 0)
    behind.add(0, np.array([2, 1]), np.array([[[1.0]], [[2.0]]], np.float32))
    behind.add(1, np.array([1, 0]), np.array([[[3.0]], [[4.0]]], np.float32))
    assert bank.centroids(0).ravel().tolist() == [4.0, 3.0, 1.0]
