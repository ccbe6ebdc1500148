"""Where the replicas of the memories lie in an epoch: chosen, loaded from the bank, and compared with it in the end.

R = rows of a memory, S = vectors of a feature, D = their width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from reidray.config import Settings
from reidray.training.context import Context
from reidray.training.replica import Replica, Replicated, Sharded


def placement(settings: Settings, shapes_RSD: Sequence[tuple[int, int, int]], num_ranks: int) -> tuple[str, str]:
    """The placement of all memories, "replicated" or "sharded", and why in one sentence.

    run.replica where it says which; `auto` shares the rows out where all of them need more than run.replica_mb and
    there is somebody to share them with.
    """
    megabytes = sum(rows * vectors * width * 4 / 1e6 for rows, vectors, width in shapes_RSD)
    sizes = " and ".join(f"{rows} x {vectors} x {width}" for rows, vectors, width in shapes_RSD)
    size = f"{sizes} numbers are {megabytes:,.1f} MB"
    asked, budget = settings.run.replica, settings.run.replica_mb
    if asked != "auto":
        return asked, f"as run.replica says; {size}"
    if megabytes <= budget:
        return "replicated", f"{size}, within run.replica_mb={budget:g}"
    if settings.needs_all_rows is not None:
        return "replicated", f"{size}, more than run.replica_mb={budget:g}, but the method needs all rows"
    if num_ranks == 1:
        return "replicated", f"{size}, more than run.replica_mb={budget:g}, but there is one worker"
    return "sharded", f"{size}, more than run.replica_mb={budget:g}"


def load_replicas(context: Context, names: Sequence[str], version: int) -> dict[str, Replica]:
    """The memories of a version from the bank, of which a rank reads what it keeps; tells of a new placement."""
    if not names:
        return {}
    ranks, bank = context.ranks, context.bank
    with context.spans("bank"):
        shapes = [bank.memory_shape(name, version) for name in names]
    where, why = placement(context.settings, shapes, ranks.size)
    if where != context.placement:
        share = f"1 of {ranks.size} rows on each worker" if where == "sharded" else "all rows on each worker"
        context.tell(kind="message", text=f"replica of the memories: {where} ({share}); {why}", detail=True)
        context.placement = where
    replicas: dict[str, Replica] = {}
    with context.spans("bank"):
        for name, shape_RSD in zip(names, shapes, strict=True):
            if where == "replicated":
                replicas[name] = Replicated(torch.from_numpy(bank.memory(name, version)).to(context.device))
            else:
                own = np.arange(ranks.rank, shape_RSD[0], ranks.size)
                rows_RSD = bank.take_memory(name, version, own)
                replicas[name] = Sharded(torch.from_numpy(rows_RSD).to(context.device), ranks)
    return replicas


def compare_with_bank(context: Context, replicas: Mapping[str, Replica], version: int) -> None:
    """The bank must hold what the ranks hold; each compares the rows that it keeps, rank 0 alone where all keep all.

    Raises:
      RuntimeError: on every rank, if any of them finds a difference.
    """
    if context.ranks.rank == 0:
        with context.spans("bank"):
            context.bank.flush()
    with context.spans("workers"):
        context.ranks.barrier()
    equal = True
    for name, replica in replicas.items():
        if isinstance(replica, Sharded) or context.ranks.rank == 0:
            places_R, rows_RSD = replica.held()
            with context.spans("bank"):
                banked_RSD = context.bank.take_memory(name, version, places_R.numpy())
            equal = equal and np.array_equal(banked_RSD, rows_RSD.cpu().numpy())
    with context.spans("workers"):
        everywhere = all(context.ranks.gather(equal))
    if not everywhere:
        raise RuntimeError(f"epoch {version}: the memory bank and the replica of the memories differ")
