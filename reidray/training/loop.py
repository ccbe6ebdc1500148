"""The epochs of a run: extract, label, train, evaluate, keep. All workers run it, from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from reidray.arrays import Ints
from reidray.config import Settings
from reidray.disk import DISK_ERRORS
from reidray.features import Network
from reidray.methods import make_method
from reidray.methods.label_search import Inputs
from reidray.methods.method import Method
from reidray.methods.step import EpochPlan
from reidray.spans import Spans, step_figures
from reidray.storage.checkpoints import Checkpoint
from reidray.storage.weights import load_weights
from reidray.training.advice import advice
from reidray.training.batches import EpochBatches, shares
from reidray.training.calibration import calibrate, necks_to_calibrate
from reidray.training.clean_statistics import measure_statistics
from reidray.training.context import Context, Meter
from reidray.training.evaluation import can_evaluate, evaluate, remark
from reidray.training.extraction import extract_shards
from reidray.training.history import Figures, History, UnderWay
from reidray.training.keeping_labels import keep_labels
from reidray.training.label_figures import label_figures
from reidray.training.learner import Learner
from reidray.training.placement import compare_with_bank, load_replicas
from reidray.training.promises import check_batches, check_needs, checked_plans
from reidray.training.resume import agreed_checkpoint, keep, settle_evaluation, take_up
from reidray.training.state import RunState, new_modules
from reidray.training.tracing import begin_epoch, end_epoch
from reidray.training.write_behind import WriteBehind

# N = images


def train(context: Context) -> History:
    """Run the epochs that are left and return the run's history.

    Starts from the newest whole checkpoint of the run folder, if there is one.
    """
    settings, images = context.settings, context.split("train").source
    repeatable(context.device)
    method = context.method
    plans = checked_plans(method, images.count)
    checkpoint = agreed_checkpoint(context)
    state, missing = _start(context, method, images.digest, weights=checkpoint is None)
    torch.manual_seed(settings.train.seed)
    first = take_up(context, checkpoint, state, len(plans))
    history = state.history

    inputs = _inputs(context, state, first)
    for sentence in method.check_inputs(inputs):
        context.tell(kind="message", text=sentence)
    check_needs(method, inputs)
    if checkpoint is None:
        for names in necks_to_calibrate(state.model, settings.model.calibrate, missing):
            calibrate(context, state.model, names)
    if history.to_evaluate is not None:
        _evaluate_epoch(context, state, history.to_evaluate)
    if checkpoint is None and (said := remark(context)) is not None:
        context.tell(kind="message", text=said)
    if "before" not in history.evaluations:
        history.evaluations["before"] = _evaluated(context, state, "before", None)
    if checkpoint is None:
        _clean_statistics(context, state, None)

    for epoch in range(first, len(plans)):
        started = time.perf_counter()
        begin_epoch(context, epoch)
        if history.under_way is None:
            if plans[epoch].relabel:
                with _timed(context.spans, history, "extract"):
                    _extract(context, state, epoch)
                with _timed(context.spans, history, "label"):
                    history.under_way = UnderWay(_label(context, state, epoch))
                    if context.ranks.rank == 0:
                        with context.spans("kept labels"):
                            last = not any(plan.relabel for plan in plans[epoch + 1 :])
                            keep_labels(context, epoch, last=last)
                _select(context, state, epoch - 1, history.under_way.figures)
            else:
                history.under_way = UnderWay({})
        losses: dict[str, list[float]] = {}
        if plans[epoch].trains:
            with _timed(context.spans, history, "train"):
                losses = _train_epoch(context, state, plans, epoch, checkpoint)
        figures, measured = history.under_way.figures, history.under_way.measured
        history.under_way, checkpoint = None, None
        figures.update({name: float(np.mean(values)) for name, values in measured.items()})
        figures.update(step_figures(context.spans.step_totals()))
        figures.update({f"loss_{name}": float(np.mean(values)) for name, values in losses.items()})
        if settings.evaluate.every and (epoch + 1) % settings.evaluate.every == 0 and epoch + 1 < len(plans):
            settle_evaluation(context, history)
            _evaluate_epoch(context, state, epoch)
        figures["seconds"] = time.perf_counter() - started
        history.epochs.append({"epoch": epoch, **figures})
        if losses:
            context.tell(kind="steps", epoch=epoch, losses=losses)
        context.tell(kind="epoch", epoch=epoch, **figures)
        if (epoch + 1) % settings.run.checkpoint_every == 0 or epoch + 1 == len(plans):
            keep(context, state, plans, epoch)
        end_epoch(context, epoch)

    settle_evaluation(context, history)
    if "after" not in history.evaluations:
        _evaluate_at_the_end(context, state, len(plans) - 1)
        with _last_checkpoint(history):
            keep(context, state, plans, len(plans) - 1)
    with _last_checkpoint(history):
        context.checkpoints.wait()
    context.ranks.barrier()
    return history


def _select(context: Context, state: RunState, epoch: int, figures: Figures) -> None:
    """The network as it is after an epoch may be the one to report: the labels that it gave have judged it."""
    criterion = context.settings.run.keep_best
    if state.method.selects_network:
        state.select(epoch, figures.get("judged"))
    elif criterion != "none" and epoch >= 0:
        state.select(epoch, figures.get(criterion))


def repeatable(device: torch.device) -> None:
    """Have PyTorch compute the same bits every time.

    In that mode PyTorch also fills all memory that it takes, which guards those who read what they never wrote and
    takes time in every step: that is switched off.
    """
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False


def new_model(settings: Settings) -> Network:
    """The method's network before any weights are loaded, drawn from train.seed."""
    return make_method(settings).network()


