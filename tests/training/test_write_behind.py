"""Rows on their way to the bank: few messages, the newest of each row, nothing left behind."""

from __future__ import annotations

import numpy as np

from reidray.bank import BankShard, InProcess, MemoryBank
from reidray.training.write_behind import WriteBehind


class Counted:
    """A shard, and memory and step of its calls of move_memory."""

    def __init__(self) -> None:
        self._shard = InProcess(BankShard())
        self.steps: list[tuple[str, int]] = []

    def submit(self, method, *arguments):
        if method == "move_memory":
            self.steps.append((arguments[0], arguments[2]))
        return self._shard.submit(method, *arguments)


def test_the_bank_has_every_step_after_half_the_messages():
    members = [Counted(), Counted()]
    bank = MemoryBank(members, {"train": [(0, 4)]})
    dice = np.random.default_rng(0)
    held_RSD = dice.standard_normal((9, 2, 3)).astype(np.float32)
    bank.put_memory("features", 3, held_RSD)
    behind = WriteBehind(bank, 3)
    for step in range(7):
        moved = np.concatenate([[0, 1], dice.choice(np.arange(2, 9), 3, replace=False)])  # both shards in every step
        held_RSD[moved] = dice.standard_normal((5, 2, 3))
        behind.add(step, {"features": (moved, held_RSD[moved])})
    assert [member.steps for member in members] == [[("features", step) for step in (1, 3, 5)]] * 2
    assert not np.array_equal(bank.memory("features", 3), held_RSD)
    behind.send()
    behind.send()  # nothing left
    assert [member.steps for member in members] == [[("features", step) for step in (1, 3, 5, 6)]] * 2
    np.testing.assert_array_equal(bank.memory("features", 3), held_RSD)


def test_of_a_row_that_moved_twice_the_later_row_is_sent():
    bank = MemoryBank([InProcess(BankShard())], {"train": [(0, 4)]})
    bank.put_memory("features", 0, np.zeros((3, 1, 1), np.float32))
    behind = WriteBehind(bank, 0)
    behind.add(0, {"features": (np.array([2, 1]), np.array([[[1.0]], [[2.0]]], np.float32))})
    behind.add(1, {"features": (np.array([1, 0]), np.array([[[3.0]], [[4.0]]], np.float32))})
    assert bank.memory("features", 0).ravel().tolist() == [4.0, 3.0, 1.0]


def memories(*, seed, features=6, cameras=9):
    """Rows of two memories of different widths."""
    dice = np.random.default_rng(seed)
    return {
        "features": dice.standard_normal((features, 2, 3)).astype(np.float32),
        "cameras": dice.standard_normal((cameras, 1, 5)).astype(np.float32),
    }


def test_several_memories_move_together_each_with_its_own_rows():
    members = [Counted(), Counted()]
    bank, held, dice = MemoryBank(members, {"train": [(0, 4)]}), memories(seed=0), np.random.default_rng(1)
    for name, rows_RSD in held.items():
        bank.put_memory(name, 0, rows_RSD)
    behind = WriteBehind(bank, 0)
    for step in range(5):
        moved = {}
        for name, rows_RSD in held.items():
            if name == "features" or step != 3:  # a step may leave a memory alone
                places = np.concatenate([[0, 1], dice.choice(np.arange(2, len(rows_RSD)), 2, replace=False)])
                rows_RSD[places] = memories(seed=10 + step)[name][places]
                moved[name] = places, rows_RSD[places]
        behind.add(step, moved)
    behind.send()
    for name, rows_RSD in held.items():
        np.testing.assert_array_equal(bank.memory(name, 0), rows_RSD)
    expected = [(name, step) for step in (1, 3, 4) for name in ("features", "cameras")]
    assert [member.steps for member in members] == [expected] * 2


def test_steps_that_move_nothing_send_nothing():
    members = [Counted()]
    behind = WriteBehind(MemoryBank(members, {"train": [(0, 4)]}), 0)
    for step in range(5):
        behind.add(step, {})
    behind.send()
    assert members[0].steps == []


def test_steps_go_on_where_the_epoch_before_with_the_same_labels_ended():
    members = [Counted()]
    bank = MemoryBank(members, {"train": [(0, 4)]})
    bank.put_memory("features", 2, np.zeros((3, 1, 1), np.float32))
    moved = {"features": (np.array([1]), np.ones((1, 1, 1), np.float32))}
    for before in (0, 3):
        behind = WriteBehind(bank, 2, before)
        for step in range(3):
            behind.add(step, moved)
        behind.send()
    assert [step for _, step in members[0].steps] == [1, 2, 4, 5]
