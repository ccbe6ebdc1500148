"""Where a run goes on from: the same checkpoint on every rank, and all that it stands for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reidray.bank import BankShard, InProcess, MemoryBank, read_snapshot
from reidray.config import Settings
from reidray.methods.method import Method
from reidray.methods.step import EpochPlan
from reidray.spans import OFF
from reidray.storage.checkpoints import Checkpoint, CheckpointStore
from reidray.training.history import History, UnderWay
from reidray.training.ranks import OneProcess
from reidray.training.resume import agreed_checkpoint, keep, take_up
from reidray.training.state import RunState


class Rank:
    """Says what rank 0 said before."""

    def __init__(self, rank: int, said: list[Any]) -> None:
        self.rank, self._said = rank, said

    def broadcast(self, value: Any) -> Any:
        if self.rank == 0:
            self._said.append(value)
        return self._said[-1]


def agreed(folder: Path, ranks: int = 2) -> list[Checkpoint | None]:
    """What each rank takes."""
    said: list[Any] = []
    found = []
    for rank in range(ranks):
        store = CheckpointStore(folder, keep=2)
        context: Any = SimpleNamespace(ranks=Rank(rank, said), checkpoints=store, run_dir=folder)
        found.append(agreed_checkpoint(context))
        store.close()
    return found


def test_all_ranks_take_the_one_that_was_being_replaced_when_its_writer_was_killed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    store.save(
        Checkpoint(
            epoch=3,
            model={"weight": torch.arange(3.0)},
            optimiser={},
            rng=[torch.zeros(4, dtype=torch.uint8)],
            history={"epochs": []},
            settings={},
        )
    )
    store.close()
    assert [found.folder for found in agreed(tmp_path) if found] == ["epoch_0003"] * 2
    (tmp_path / "epoch_0003").rename(tmp_path / "epoch_0003.replaced")  # between two names
    found = agreed(tmp_path)
    assert all(one is not None and one.name == "epoch_0003" for one in found)
    assert all(one is not None and one.model["weight"].tolist() == [0, 1, 2] for one in found)


def test_a_new_run_has_none(tmp_path: Path) -> None:
    assert agreed(tmp_path) == [None, None]


# ---- all of it


class Told(Method):
    """A method with two memories, a table, a map, heads, and modules beside a small network."""

    memories = ("features", "proxies")
    tables = ("alphas",)
    maps = ("masks",)

    def network(self) -> Any:
        return nn.Linear(4, 2)

    def modules(self) -> nn.Module:
        return nn.Linear(2, 2)

    def heads(self, beginning: Any) -> nn.Module:
        return nn.Linear(2, 3, bias=False)

    def carried_moments(self, heads: nn.Module, moments: Any) -> Any:
        return moments

    def label(self, search: Any) -> Any:
        raise NotImplementedError

    def group_losses(self, *arguments: Any) -> Any:
        raise NotImplementedError


class Kept(Told):
    """The moments of its heads go on with the next labels."""

    keeps_moments = True


TABLES = ("labels", "alphas", "masks")


def rows(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def context_of(folder: Path, shards: int = 2, digest: str = "digest") -> Any:
    layout = [(0, 3), (3, 2)]
    told: list[dict[str, Any]] = []
    return SimpleNamespace(
        ranks=OneProcess(),
        spans=OFF,
        bank=MemoryBank([InProcess(BankShard()) for _ in range(shards)], {"train": layout}),
        checkpoints=CheckpointStore(folder, keep=9),
        settings=Settings(),
        packed="packed",
        run_dir=folder,
        filed=lambda: None,
        told=told,
        tell=lambda **event: told.append(event),
        split=lambda _: SimpleNamespace(source=SimpleNamespace(digest=digest), image_tables="train"),
    )


def began(kind: type[Told]) -> RunState:
    method = kind(Settings())
    return RunState(method, method.network(), method.modules(), History("digest"))


def trained(state: RunState) -> None:
    """An update of everything that is trained."""
    assert state.heads is not None
    assert state.modules is not None
    state.heads.layers(state.modules(state.model(torch.randn(5, 4)))).square().sum().backward()
    state.optimiser.step()
    state.heads.optimiser.step()


def under_way(context: Any, kind: type[Told] = Told) -> RunState:
    """A run in the middle of epoch 4, which goes on with the labels of epoch 3."""
    state = began(kind)
    generation = context.bank.restore(-1, [])
    assert generation == context.bank.generation
    for number, name in enumerate(TABLES):
        for block, (first, count) in enumerate(context.bank.layout("train")):
            context.bank.put(f"train/{name}", 3, block, rows(number, 5, 2)[first : first + count])
    context.bank.put_memory("features", 3, rows(10, 7, 2, 3))
    context.bank.put_memory("proxies", 3, rows(11, 4, 1, 6))
    context.bank.move_memory("proxies", 3, 8, np.array([1, 2]), rows(12, 2, 1, 6))
    context.bank.flush()
    state.history.labelled, state.history.updates = 3, 9
    state.new_heads({}, np.zeros(5, np.int64), np.zeros(5), goes_on=False)
    trained(state)
    state.history.under_way = UnderWay({"clusters": 7}, {"contrast": [1.0, 0.5]})
    return state


def plans(*relabels: bool) -> list[EpochPlan]:
    return [EpochPlan(relabel=relabel) for relabel in relabels]


def taken_up(context: Any, folder: Path, kind: type[Told] = Told, shards: int = 3) -> tuple[Any, RunState, Any, int]:
    """Another process, with another bank, and what it goes on from."""
    context.checkpoints.wait()
    other, state = context_of(folder, shards), began(kind)
    checkpoint = agreed_checkpoint(other)
    return other, state, checkpoint, take_up(other, checkpoint, state, plans(*[True] * 9))


def assert_same_tensors(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_same_tensors(found[name], value)
        elif isinstance(value, torch.Tensor):
            assert torch.equal(found[name], value), name


def test_everything_is_taken_up_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one = context_of(tmp_path)
    state = under_way(one)
    keep(one, state, plans(*[True] * 9), 4, step=2)
    drawn = torch.rand(3)
    other, found, checkpoint, first = taken_up(one, tmp_path)
    assert (first, checkpoint.step) == (4, 2)
    assert torch.equal(torch.rand(3), drawn)
    assert found.history == state.history
    assert found.modules is not None
    assert state.modules is not None
    assert_same_tensors(found.model.state_dict(), state.model.state_dict())
    assert_same_tensors(found.modules.state_dict(), state.modules.state_dict())
    assert_same_tensors(found.optimiser.state_dict()["state"], state.optimiser.state_dict()["state"])
    assert state.heads is not None
    layers, moments = state.heads.state()
    assert_same_tensors(checkpoint.heads, layers)
    assert_same_tensors(checkpoint.heads_optimiser, moments)
    for number, name in enumerate(TABLES):
        np.testing.assert_array_equal(other.bank.read(f"train/{name}", 3), rows(number, 5, 2))
    for name in ("features", "proxies"):
        np.testing.assert_array_equal(other.bank.memory(name, 3), one.bank.memory(name, 3))
    assert other.told[-1]["kind"] == "resumed"
    assert other.told[-1]["why"] == "the checkpoint after 2 updates of epoch 5"


@pytest.mark.parametrize(("epoch", "relabels", "goes_on"), [(4, True, False), (4, False, True), (8, True, False)])
def test_memories_and_heads_are_kept_after_an_epoch_only_where_the_next_one_goes_on_with_them(
    tmp_path: Path, epoch: int, relabels: bool, goes_on: bool
) -> None:
    one = context_of(tmp_path)
    state = under_way(one)
    keep(one, state, plans(*[True] * 5, relabels, *[True] * 3), epoch)
    one.checkpoints.wait()
    checkpoint = agreed_checkpoint(one)
    assert checkpoint is not None
    stored = read_snapshot(checkpoint.bank)
    memories = {f"memory/{name}/{what}" for name in ("features", "proxies") for what in ("places", "rows")}
    tables = {f"train/{name}/{block}" for name in TABLES for block in (0, 1)}
    assert set(stored) == tables | (memories if goes_on else set())
    assert bool(checkpoint.heads) is bool(checkpoint.heads_optimiser) is goes_on


@pytest.mark.parametrize("kind", [Told, Kept])
def test_moments_of_heads_go_on_with_the_next_labels_only_where_the_method_says_so(
    tmp_path: Path, kind: type[Told]
) -> None:
    one = context_of(tmp_path)
    state = under_way(one, kind)
    assert state.heads is not None
    moments = state.heads.state()[1]
    keep(one, state, plans(*[True] * 9), 4)
    _, found, checkpoint, first = taken_up(one, tmp_path, kind)
    assert first == 5
    assert checkpoint.heads == {}
    found.new_heads({}, np.zeros(5, np.int64), np.zeros(5), goes_on=False)
    state.new_heads({}, np.zeros(5, np.int64), np.zeros(5), goes_on=False)  # as the run that was not stopped has it
    assert found.heads is not None
    assert state.heads is not None
    assert_same_tensors(found.heads.state()[1], state.heads.state()[1])
    assert_same_tensors(found.heads.state()[1], moments if kind is Kept else {})


@pytest.mark.parametrize("kind", [Told, Kept])
def test_a_checkpoint_that_is_written_again_before_there_are_heads_keeps_those_of_the_one_before(
    tmp_path: Path, kind: type[Told]
) -> None:
    """As after the last epoch, where a run goes on with its last evaluation."""
    one = context_of(tmp_path)
    keep(one, under_way(one, kind), plans(*[True] * 4, False), 4)
    other, state, before, _ = taken_up(one, tmp_path, kind)
    assert state.heads is None
    keep(other, state, plans(*[True] * 4, False), 4)
    other.checkpoints.wait()
    after = agreed_checkpoint(context_of(tmp_path))
    assert after is not None
    assert set(before.heads) == {"weight"}
    assert before.heads_optimiser
    assert_same_tensors(after.heads, before.heads)
    assert_same_tensors(after.heads_optimiser, before.heads_optimiser)


def test_heads_that_go_on_begin_as_the_checkpoint_has_them(tmp_path: Path) -> None:
    one = context_of(tmp_path)
    keep(one, under_way(one), plans(*[True] * 5, False), 4)
    _, state, before, _ = taken_up(one, tmp_path)
    state.new_heads({}, np.zeros(5, np.int64), np.zeros(5), goes_on=True)
    layers, moments = state.saved_heads()
    assert_same_tensors(layers, before.heads)
    assert_same_tensors(moments, before.heads_optimiser)


def test_new_heads_are_drawn_alike_whatever_was_drawn_before(tmp_path: Path) -> None:
    """So every rank has the same ones."""
    drawn = []
    for seed, labelled in ((0, 3), (1, 3), (0, 4)):
        torch.manual_seed(seed)
        state = began(Told)
        state.history.labelled = labelled
        state.new_heads({}, np.zeros(5, np.int64), np.zeros(5), goes_on=False)
        drawn.append(state.saved_heads()[0]["weight"])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_new_run_begins_with_an_empty_bank_and_says_so(tmp_path: Path) -> None:
    one = context_of(tmp_path)
    under_way(one)
    generation = one.bank.generation
    state = began(Told)
    assert take_up(one, None, state, plans(*[True] * 3)) == 0
    assert one.bank.generation > generation
    assert one.bank.blocks("train/labels", 3) == set()
    assert one.told == [{"kind": "started", "epochs": 3}]


def test_other_images_and_fewer_epochs_are_refused_before_anything_is_changed(tmp_path: Path) -> None:
    one = context_of(tmp_path)
    keep(one, under_way(one), plans(*[True] * 9), 4)
    one.checkpoints.wait()
    checkpoint = agreed_checkpoint(one)
    before = one.bank.generation
    with pytest.raises(ValueError, match=r"has 5 epochs already, more than the 4 that the settings ask for"):
        take_up(one, checkpoint, began(Told), plans(*[True] * 4))
    one.split = context_of(tmp_path, digest="another").split
    with pytest.raises(ValueError, match="the images in packed are not those that the run in"):
        take_up(one, checkpoint, began(Told), plans(*[True] * 9))
    assert one.bank.generation == before