def _start(context: Context, method: Method, digest: str, *, weights: bool) -> tuple[RunState, list[str]]:
    """The network on its device, with its start weights unless a checkpoint's are to come, and an optimiser; the names
    of the tensors that no start weights were loaded for."""
    model, modules = method.network(), new_modules(method)
    modules = modules if modules is None else modules.to(context.device)  # NCCL knows no tensors of a CPU
    for tensor in () if modules is None else modules.state_dict().values():
        tensor.copy_(context.ranks.from_first(tensor))
    missing = list(model.state_dict())
    if weights and context.settings.model.weights != "none":
        missing = load_weights(model, context.settings.model.weights).missing
    model = model.to(memory_format=torch.channels_last).to(context.device)
    return RunState(method, model, modules, History(digest)), missing


def _evaluate_epoch(context: Context, state: RunState, epoch: int) -> None:
    """The figures after an epoch: now, or while the next one trains."""
    if context.background is None or not can_evaluate(context):
        state.history.to_evaluate = None
        _evaluated(context, state, "epoch", epoch)
        return
    state.history.to_evaluate = epoch
    if context.ranks.rank == 0:
        context.background.begin(state.network, epoch)


def _evaluate_at_the_end(context: Context, state: RunState, last: int) -> None:
    """The figures of the network that the run reports, and, where that is not the last one, of both."""
    history, chosen = state.history, state.history.selected
    if chosen is None or not state.selected:
        history.evaluations["after"] = _evaluated(context, state, "after", last)
        return
    history.evaluations["last"] = _evaluated(context, state, "last", last)
    kept = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    state.network.load_state_dict(state.selected)
    history.evaluations["after"] = _evaluated(context, state, "after", chosen[0])
    state.network.load_state_dict(kept)


def _evaluated(context: Context, state: RunState, when: str, epoch: int | None) -> Figures | None:
    """The figures of the model as it is, told to whoever listens; None where there is nothing to evaluate on."""
    if not can_evaluate(context):
        return None
    lists = context.settings.evaluate.ranked_lists if when == "after" else 0
    with _timed(context.spans, state.history, "evaluate"):
        figures = evaluate(context, state.network, epoch, lists=lists)
    if lists:
        state.history.examples = figures.pop("examples")
    context.tell(kind="evaluation", when=when, epoch=epoch, **figures)
    return figures


def _extract(context: Context, state: RunState, epoch: int) -> None:
    """Features of all training images into the bank; labellers look at finished shards while the next is extracted."""
    settings, method, images = context.settings, state.method, context.split("train")
    meter = Meter(context, "extract", images.source.count, images.unit, epoch)
    averages = {name: (one.of, one.num_classes, one.momentum) for name, one in method.averages(epoch).items()}
    if context.ranks.rank == 0:
        context.labellers.begin(_inputs(context, state, epoch), context.bank.generation)
    extracted = extract_shards(
        state.network,
        images,
        context.own_shards("train"),
        batch=settings.train.extract_batch,
        device=context.device,
        precision=settings.train.precision,
        keep=method.to_label,
        keep_images=method.to_label_images,
        progress=meter.add,
        spans=context.spans,
    )
    for shard in extracted:
        with context.spans("bank"):
            context.bank.put_tables("train", epoch, shard.shard, shard.arrays, {})
        if shard.images:
            with context.spans("labeller"):
                tables = context.labellers.parse(shard.shard, shard.images)
            with context.spans("bank"):
                context.bank.put_tables(images.image_tables, epoch, shard.shard, tables, averages)
    with context.spans("bank"):
        context.bank.flush()
    with context.spans("workers"):
        context.ranks.barrier()
    meter.finish()


