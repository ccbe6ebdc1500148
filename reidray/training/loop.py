"""The epochs of a run: extract, label, train, evaluate, keep. All workers run it, from top to bottom.

N = images, C = clusters, S = spaces, D = feature width, L = parts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reidray.arrays import Ints
from reidray.bank import mask_momentum
from reidray.config import Settings
from reidray.evaluation import cluster_quality
from reidray.features import Embedder, build_embedder
from reidray.methods import Method, make_method
from reidray.parsing import far_pair_share
from reidray.storage.checkpoints import Checkpoint, optimiser_tensors, restore_optimiser
from reidray.storage.shards import read_masks, read_truth
from reidray.storage.weights import load_weights
from reidray.training.batches import EpochBatches, plan_batches, shares
from reidray.training.context import Context, Meter
from reidray.training.evaluation import can_evaluate, evaluate, parsing_quality
from reidray.training.extraction import extract_shards
from reidray.training.label_rules import LabelSummary
from reidray.training.learner import Learner

History = dict[str, Any]


def train(context: Context) -> History:
    """Run the epochs that are left and return the run's history: before, after, every epoch's figures, seconds.

    Starts from the newest whole checkpoint of the run folder, if there is one.
    """
    settings = context.settings
    torch.use_deterministic_algorithms(True, warn_only=context.device.type == "cuda")
    method = make_method(settings)
    checkpoint = _agreed_checkpoint(context)
    model = start_model(settings, context.device, weights=checkpoint is None)
    optimiser = torch.optim.Adam(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=settings.train.learning_rate,
        weight_decay=settings.train.weight_decay,
    )
    torch.manual_seed(settings.train.seed)
    first, history = _take_up(context, checkpoint, model, optimiser)

    if "before" not in history:
        history["before"] = _evaluated(context, model, history, "before", None)

    for epoch in range(first, settings.train.epochs):
        started = time.perf_counter()
        with _timed(history, "extract"):
            _extract(context, model, epoch)
        with _timed(history, "label"):
            figures = _label(context, model, epoch)
        with _timed(history, "train"):
            losses = _train_epoch(context, method, model, optimiser, epoch)
        figures.update({f"loss_{name}": float(np.mean(values)) for name, values in losses.items()})
        if settings.evaluate.every and (epoch + 1) % settings.evaluate.every == 0 and epoch + 1 < settings.train.epochs:
            figures.update(_evaluated(context, model, history, "epoch", epoch) or {})
        figures["seconds"] = time.perf_counter() - started
        history["epochs"].append({"epoch": epoch, **figures})
        context.tell(kind="steps", epoch=epoch, losses=losses)
        context.tell(kind="epoch", epoch=epoch, **figures)
        if (epoch + 1) % settings.run.checkpoint_every == 0 or epoch + 1 == settings.train.epochs:
            _keep(context, model, optimiser, epoch, history)

    if "after" not in history:
        history["after"] = _evaluated(context, model, history, "after", settings.train.epochs - 1)
        _keep(context, model, optimiser, settings.train.epochs - 1, history)
    context.checkpoints.wait()
    context.ranks.barrier()
    return history


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


def _agreed_checkpoint(context: Context) -> Checkpoint | None:
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
    epoch = context.ranks.broadcast(None if newest is None else newest.epoch)
    if epoch is None or newest is not None:
        return newest
    return context.checkpoints.load(epoch)


def _take_up(
    context: Context, checkpoint: Checkpoint | None, model: Embedder, optimiser: torch.optim.Optimizer
) -> tuple[int, History]:
    """Put everything back to a checkpoint, or to the beginning; the first epoch to do and the history so far.

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
        done = -1 if checkpoint is None else checkpoint.epoch
        generation = context.bank.restore(done, checkpoint.bank if checkpoint else {})
    context.bank.generation = context.ranks.broadcast(generation)
    if checkpoint is None:
        context.tell(kind="started")
        seconds = dict.fromkeys(("extract", "label", "train", "evaluate"), 0.0)
        return 0, {"epochs": [], "seconds": seconds, "images": digest}
    model.load_state_dict(checkpoint.model)
    restore_optimiser(optimiser, checkpoint.optimiser)
    torch.set_rng_state(checkpoint.rng[min(context.ranks.rank, len(checkpoint.rng) - 1)])
    first, history = checkpoint.epoch + 1, checkpoint.history
    if first < epochs:
        history.pop("after", None)  # a finished run that is given more epochs
        context.tell(kind="resumed", epoch=first, why=f"the checkpoint after {first} epochs")
    else:
        context.tell(kind="message", text=f"all {epochs} epochs of the run are done already")
    return first, history


def _evaluated(
    context: Context, model: Embedder, history: History, when: str, epoch: int | None
) -> dict[str, Any] | None:
    """The figures of the model as it is, told to whoever listens; None where there is nothing to evaluate on."""
    if not can_evaluate(context):
        return None
    lists = context.settings.evaluate.ranked_lists if when == "after" else 0
    with _timed(history, "evaluate"):
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
    )
    for shard in extracted:
        context.bank.put("train/features", epoch, shard.shard, shard.features_BSD)
        if shard.grams_BPP is not None:
            parts = context.labellers.parse(shard.shard, shard.grams_BPP, shard.map_size)
            context.bank.put("train/parts", epoch, shard.shard, parts)
            context.bank.put_smoothed("train/masks", epoch, shard.shard, parts, settings.num_parts, momentum)
    context.bank.flush()
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
        summary = context.labellers.label(epoch, wanted, context.bank.generation)
        figures = _label_figures(context, model, epoch, summary, truth)
    figures = context.ranks.broadcast(figures)
    assert figures is not None
    meter.finish()
    context.tell(kind="labels", epoch=epoch, **figures)
    return figures


