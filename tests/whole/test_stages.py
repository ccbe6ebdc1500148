"""A method with stages: epochs that keep their labels go on where the last one ended, also across interruptions."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reidray.launch.launch import launch
from reidray.losses import identity_loss, refined_part_targets
from reidray.methods import METHODS, Entry
from reidray.methods.scwm import IdentityHeads
from reidray.methods.step import EpochPlan
from reidray.storage.checkpoints import CheckpointStore
from reidray.training.batches import Group, Step
from reidray.training.learner import Learner, Update
from tests.training.test_batch_losses import Mixing
from tests.whole.runs import assert_same_run, epochs, losses, result

STEPS = 3
PLANS = [
    EpochPlan(),
    EpochPlan(relabel=False, rate=0.5),
    EpochPlan(new_optimiser=True),
    EpochPlan(relabel=False, rate=0.1),
    EpochPlan(relabel=False, rate=0.01),
]
RATE = 1e-3


class Staged(Mixing):
    """Cluster Contrast, classifiers that begin with the labels, and layers that see the whole batch."""

    def schedule(self, num_images: int) -> list[EpochPlan]:
        return PLANS[: self.settings.train.epochs]

    def heads(self, beginning: Any) -> IdentityHeads:
        return IdentityHeads(beginning.memories["features"].all_rows())

    def group_losses(self, outputs: Any, targets: Any, memories: Any, heads: Any, epoch: int) -> dict[str, Tensor]:
        terms = super().group_losses(outputs, targets, memories, heads, epoch)
        logits_BSC = heads(outputs.necks_BSD)
        alphas_BS = torch.full(logits_BSC.shape[:2], 0.9)
        targets_BSC = refined_part_targets(targets.labels_B, alphas_BS, logits_BSC.shape[-1])
        return {**terms, "identity": identity_loss(logits_BSC, targets_BSC).mean(1)}


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch, tiny_settings: Callable[..., Any]) -> Callable[..., Any]:
    """Settings of a run of the method, which stands in the table under another's name."""
    monkeypatch.setitem(sys.modules, "reidray.methods.staged", sys.modules[__name__])
    monkeypatch.setitem(METHODS, "cluster_contrast", Entry("staged", "Staged"))

    def settings(name: str, num_epochs: int = len(PLANS), **run: Any) -> Any:
        return tiny_settings(
            name,
            method={"name": "cluster_contrast"},
            train={"epochs": num_epochs, "steps": STEPS, "learning_rate": RATE},
            evaluate={"ranked_lists": 0},
            run={"loggers": [], **run},
        )

    return settings


