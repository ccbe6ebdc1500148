"""Where a run stands: what is kept of it, and how it goes on from there.

A run stands between two updates. `under_way` in its history says what is known of an epoch that is not finished: the
figures of its labels and the losses so far. The bank has the rows of the same moment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reidray.features import Embedder
from reidray.storage.checkpoints import Checkpoint, optimiser_tensors, restore_optimiser
from reidray.training.context import Context
from reidray.training.learner import Learner

History = dict[str, Any]


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


def take_up(
    context: Context, checkpoint: Checkpoint | None, model: Embedder, optimiser: torch.optim.Optimizer
) -> tuple[int, History]:
    """Put everything back to a checkpoint, or to the beginning; the first epoch to do or finish, and the history.

    Raises:
      ValueError: the checkpoint is of other images, or has more epochs than the run is to have.
    """
    digest, epochs = context.split("train").source.digest, context.settings.train.epochs
    if checkpoint is not None and checkpoint.history["images"] != digest:
        raise ValueError(
            f"the images in {context.packed} are not those that the run in {context.run_dir} was started with: give "
            "data.packed=DIR of the old ones, or start a new run"
        )
    if checkpoint is not None and checkpoint.epoch >= epochs:
        raise ValueError(
            f"the run in {context.run_dir} has {checkpoint.epoch + 1} epochs already: train.epochs={epochs}"
        )
    generation = 0
    if context.ranks.rank == 0:
        version = -1 if checkpoint is None else checkpoint.epoch
        generation = context.bank.restore(version, checkpoint.bank if checkpoint else [])
    context.bank.generation = context.ranks.broadcast(generation)
    if checkpoint is None:
        context.tell(kind="started")
        seconds = dict.fromkeys(("extract", "label", "train", "evaluate"), 0.0)
        return 0, {"epochs": [], "seconds": seconds, "images": digest}
    model.load_state_dict(checkpoint.model)
    restore_optimiser(optimiser, checkpoint.optimiser)
    torch.set_rng_state(checkpoint.rng[min(context.ranks.rank, len(checkpoint.rng) - 1)])
    history = checkpoint.history
    if checkpoint.step is not None:
        why = f"the checkpoint after {checkpoint.step} updates of epoch {checkpoint.epoch + 1}"
        context.tell(kind="resumed", epoch=checkpoint.epoch, why=why, workers=context.ranks.size)
        return checkpoint.epoch, history
    first = checkpoint.epoch + 1
    if first < epochs:
        history.pop("after", None)  # a finished run that is given more epochs
        why = f"the checkpoint of epoch {first}"
        context.tell(kind="resumed", epoch=first, why=why, workers=context.ranks.size)
    else:
        context.tell(kind="message", text=f"all {epochs} epochs of the run are done already")
    return first, history


def keep(
    context: Context,
    model: Embedder,
    optimiser: torch.optim.Optimizer,
    history: History,
    epoch: int,
    *,
    step: int | None = None,
    learner: Learner | None = None,
) -> None:
    """A checkpoint of the run as it stands after an epoch, or after `step` updates of one by `learner`; all ranks call.

    Files are written while training goes on, those of the memory bank by its shards. Figures of an earlier network
    come first, whose tensors this checkpoint does not have.
    """
    if step is not None or history.get("to_evaluate") != epoch:
        settle_evaluation(context, history)
    with context.spans("workers"):
        rng = context.ranks.gather(torch.get_rng_state())
    if context.ranks.rank == 0:
        with context.spans("keep"):
            _save(context, model, optimiser, history, epoch, step, learner, rng)


def settle_evaluation(context: Context, history: History) -> None:
    """Wait for the figures of the epoch that is being evaluated beside training, if there is one; all ranks call."""
    epoch = history.pop("to_evaluate", None)
    if epoch is not None and context.ranks.rank == 0:
        assert context.beside is not None
        with context.spans("evaluate"):
            figures = context.beside.figures()
        context.tell(kind="evaluation", when="epoch", epoch=epoch, **figures)


def _save(
    context: Context,
    model: Embedder,
    optimiser: torch.optim.Optimizer,
    history: History,
    epoch: int,
    step: int | None,
    learner: Learner | None,
    rng: list[Tensor],
) -> None:
    heads, heads_optimiser = learner.heads_state() if learner is not None else ({}, {})

    def write(folder: Path) -> dict[str, str]:
        files = snapshot.write(folder)
        context.filed()
        return files

    tables = ["train/masks"] if context.settings.num_parts else []
    snapshot = context.bank.mark([*tables, "train/labels", "train/alphas"], epoch, centroids=step is not None)
    context.checkpoints.save(
        Checkpoint(
            epoch=epoch,
            step=step,
            model=model.state_dict(),
            optimiser=optimiser_tensors(optimiser),
            heads=heads,
            heads_optimiser=heads_optimiser,
            rng=rng,
            history=history,
            settings=context.settings.model_dump(mode="json"),
        ),
        write,
    )
