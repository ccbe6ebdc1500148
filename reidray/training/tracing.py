"""The timeline of one epoch (run.trace_epoch): what workers, labellers and the memory bank did, collected by rank 0."""

from __future__ import annotations

from reidray.spans import Recording
from reidray.training.context import Context


def begin_epoch(context: Context, epoch: int) -> None:
    """Spans belong to `epoch` from now on; where it is the one to be traced, everybody keeps them."""
    context.spans.epoch = epoch
    if context.settings.run.trace_epoch != epoch:
        return
    if context.ranks.rank == 0:
        for pending in [*context.bank.trace(epoch), *context.labellers.trace(epoch)]:
            pending.result()
    context.ranks.barrier()
    context.spans.trace(epoch)


def end_epoch(context: Context, epoch: int) -> None:
    """Of the traced epoch: all recordings, told as an event of kind "trace"."""
    if context.settings.run.trace_epoch != epoch:
        return
    recordings: list[Recording] = context.ranks.gather(context.spans.traced())
    if context.ranks.rank == 0:
        for pending in [*context.labellers.traced(), *context.bank.traced()]:
            recordings.append(pending.result())
        context.tell(kind="trace", epoch=epoch, recordings=recordings)
