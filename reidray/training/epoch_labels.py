"""How an epoch gets its labels: features of all images into the bank, then clusters of them from the labellers."""

from __future__ import annotations

from reidray.methods.label_search import Inputs
from reidray.training.advice import advice
from reidray.training.context import Context, Meter
from reidray.training.extraction import extract_shards
from reidray.training.history import Figures
from reidray.training.label_figures import label_figures
from reidray.training.state import RunState


def extract(context: Context, state: RunState, epoch: int) -> None:
    """Features of all training images into the bank; labellers look at finished shards while the next is extracted."""
    settings, method, images = context.settings, state.method, context.split("train")
    meter = Meter(context, "extract", images.source.count, images.unit, epoch)
    averages = {name: (one.of, one.num_classes, one.momentum) for name, one in method.averages(epoch).items()}
    if context.ranks.rank == 0:
        context.labellers.begin(inputs_of(context, state, epoch), context.bank.generation)
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


def label(context: Context, state: RunState, epoch: int) -> Figures:
    """Labels, their tables and the memories into the bank; how good they are, where the truth is known."""
    samples = context.split("train")
    count = samples.source.count
    done = min(int(context.labellers.share_begun() * count), count - 1)
    meter = Meter(context, "label", count, samples.unit, epoch, done=done)
    figures: Figures | None = None
    if context.ranks.rank == 0:
        inputs, before = inputs_of(context, state, epoch), state.history.labelled
        with context.spans("labeller"):
            summary = context.labellers.label(inputs, context.bank.generation, meter.reach)
        with context.spans("figures"):
            persons_N = context.true_persons("train")
            figures = label_figures(context, state.network, epoch, summary, before, persons_N)
    with context.spans("workers"):
        figures = context.ranks.broadcast(figures)
    assert figures is not None
    state.history.labelled = epoch
    meter.finish()
    context.tell(kind="labels", epoch=epoch, **figures)
    _advise(context, state, {"epoch": epoch, **figures})
    if context.settings.method.labels == "dbscan" and 2 * figures.get("largest", 0) > count:
        text = (
            "caution: all images with a label are in one cluster, of which nothing can be learned: lower method.eps"
            if figures["clusters"] == 1
            else f"caution: {figures['largest']:,} of {count:,} are in one cluster: lower method.eps"
        )
        context.tell(kind="message", text=text)
    return figures


def _advise(context: Context, state: RunState, figures: Figures) -> None:
    """The run's advice, when there is reason for it for the first time."""
    count, before = int((context.split("train").source.cameras_N >= 0).sum()), state.history.epochs
    now = advice(context.settings, [*before, figures], count)
    if now is not None and advice(context.settings, before, count) is None:
        context.tell(kind="message", text=now)


def inputs_of(context: Context, state: RunState, epoch: int) -> Inputs:
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
