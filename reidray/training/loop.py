"""The epochs of a run: extract, label, train, evaluate, keep. All workers run it, from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from reidray.config import Settings
from reidray.disk import DISK_ERRORS
from reidray.features import Network
from reidray.methods import make_method
from reidray.methods.method import Method
from reidray.spans import Spans, step_figures
from reidray.storage.weights import load_weights
from reidray.training.calibration import calibrate, necks_to_calibrate
from reidray.training.clean_statistics import clean_statistics
from reidray.training.compiling import compile_trunk
from reidray.training.context import Context
from reidray.training.epoch_labels import extract, inputs_of, label
from reidray.training.epoch_updates import train_epoch
from reidray.training.evaluation import can_evaluate, evaluate, remark
from reidray.training.history import Figures, History, UnderWay
from reidray.training.keeping_labels import keep_labels
from reidray.training.promises import check_judged, check_needs, checked_plans, remark_on_cameras
from reidray.training.resume import agreed_checkpoint, keep, settle_evaluation, take_up
from reidray.training.state import RunState, new_modules
from reidray.training.tracing import begin_epoch, end_epoch

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
    first = take_up(context, checkpoint, state, plans)
    history = state.history

    inputs = inputs_of(context, state, first)
    for sentence in method.check_inputs(inputs):
        context.tell(kind="message", text=sentence)
    check_needs(method, inputs)
    if (said := remark_on_cameras(method, inputs)) is not None:
        context.tell(kind="message", text=said)
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
        clean_statistics(context, state.network, None)

    for epoch in range(first, len(plans)):
        started = time.perf_counter()
        begin_epoch(context, epoch)
        if history.under_way is None:
            if plans[epoch].relabel:
                with _timed(context.spans, history, "extract"):
                    extract(context, state, epoch)
                with _timed(context.spans, history, "label"):
                    history.under_way = UnderWay(label(context, state, epoch))
                    chosen = _select(context, state, epoch - 1, history.under_way.figures)
                    if context.ranks.rank == 0:
                        with context.spans("kept labels"):
                            last = not any(plan.relabel for plan in plans[epoch + 1 :])
                            keep_labels(context, epoch, shown=chosen or (last and history.selected is None))
                    if not plans[epoch].trains:
                        context.ranks.barrier()  # features of the next epoch take the place of those that are looked at
            else:
                history.under_way = UnderWay({})
        losses: dict[str, list[float]] = {}
        if plans[epoch].trains:
            with _timed(context.spans, history, "train"):
                losses = train_epoch(context, state, plans, epoch, checkpoint)
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


def _select(context: Context, state: RunState, epoch: int, figures: Figures) -> bool:
    """Whether the network as it is after an epoch is the best so far, and to be reported: the labels that it gave have
    judged it. False where the run does not choose."""
    criterion = context.settings.run.keep_best
    if state.method.selects_network:
        return state.select(epoch, figures.get("judged"))
    if criterion == "none":
        return False
    check_judged(state.method, figures)
    return epoch >= 0 and state.select(epoch, figures[criterion])  # the start weights are not chosen


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
    if context.settings.train.compile:
        compile_trunk(model, context.device)
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