class Seen:
    """What each update met and left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rates: list[tuple[float, float]] = []
        self.ages: list[tuple[int, int]] = []  # updates that the moments of network and heads have behind them
        self.before: list[tuple[Tensor, Tensor]] = []  # rows of memory and heads
        self.after: list[tuple[Tensor, Tensor]] = []
        update = Learner.update

        def rows(learner: Learner) -> tuple[Tensor, Tensor]:
            heads = learner._state.heads
            assert heads is not None
            return learner.replicas["features"].held()[1].clone(), heads.layers.weight_SCD.detach().clone()

        def age(optimiser: torch.optim.Optimizer) -> int:
            return max((int(state["step"]) for state in optimiser.state_dict()["state"].values()), default=0)

        def seen(learner: Learner, step: Step, groups: list[Group]) -> Update:
            state = learner._state
            assert state.heads is not None
            pair = (state.optimiser, state.heads.optimiser)
            self.rates.append(tuple(one.param_groups[0]["lr"] for one in pair))
            self.ages.append(tuple(age(one) for one in pair))
            self.before.append(rows(learner))
            found = update(learner, step, groups)
            self.after.append(rows(learner))
            return found

        monkeypatch.setattr(Learner, "update", seen)


def test_memories_and_heads_go_on_within_a_stage_at_the_rates_of_the_plan(
    staged: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(monkeypatch)
    launch(staged("one"))
    rates = [RATE * plan.rate for plan in PLANS for _ in range(STEPS)]
    assert seen.rates == [pytest.approx((rate, rate)) for rate in rates]
    of_network = [*range(2 * STEPS), *range(3 * STEPS)]  # a fresh optimiser in the third epoch
    of_heads = [*range(2 * STEPS), *range(3 * STEPS)]  # new heads with new labels
    assert seen.ages == list(zip(of_network, of_heads, strict=True))
    for epoch in range(1, len(PLANS)):
        met, left = seen.before[epoch * STEPS], seen.after[epoch * STEPS - 1]
        for rows, earlier in zip(met, left, strict=True):
            same = rows.shape == earlier.shape and torch.equal(rows, earlier)
            assert same == (not PLANS[epoch].relabel), epoch
    for before, after in zip(seen.before, seen.after, strict=True):
        assert all(not torch.equal(rows, moved) for rows, moved in zip(before, after, strict=True))
    labelled = ["clusters" in line for line in epochs(tmp_path / "one")]
    assert labelled == [plan.relabel for plan in PLANS]
    assert result(tmp_path / "one")["clusters"] == epochs(tmp_path / "one")[2]["clusters"]


class _StoppedError(RuntimeError):
    """Stands for a machine that goes away."""


def test_a_run_that_stops_after_every_checkpoint_ends_like_one_that_never_stops(
    staged: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between epochs, and within them before the first and after the second update."""
    launch(staged("whole", checkpoint_steps=2))
    save, saved = CheckpointStore.save, []

    def stops(store: CheckpointStore, checkpoint: Any, bank: Any = None) -> None:
        save(store, checkpoint, bank)
        store.wait()
        if checkpoint.name not in saved and len(saved) < 3 * len(PLANS) - 1:
            saved.append(checkpoint.name)
            raise _StoppedError

    monkeypatch.setattr(CheckpointStore, "save", stops)
    with pytest.raises(_StoppedError):
        launch(staged("cut", checkpoint_steps=2))
    for _ in range(3 * len(PLANS) - 2):
        with pytest.raises(_StoppedError):
            launch(staged("cut", checkpoint_steps=2), resume=tmp_path / "cut")
    launch(staged("cut", checkpoint_steps=2), resume=tmp_path / "cut")
    names = [f"epoch_{epoch:04d}{step}" for epoch in range(5) for step in ("_step_000000", "_step_000002", "")]
    assert saved == names[:-1]
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_run_that_stopped_before_its_last_evaluation_and_is_given_more_epochs_goes_on_in_its_stage(
    staged: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint is then written twice, the second time by a process that never made the heads."""
    launch(staged("five"))
    save = CheckpointStore.save

    def stops(store: CheckpointStore, checkpoint: Any, bank: Any = None) -> None:
        save(store, checkpoint, bank)
        store.wait()
        if checkpoint.name == "epoch_0003":
            raise _StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", stops)
        with pytest.raises(_StoppedError):
            launch(staged("cut", 4))
    launch(staged("cut", 4), resume=tmp_path / "cut")
    launch(staged("cut", 5), resume=tmp_path / "cut")
    for what in (result, losses, epochs):
        assert what(tmp_path / "cut") == what(tmp_path / "five")


def test_a_finished_run_that_is_given_more_epochs_goes_on_in_its_stage(
    staged: Callable[..., Any], tmp_path: Path
) -> None:
    """After 2 epochs the next one labels anew, after 4 it goes on with what is there."""
    launch(staged("five"))
    launch(staged("grown", 2))
    assert result(tmp_path / "grown")["clusters"] == epochs(tmp_path / "grown")[0]["clusters"]
    for num_epochs in (4, 5):
        launch(staged("grown", num_epochs), resume=tmp_path / "grown")
    for what in (result, losses, epochs):
        assert what(tmp_path / "grown") == what(tmp_path / "five")