def _label_figures(
    context: Context, model: Embedder, epoch: int, summary: LabelSummary, persons_N: Ints | None
) -> dict[str, Any]:
    figures: dict[str, Any] = {"clusters": summary.num_clusters, "outliers": summary.num_outliers}
    if persons_N is not None:
        quality = cluster_quality(context.bank.read("train/labels", epoch), persons_N)
        figures.update(ARI=quality.ARI, AMI=quality.AMI, purity=quality.purity)
    if context.settings.num_parts:
        scwm = context.settings.scwm
        parts_NHW = context.bank.read("train/parts", epoch)
        eta = scwm.max_distance * parts_NHW.shape[1]
        shares_N = far_pair_share(parts_NHW, num_parts=scwm.num_parts, max_distance=eta)
        figures["far_pairs"] = 100 * float(shares_N.mean())
        truth_Nhw = read_masks(f"{context.packed}/train")
        if truth_Nhw is not None:
            figures["pseudo_mIoU"] = parsing_quality(parts_NHW, truth_Nhw, model.grid, context.settings)
    return figures


def _train_epoch(
    context: Context, method: Method, model: Embedder, optimiser: torch.optim.Optimizer, epoch: int
) -> dict[str, list[float]]:
    """The steps of an epoch; the mean of each loss term over the global batch, step by step."""
    settings = context.settings
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(settings, epoch)
    centroids_CSD = torch.from_numpy(context.bank.centroids(epoch)).to(context.device)
    learner = Learner(
        settings,
        method,
        model,
        optimiser,
        centroids_CSD,
        epoch=epoch,
        ranks=context.ranks,
        device=context.device,
    )
    meter = Meter(context, "train", settings.train.steps, "steps", epoch)
    rows: list[Tensor] = []
    names: list[str] = []
    for step, groups in _batches(context, method, model, epoch):
        update = learner.update(step, groups)
        if context.ranks.rank == 0:
            context.bank.update_centroids(
                epoch, step.number, update.clusters_U.cpu().numpy(), update.rows_USD.cpu().numpy()
            )
        names = list(update.losses)
        rows.append(torch.stack(list(update.losses.values())).cpu())
        _stop_if_not_finite(rows[-1], names, epoch, step.number)
        meter.add(1, settings.batch_size, dict(zip(names, rows[-1].tolist(), strict=True)))
    if context.ranks.rank == 0:
        _compare_with_bank(context, learner.centroids_CSD, epoch)
    context.ranks.barrier()
    losses_TS = torch.stack(rows).T.tolist()
    losses = dict(zip(names, losses_TS, strict=True))
    losses["total"] = [float(sum(step)) for step in zip(*losses_TS, strict=True)]
    meter.finish({name: values[-1] for name, values in losses.items()})
    return losses


def _batches(context: Context, method: Method, model: Embedder, epoch: int) -> EpochBatches:
    settings, bank, images = context.settings, context.bank, context.split("train")
    labels_N = bank.read("train/labels", epoch)
    cameras_N = images.source.cameras_N
    batches = plan_batches(settings, labels_N, cameras_N, epoch)
    groups = shares(settings.num_groups, context.ranks.size)[context.ranks.rank]
    size = settings.model.bn_group_size
    wanted = np.unique(batches[:, groups.start * size : groups.stop * size])
    masks = bank.take("train/masks", epoch, wanted) if settings.num_parts else None
    return EpochBatches(
        settings,
        method,
        images,
        batches=batches,
        labels_N=labels_N,
        alphas_NL=bank.read("train/alphas", epoch),
        mask_indices=wanted if masks is not None else None,
        masks_NLHW=masks,
        grid=model.grid,
        epoch=epoch,
        groups=groups,
    )


def _stop_if_not_finite(losses_T: Tensor, names: list[str], epoch: int, step: int) -> None:
    if not bool(torch.isfinite(losses_T).all()):
        bad = [name for name, value in zip(names, losses_T.tolist(), strict=True) if not np.isfinite(value)]
        raise ValueError(f"{', '.join(bad)} is not finite at step {step} of epoch {epoch}: lower train.learning_rate")


def _compare_with_bank(context: Context, centroids_CSD: Tensor, epoch: int) -> None:
    """The bank must hold what the replicas hold."""
    context.bank.flush()
    if not np.array_equal(context.bank.centroids(epoch), centroids_CSD.cpu().numpy()):
        raise RuntimeError(f"epoch {epoch}: the memory bank and the replica of the centroids differ")


def _keep(context: Context, model: Embedder, optimiser: torch.optim.Optimizer, epoch: int, history: History) -> None:
    """A checkpoint of the run after an epoch."""
    rng = context.ranks.gather(torch.get_rng_state())
    if context.ranks.rank == 0:
        tables = ["train/masks"] if context.settings.num_parts else []
        context.checkpoints.save(
            Checkpoint(
                epoch=epoch,
                model=model.state_dict(),
                optimiser=optimiser_tensors(optimiser),
                rng=rng,
                bank=context.bank.snapshot([*tables, "train/labels", "train/alphas"], epoch),
                history=history,
                settings=context.settings.model_dump(mode="json"),
            )
        )


@contextmanager
def _timed(history: History, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    history["seconds"][stage] += time.perf_counter() - started
