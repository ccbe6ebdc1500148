"""The epochs of a run: extract, label, train, evaluate, keep. All workers run it, from top to bottom.

N = images, C = clusters, S = spaces, D = feature width, L = parts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from reidray.bank import mask_momentum
from reidray.config import Settings
from reidray.features import Embedder, build_embedder
from reidray.methods import Method, make_method
from reidray.spans import Spans, step_figures
from reidray.storage.checkpoints import Checkpoint
from reidray.storage.shards import read_truth
from reidray.storage.weights import load_weights
from reidray.training.batches import EpochBatches, plan_batches, shares
from reidray.training.context import Context, Meter
from reidray.training.evaluation import can_evaluate, evaluate
from reidray.training.extraction import extract_shards
from reidray.training.label_figures import label_figures
from reidray.training.learner import Learner
from reidray.training.placement import compare_with_bank, load_replica
from reidray.training.resume import History, agreed_checkpoint, keep, settle_evaluation, take_up
from reidray.training.tracing import begin_epoch, end_epoch
from reidray.training.write_behind import WriteBehind


def train(context: Context) -> History:
    """Run the epochs that are left and return the run's history: before, after, every epoch's figures, seconds.

    Starts from the newest whole checkpoint of the run folder, if there is one.
    """
    settings = context.settings
    repeatable(context.device)
    method = make_method(settings)
    checkpoint = agreed_checkpoint(context)
    model = start_model(settings, context.device, weights=checkpoint is None)
    optimiser = torch.optim.Adam(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=settings.train.learning_rate,
        weight_decay=settings.train.weight_decay,
    )
    torch.manual_seed(settings.train.seed)
    first, history = take_up(context, checkpoint, model, optimiser)

    if "to_evaluate" in history:
        _evaluate_epoch(context, model, history, history["to_evaluate"])
    if "before" not in history:
        history["before"] = _evaluated(context, model, history, "before", None)

    for epoch in range(first, settings.train.epochs):
        started = time.perf_counter()
        begin_epoch(context, epoch)
        if "under_way" not in history:
            with _timed(context.spans, history, "extract"):
                _extract(context, model, epoch)
            with _timed(context.spans, history, "label"):
                history["under_way"] = {"figures": _label(context, model, epoch), "losses": {}}
        with _timed(context.spans, history, "train"):
            losses = _train_epoch(context, method, model, optimiser, epoch, history, checkpoint)
        checkpoint, figures = None, history.pop("under_way")["figures"]
        figures.update(step_figures(context.spans.step_totals()))
        figures.update({f"loss_{name}": float(np.mean(values)) for name, values in losses.items()})
        if settings.evaluate.every and (epoch + 1) % settings.evaluate.every == 0 and epoch + 1 < settings.train.epochs:
            settle_evaluation(context, history)
            _evaluate_epoch(context, model, history, epoch)
        figures["seconds"] = time.perf_counter() - started
        history["epochs"].append({"epoch": epoch, **figures})
        context.tell(kind="steps", epoch=epoch, losses=losses)
        context.tell(kind="epoch", epoch=epoch, **figures)
        if (epoch + 1) % settings.run.checkpoint_every == 0 or epoch + 1 == settings.train.epochs:
            keep(context, model, optimiser, history, epoch)
        end_epoch(context, epoch)

    settle_evaluation(context, history)
    if "after" not in history:
        history["after"] = _evaluated(context, model, history, "after", settings.train.epochs - 1)
        keep(context, model, optimiser, history, settings.train.epochs - 1)
    context.checkpoints.wait()
    context.ranks.barrier()
    return history


def repeatable(device: torch.device) -> None:
    """Have PyTorch compute the same bits every time.

    In that mode PyTorch also fills all memory that it takes, which guards those who read what they never wrote and
    takes time in every step: that is switched off.
    """
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False


def start_model(settings: Settings, device: torch.device, *, weights: bool = True) -> Embedder:
    """The network on a device, with its start weights unless a checkpoint's are to come."""
    model = new_model(settings)
    if weights and settings.model.weights != "none":
        load_weights(model, settings.model.weights)
    return model.to(memory_format=torch.channels_last).to(device)