def _label(context: Context, state: RunState, epoch: int) -> Figures:
    """Labels, their tables and the memories into the bank; how good they are, where the truth is known."""
    samples = context.split("train")
    meter = Meter(context, "label", samples.source.count, samples.unit, epoch)
    figures: Figures | None = None
    if context.ranks.rank == 0:
        inputs, before = _inputs(context, state, epoch), state.history.labelled
        with context.spans("labeller"):
            summary = context.labellers.label(inputs, context.bank.generation)
        with context.spans("figures"):
            persons_N = context.true_persons("train")
            figures = label_figures(context, state.network, epoch, summary, before, persons_N)
    with context.spans("workers"):
        figures = context.ranks.broadcast(figures)
    assert figures is not None
    state.history.labelled = epoch
    meter.finish()
    context.tell(kind="labels", epoch=epoch, **figures)
    source_count = context.split("train").source.count
    _advise(context, state, {"epoch": epoch, **figures})
    if context.settings.method.labels == "dbscan" and 2 * figures.get("largest", 0) > source_count:
        text = (
            "caution: all images with a label are in one cluster, of which nothing can be learned: lower method.eps"
            if figures["clusters"] == 1
            else f"caution: {figures['largest']:,} of {source_count:,} are in one cluster: lower method.eps"
        )
        context.tell(kind="message", text=text)
    return figures


def _advise(context: Context, state: RunState, figures: Figures) -> None:
    """The run's advice, when there is reason for it for the first time."""
    count, before = context.split("train").source.count, state.history.epochs
    now = advice(context.settings, [*before, figures], count)
    if now is not None and advice(context.settings, before, count) is None:
        context.tell(kind="message", text=now)


def _inputs(context: Context, state: RunState, epoch: int) -> Inputs:
    """What a method labels from beside the features; the true identities only where they are asked for."""
    source, before = context.split("train").source, state.history.labelled
    persons_N = None
    if context.settings.method.labels == "ground_truth":
        persons_N = context.true_persons("train")
        if persons_N is None:
            raise ValueError(f"method.labels=ground_truth needs true identities; {context.packed}/train has none")
    attributes = context.attributes if "attributes" in state.method.needs else None
    modules = {} if state.modules is None else state.modules.state_dict()
    return Inputs(
        epoch=epoch,
        cameras_N=source.cameras_N,
        persons_N=persons_N,
        attributes_NA=None if attributes is None else attributes.values_NA,
        labels_N=context.bank.read("train/labels", before) if before >= 0 else None,
        modules={name: tensor.cpu().numpy() for name, tensor in modules.items()},
    )


def _train_epoch(
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
    _clean_statistics(context, state, epoch)
    losses = {**losses, "total": [float(sum(step)) for step in zip(*losses.values(), strict=True)]}
    meter.finish({name: values[-1] for name, values in losses.items()})
    return losses


def warmth(updates: int, warm_up: int) -> float:
    """Share of the learning rate that the update after so many others has: it rises linearly over `warm_up` updates.

    P. Goyal et al., "Accurate, Large Minibatch SGD", 2017 (arXiv:1706.02677), Sec. 2.2.
    """
    return min(1.0, (updates + 1) / warm_up) if warm_up else 1.0


def _clean_statistics(context: Context, state: RunState, epoch: int | None) -> None:
    samples = context.settings.train.clean_statistics
    if samples:
        with context.spans("statistics"):
            measure_statistics(context, state.network, samples=samples, epoch=epoch)


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
        first=first,
        spans=context.spans,
    )


def _stop_if_not_finite(terms: dict[str, float], epoch: int, step: int) -> None:
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(
            f"{', '.join(bad)} is not finite at step {step + 1} of epoch {epoch + 1}: lower train.learning_rate"
        )


@contextmanager
def _last_checkpoint(history: History) -> Iterator[None]:
    """All figures are known by now: a disk that is full takes the checkpoint, and not these."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        history.not_kept = history.not_kept or f"{error.strerror or error}"


@contextmanager
def _timed(spans: Spans, history: History, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    with spans(stage):
        yield
    history.seconds[stage] += time.perf_counter() - started
