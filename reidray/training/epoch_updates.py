"""The updates of an epoch: batches, steps, what moves in the bank, and checkpoints between them."""

from __future__ import annotations

import math

import numpy as np
import torch

from reidray.arrays import Ints
from reidray.methods.step import EpochPlan
from reidray.storage.checkpoints import Checkpoint
from reidray.training.batches import EpochBatches, shares
from reidray.training.clean_statistics import clean_statistics
from reidray.training.context import Context, Meter
from reidray.training.learner import Learner
from reidray.training.placement import compare_with_bank, load_replicas
from reidray.training.promises import check_batches
from reidray.training.resume import keep
from reidray.training.state import RunState
from reidray.training.write_behind import WriteBehind


def train_epoch(
    context: Context, state: RunState, plans: list[EpochPlan], epoch: int, checkpoint: Checkpoint | None
) -> dict[str, list[float]]:
    """The updates of an epoch that are left; the mean of each loss term over the global batch, update by update.

    checkpoint: that the run goes on from, if it stands before or within this epoch.
    """
    settings, history, plan = context.settings, state.history, plans[epoch]
    within = checkpoint is not None and checkpoint.step is not None
    if plan.new_optimiser and not within:
        state.new_optimiser()
    state.set_rate(plan.rate)
    replicas = load_replicas(context, state.method.memories, history.labelled)
    with context.spans("bank"):
        labels_N = context.bank.read("train/labels", history.labelled)
    if plan.relabel or state.heads is None:
        cameras_N = context.split("train").source.cameras_N
        state.new_heads(replicas, labels_N, cameras_N, goes_on=within or not plan.relabel)
    first, every = 0, settings.run.checkpoint_steps
    if checkpoint is not None and checkpoint.step is not None:
        first = checkpoint.step
    elif every:
        keep(context, state, plans, epoch, step=0)  # labelling may have taken long
    state.begin_mean()
    learner = Learner(
        settings, state, replicas, epoch=epoch, ranks=context.ranks, device=context.device, spans=context.spans
    )
    assert history.under_way is not None
    losses, measured = history.under_way.losses, history.under_way.measured
    batches = _batches(context, state, labels_N, epoch, first)
    behind = WriteBehind(context.bank, history.labelled, history.updates - first)
    meter = Meter(context, "train", len(batches), "steps", epoch, done=first)
    for step, groups in context.spans.each(batches, first):
        state.set_rate(plan.rate * warmth(history.updates, settings.train.warm_up))
        update = learner.update(step, groups)
        if context.ranks.rank == 0:
            with context.spans("bank"):
                moved = {name: (own.cpu().numpy(), rows.cpu().numpy()) for name, (own, rows) in update.moved.items()}
                behind.add(step.number, moved)
        numbers = torch.stack([*update.losses.values(), *update.figures.values()]).tolist()  # one wait for the device
        terms = dict(zip(update.losses, numbers, strict=False))
        _stop_if_not_finite(terms, epoch, step.number)
        for name, value in terms.items():
            losses.setdefault(name, []).append(value)
        for name, value in zip(update.figures, numbers[len(terms) :], strict=True):
            measured.setdefault(name, []).append(value)
        meter.add(1, step.images_BT.size, terms)
        history.updates += 1
        if state.mean is not None:
            state.mean.follow(state.model, history.updates)
        done = step.number + 1
        if every and done % every == 0 and done < len(batches):
            behind.send()
            keep(context, state, plans, epoch, step=done)
    behind.send()
    compare_with_bank(context, replicas, history.labelled)
    clean_statistics(context, state.network, epoch)
    losses = {**losses, "total": [float(sum(step)) for step in zip(*losses.values(), strict=True)]}
    meter.finish({name: values[-1] for name, values in losses.items()})
    return losses


def warmth(updates: int, warm_up: int) -> float:
    """Share of the learning rate that the update after so many others has: it rises linearly over `warm_up` updates.

    P. Goyal et al., "Accurate, Large Minibatch SGD", 2017 (arXiv:1706.02677), Sec. 2.2.
    """
    return min(1.0, (updates + 1) / warm_up) if warm_up else 1.0


def _batches(context: Context, state: RunState, labels_N: Ints, epoch: int, first: int) -> EpochBatches:
    settings, method, images = context.settings, state.method, context.split("train")
    version = state.history.labelled
    with context.spans("bank"):
        tables = {name: context.bank.read(f"train/{name}", version) for name in method.tables}
    cameras_N = images.source.cameras_N
    batches = method.batches(labels_N, cameras_N, epoch)
    check_batches(method, batches, labels_N)
    groups = shares(settings.num_groups, context.ranks.size)[context.ranks.rank]
    size, seed = settings.model.bn_group_size, settings.train.seed
    wanted = np.empty(0, np.int64)
    if method.maps:
        taken = [images.chosen(batch_B, seed=seed, epoch=epoch, step=step) for step, batch_B in enumerate(batches)]
        wanted = np.unique(np.stack(taken)[first:, groups.start * size : groups.stop * size])
    with context.spans("bank"):
        maps = {name: context.bank.take(f"{images.image_tables}/{name}", version, wanted) for name in method.maps}
    return EpochBatches(
        settings,
        method,
        images,
        batches=batches,
        labels_N=labels_N,
        cameras_N=cameras_N,
        tables=tables,
        map_indices=wanted,
        maps=maps,
        grid=state.model.grid,
        epoch=epoch,
        groups=groups,
        device=context.device,
        first=first,
        spans=context.spans,
    )


def _stop_if_not_finite(terms: dict[str, float], epoch: int, step: int) -> None:
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(
            f"{', '.join(bad)} is not finite at step {step + 1} of epoch {epoch + 1}: lower train.learning_rate"
        )
