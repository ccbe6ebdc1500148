"""Where a run stands: what is kept of it, and how it goes on from there.

A run stands between two updates. `under_way` in its history says what is known of an epoch that is not finished: the
figures of its labels and the losses so far. The bank has the rows of the same moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from reidray.methods.step import EpochPlan
from reidray.storage.checkpoints import Checkpoint, optimiser_tensors, restore_optimiser
from reidray.training.context import Context
from reidray.training.history import History, UnderWay
from reidray.training.state import RunState

_OF_AN_END = ("epoch", "seconds")  # figures that an epoch gets when it is over


def agreed_checkpoint(context: Context) -> Checkpoint | None:
    """The newest whole checkpoint, the same on every rank; None for a new run.

    Raises:
      ValueError: there are checkpoints and none of them is whole.
    """
    newest: Checkpoint | None = None
    if context.ranks.rank == 0:
        newest, passed_over = context.checkpoints.newest()
        if passed_over and newest is None:
            raise ValueError(
                f"no checkpoint in {context.run_dir} is whole ({'; '.join(passed_over)}): restore one from a copy, or "
                "start a new run"
            )
        for sentence in passed_over:
            context.tell(kind="message", text=f"{sentence}; taking the checkpoint before it")
    folder = context.ranks.broadcast(None if newest is None else newest.folder)
    if folder is None or newest is not None:
        return newest
    return context.checkpoints.load(folder)


def take_up(context: Context, checkpoint: Checkpoint | None, state: RunState, plans: Sequence[EpochPlan]) -> int:
    """Put everything back to a checkpoint, or to the beginning; the first epoch to do or finish.

    Args:
      plans: of the whole run.

    Raises:
      ValueError: the checkpoint is of other images, or has more epochs than the run is to have.
    """
    epochs = len(plans)
    digest = context.split("train").source.digest
    history = None if checkpoint is None else History.from_tree(checkpoint.history)
    if history is not None and history.images != digest:
        raise ValueError(
            f"the images in {context.packed} are not those that the run in {context.run_dir} was started with: give "
            "data.packed=DIR of the old ones, or start a new run"
        )
    if checkpoint is not None and checkpoint.epoch >= epochs:
        raise ValueError(
            f"the run in {context.run_dir} has {checkpoint.epoch + 1} epochs already, more than the {epochs} that the "
            "settings ask for: raise train.epochs"
        )
    generation = 0
    if context.ranks.rank == 0:
        version = -1 if history is None else history.labelled
        generation = context.bank.restore(version, checkpoint.bank if checkpoint else [])
    context.bank.generation = context.ranks.broadcast(generation)
    if checkpoint is None or history is None:
        context.tell(kind="started", epochs=epochs)
        return 0
    state.history = history
    state.model.load_state_dict(checkpoint.model)
    if state.modules is not None:
        state.modules.load_state_dict(checkpoint.modules)
    if checkpoint.mean:
        state.begin_mean()
        state.network.load_state_dict(checkpoint.mean)
    restore_optimiser(state.optimiser, checkpoint.optimiser)
    state.selected = checkpoint.selected
    if state.method.settings.run.keep_best == "none" and not state.method.selects_network:
        history.selected, state.selected = None, {}  # the run is no longer to choose
    state.kept_heads = checkpoint.heads, checkpoint.heads_optimiser
    torch.set_rng_state(checkpoint.rng[min(context.ranks.rank, len(checkpoint.rng) - 1)])
    if checkpoint.step is not None:
        why = f"the checkpoint after {checkpoint.step} updates of epoch {checkpoint.epoch + 1}"
        context.tell(kind="resumed", epoch=checkpoint.epoch, epochs=epochs, why=why, workers=context.ranks.size)
        return checkpoint.epoch
    first = checkpoint.epoch + 1
    if plans[checkpoint.epoch].trains and _only_labelled(history, checkpoint.epoch):
        figures = history.epochs.pop()  # the last epoch of a run with run.keep_best that is given more
        history.under_way = UnderWay({name: value for name, value in figures.items() if name not in _OF_AN_END})
        first = checkpoint.epoch
    if first < epochs:
        for when in ("after", "last"):
            history.evaluations.pop(when, None)  # a finished run that is given more epochs
        why = f"the checkpoint of epoch {checkpoint.epoch + 1}"
        context.tell(kind="resumed", epoch=first, epochs=epochs, why=why, workers=context.ranks.size)
    else:
        context.tell(kind="message", text=f"all {epochs} epochs of the run are done already")
    return first


def keep(context: Context, state: RunState, plans: Sequence[EpochPlan], epoch: int, *, step: int | None = None) -> None:
    """A checkpoint of the run as it stands after an epoch, or after `step` updates of one; all ranks call.

    Files are written while training goes on, those of the memory bank by its shards. Figures of an earlier network
    come first, whose tensors this checkpoint does not have.
    """
    if step is not None or state.history.to_evaluate != epoch:
        settle_evaluation(context, state.history)
    with context.spans("workers"):
        rng = context.ranks.gather(torch.get_rng_state())
    if context.ranks.rank == 0:
        # A finished run may be given more epochs, of which nobody knows yet whether they label anew; an epoch that only
        # labelled then trains.
        unknown = epoch + 1 == len(plans) and not all(plan.relabel and plan.trains for plan in plans)
        goes_on = step is not None or unknown or (epoch + 1 < len(plans) and not plans[epoch + 1].relabel)
        with context.spans("keep"):
            _save(context, state, epoch, step, goes_on=goes_on, rng=rng)


def _only_labelled(history: History, epoch: int) -> bool:
    """Whether an epoch has ended without an update."""
    last = history.epochs[-1] if history.epochs else None
    return last is not None and last["epoch"] == epoch and "loss_total" not in last


def settle_evaluation(context: Context, history: History) -> None:
    """Wait for the figures of the epoch that is being evaluated beside training, if there is one; all ranks call."""
    epoch, history.to_evaluate = history.to_evaluate, None
    if epoch is not None and context.ranks.rank == 0:
        assert context.background is not None
        with context.spans("evaluate"):
            figures = context.background.figures()
        context.tell(kind="evaluation", when="epoch", epoch=epoch, **figures)


def _save(
    context: Context, state: RunState, epoch: int, step: int | None, *, goes_on: bool, rng: list[torch.Tensor]
) -> None:
    """goes_on: the labels, memories and heads in use are needed after this checkpoint."""
    method = state.method
    heads, moments = state.saved_heads()

    def write(folder: Path) -> dict[str, str]:
        files = snapshot.write(folder)
        context.filed()
        return files

    of_images = context.split("train").image_tables
    tables = [f"train/{name}" for name in ("labels", *method.tables)] + [f"{of_images}/{name}" for name in method.maps]
    memories = method.memories if goes_on else ()
    snapshot = context.bank.mark(tables, state.history.labelled, memories=memories)
    context.checkpoints.save(
        Checkpoint(
            epoch=epoch,
            step=step,
            model=state.model.state_dict(),
            modules={} if state.modules is None else state.modules.state_dict(),
            optimiser=optimiser_tensors(state.optimiser),
            mean={} if state.mean is None else state.mean.state(),
            selected=state.selected,
            heads=heads if goes_on else {},
            heads_optimiser=moments if goes_on or method.keeps_moments else {},
            rng=rng,
            history=state.history.as_tree(),
            settings=context.settings.model_dump(mode="json"),
        ),
        write,
    )
