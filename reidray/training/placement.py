"""Where the replica of the centroids lies in an epoch: chosen, loaded from the bank, and compared with it in the end.

C = clusters, R = rows on this rank, S = spaces, D = feature width.
"""

from __future__ import annotations

import numpy as np
import torch

from reidray.config import Settings
from reidray.training.context import Context
from reidray.training.replica import Replica, Replicated, Sharded


def placement(settings: Settings, shape_CSD: tuple[int, int, int], num_ranks: int) -> tuple[str, str]:
    """The placement, "replicated" or "sharded", and why in one sentence.

    run.replica where it says which; `auto` shares the rows out where all of them need more than run.replica_mb and
    there is somebody to share them with.
    """
    num_clusters, num_spaces, width = shape_CSD
    megabytes = num_clusters * num_spaces * width * 4 / 1e6
    size = f"{num_clusters} x {num_spaces} x {width} numbers are {megabytes:,.1f} MB"
    asked, budget = settings.run.replica, settings.run.replica_mb
    if asked != "auto":
        return asked, f"as run.replica says; {size}"
    if megabytes <= budget:
        return "replicated", f"{size}, within run.replica_mb={budget:g}"
    if settings.cluster_classifiers:
        return "replicated", f"{size}, more than run.replica_mb={budget:g}, but the identity losses need all rows"
    if num_ranks == 1:
        return "replicated", f"{size}, more than run.replica_mb={budget:g}, but there is one worker"
    return "sharded", f"{size}, more than run.replica_mb={budget:g}"


def load_replica(context: Context, epoch: int) -> Replica:
    """The centroids of an epoch from the bank, of which a rank reads what it keeps; tells of a new placement."""
    ranks, bank = context.ranks, context.bank
    with context.spans("bank"):
        shape_CSD = bank.centroids_shape(epoch)
    where, why = placement(context.settings, shape_CSD, ranks.size)
    if where != context.placement:
        share = f"1 of {ranks.size} rows on each worker" if where == "sharded" else "all rows on each worker"
        context.tell(kind="message", text=f"replica of the centroids: {where} ({share}); {why}")
        context.placement = where
    with context.spans("bank"):
        if where == "replicated":
            return Replicated(torch.from_numpy(bank.centroids(epoch)).to(context.device))
        own = np.arange(ranks.rank, shape_CSD[0], ranks.size)
        return Sharded(torch.from_numpy(bank.take_centroids(epoch, own)).to(context.device), ranks)


def compare_with_bank(context: Context, replica: Replica, epoch: int) -> None:
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
    if isinstance(replica, Sharded) or context.ranks.rank == 0:
        clusters_R, rows_RSD = replica.held()
        with context.spans("bank"):
            equal = np.array_equal(context.bank.take_centroids(epoch, clusters_R.numpy()), rows_RSD.cpu().numpy())
    with context.spans("workers"):
        everywhere = all(context.ranks.gather(equal))
    if not everywhere:
        raise RuntimeError(f"epoch {epoch}: the memory bank and the replica of the centroids differ")