def new_model(settings: Settings) -> Embedder:
    """The network before any weights are loaded, drawn from train.seed."""
    return build_embedder(
        backbone=settings.model.backbone,
        pooling=settings.model.pooling,
        num_parts=settings.num_parts,
        part_pooling=settings.model.part_pooling,
        seed=settings.train.seed,
    )


def learning_rate(settings: Settings, epoch: int) -> float:
    """The learning rate of an epoch: it falls by train.lr_factor every train.lr_every epochs."""
    return settings.train.learning_rate * settings.train.lr_factor ** (epoch // settings.train.lr_every)


def _evaluate_epoch(context: Context, model: Embedder, history: History, epoch: int) -> None:
    """The figures after an epoch: now, or while the next one trains."""
    if context.beside is None or not can_evaluate(context):
        history.pop("to_evaluate", None)
        _evaluated(context, model, history, "epoch", epoch)
        return
    history["to_evaluate"] = epoch
    if context.ranks.rank == 0:
        context.beside.begin(model, epoch)


def _evaluated(
    context: Context, model: Embedder, history: History, when: str, epoch: int | None
) -> dict[str, Any] | None:
    """The figures of the model as it is, told to whoever listens; None where there is nothing to evaluate on."""
    if not can_evaluate(context):
        return None
    lists = context.settings.evaluate.ranked_lists if when == "after" else 0
    with _timed(context.spans, history, "evaluate"):
        figures = evaluate(context, model, epoch, lists=lists)
    if lists:
        history["examples"] = figures.pop("examples")
    context.tell(kind="evaluation", when=when, epoch=epoch, **figures)
    return figures


def _extract(context: Context, model: Embedder, epoch: int) -> None:
    """Features of all training images into the bank; maps of finished shards are parsed while the next is extracted."""
    settings = context.settings
    images = context.split("train")
    meter = Meter(context, "extract", images.source.count, "images", epoch)
    momentum = mask_momentum(epoch, first=settings.scwm.mask_momentum, epochs=settings.scwm.mask_momentum_epochs)
    if context.ranks.rank == 0:
        context.labellers.begin(epoch, context.bank.generation)
    extracted = extract_shards(
        model,
        images,
        context.own_shards("train"),
        batch=settings.train.extract_batch,
        device=context.device,
        precision=settings.train.precision,
        grams=settings.num_parts > 0,
        progress=meter.add,
        spans=context.spans,
    )
    for shard in extracted:
        with context.spans("bank"):
            context.bank.put("train/features", epoch, shard.shard, shard.features_BSD)
        if shard.grams_BPP is not None:
            with context.spans("labeller"):
                parts = context.labellers.parse(shard.shard, shard.grams_BPP, shard.map_size)
            with context.spans("bank"):
                context.bank.put("train/parts", epoch, shard.shard, parts)
                context.bank.put_smoothed("train/masks", epoch, shard.shard, parts, settings.num_parts, momentum)
    with context.spans("bank"):
        context.bank.flush()
    with context.spans("workers"):
        context.ranks.barrier()
    meter.finish()


def _label(context: Context, model: Embedder, epoch: int) -> dict[str, Any]:
    """Labels, difficulties and centroids into the bank; how good they are, where the truth is known."""
    meter = Meter(context, "label", context.split("train").source.count, "images", epoch)
    figures: dict[str, Any] | None = None
    if context.ranks.rank == 0:
        truth = read_truth(f"{context.packed}/train")
        wanted = truth if context.settings.method.labels == "ground_truth" else None
        if wanted is None and context.settings.method.labels == "ground_truth":
            raise ValueError(f"method.labels=ground_truth needs true identities; {context.packed}/train has none")
        with context.spans("labeller"):
            summary = context.labellers.label(epoch, wanted, context.bank.generation)
        with context.spans("figures"):
            figures = label_figures(context, model, epoch, summary, truth)
    with context.spans("workers"):
        figures = context.ranks.broadcast(figures)
    assert figures is not None
    meter.finish()
    context.tell(kind="labels", epoch=epoch, **figures)
    return figures


def _train_epoch(
    context: Context,
    method: Method,
    model: Embedder,
    optimiser: torch.optim.Optimizer,
    epoch: int,
    history: History,
    checkpoint: Checkpoint | None,
) -> dict[str, list[float]]:
    """The updates of an epoch that are left; the mean of each loss term over the global batch, update by update.

    checkpoint: that the run goes on from, if it stands within this epoch.
    """
    settings = context.settings
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(settings, epoch)
    learner = Learner(
        settings,
        method,
        model,
        optimiser,
        load_replica(context, epoch),
        epoch=epoch,
        ranks=context.ranks,
        device=context.device,
        spans=context.spans,
    )
    first, every = 0, settings.run.checkpoint_steps
    if checkpoint is not None and checkpoint.step is not None:
        first = checkpoint.step
        learner.load_heads(checkpoint.heads, checkpoint.heads_optimiser)
    elif every:
        keep(context, model, optimiser, history, epoch, step=0, learner=learner)  # labelling may have taken long
    losses: dict[str, list[float]] = history["under_way"]["losses"]
    behind = WriteBehind(context.bank, epoch)
    meter = Meter(context, "train", settings.train.steps, "steps", epoch, done=first)
    for step, groups in context.spans.each(_batches(context, method, model, epoch, first), first):
        update = learner.update(step, groups)
        if context.ranks.rank == 0:
            with context.spans("bank"):
                behind.add(step.number, update.clusters_U.cpu().numpy(), update.rows_USD.cpu().numpy())
        terms = dict(zip(update.losses, torch.stack(list(update.losses.values())).tolist(), strict=True))
        _stop_if_not_finite(terms, epoch, step.number)
        for name, value in terms.items():
            losses.setdefault(name, []).append(value)
        meter.add(1, settings.batch_size, terms)
        done = step.number + 1
        if every and done % every == 0 and done < settings.train.steps:
            behind.send()
            keep(context, model, optimiser, history, epoch, step=done, learner=learner)
    behind.send()
    compare_with_bank(context, learner.replica, epoch)
    losses = {**losses, "total": [float(sum(step)) for step in zip(*losses.values(), strict=True)]}
    meter.finish({name: values[-1] for name, values in losses.items()})
    return losses


def _batches(context: Context, method: Method, model: Embedder, epoch: int, first: int) -> EpochBatches:
    settings, bank, images = context.settings, context.bank, context.split("train")
    with context.spans("bank"):
        labels_N, alphas_NL = bank.read("train/labels", epoch), bank.read("train/alphas", epoch)
    cameras_N = images.source.cameras_N
    batches = plan_batches(settings, labels_N, cameras_N, epoch)
    groups = shares(settings.num_groups, context.ranks.size)[context.ranks.rank]
    size = settings.model.bn_group_size
    wanted = np.unique(batches[first:, groups.start * size : groups.stop * size])
    with context.spans("bank"):
        masks = bank.take("train/masks", epoch, wanted) if settings.num_parts else None
    return EpochBatches(
        settings,
        method,
        images,
        batches=batches,
        labels_N=labels_N,
        alphas_NL=alphas_NL,
        mask_indices=wanted if masks is not None else None,
        masks_NLHW=masks,
        grid=model.grid,
        epoch=epoch,
        groups=groups,
        first=first,
        spans=context.spans,
    )


def _stop_if_not_finite(terms: dict[str, float], epoch: int, step: int) -> None:
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f"{', '.join(bad)} is not finite at step {step} of epoch {epoch}: lower train.learning_rate")


@contextmanager
def _timed(spans: Spans, history: History, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    with spans(stage):
        yield
    history["seconds"][stage] += time.perf_counter() - started
