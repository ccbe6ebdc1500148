"""The replica of the centroids, whole on every worker and shared out: what each worker holds, and what a step takes.

A step is what training does with the replica and nothing else: the four groups of a batch contrasted in every space,
forward and backward, the rows of the batch's clusters read, and written back. Workers are processes of one thread
joined by gloo; with more workers than cores they wait for each other, and their seconds do not say what as many
machines would take. `MB` is the most that any worker needs over what it held before the steps: logits, softmax, what
is sent. `rows_MB` is what it holds: all rows, or a share.

`largest_difference` is between a worker's losses and gradients and those of one worker with all rows, over all images.

    python benchmarks/replica.py [--clusters 100000] [--output benchmarks/results/replica.json] [--quick]
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from measure import Row, Timing, peak_mb, report
from torch import Tensor

from reidray.training.batches import shares
from reidray.training.ranks import ProcessGroup
from reidray.training.replica import Replica, Replicated, Sharded, rounds

# B = global batch, C = clusters, S = spaces, D = feature width

GROUPS, GROUP_SIZE, IMAGES_PER_CLUSTER = 4, 16, 4
BATCH = GROUPS * GROUP_SIZE
SPACES, TAU = 4, 0.05
DRAWN_TOGETHER = 10_000


class Plan(NamedTuple):
    """Of one worker: which it is of how many, the placement, sizes, and where it meets the others."""

    rank: int
    size: int
    where: str
    clusters: int
    width: int
    steps: int
    folder: str

    def small(self) -> Plan:
        """A step that takes next to nothing, to have everything loaded."""
        return self._replace(clusters=100, steps=1)


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def own_rows(plan: Plan) -> Tensor:
    """This worker's rows; the same numbers whoever draws them, and never all at once."""
    own = range(plan.rank, plan.clusters, plan.size) if plan.where == "sharded" else range(plan.clusters)
    rows_RSD, place = torch.empty(len(own), SPACES, plan.width), 0
    for first in range(0, plan.clusters, DRAWN_TOGETHER):
        drawn = unit(min(DRAWN_TOGETHER, plan.clusters - first), SPACES, plan.width, seed=first)
        kept = drawn[(own.start - first) % own.step :: own.step]
        rows_RSD[place : place + len(kept)] = kept
        place += len(kept)
    return rows_RSD


def prepare(*arguments: object) -> tuple[Plan, Replica]:
    """Input of `peak_mb`: the process group joined, the rows drawn, everything used once."""
    plan = Plan(*arguments)  # type: ignore[arg-type]
    dist.init_process_group(
        "gloo",
        init_method=f"file://{plan.folder}/meeting",
        rank=plan.rank,
        world_size=plan.size,
        timeout=timedelta(minutes=5),
    )
    run_steps(plan.small(), replica_of(plan.small()))
    return plan, replica_of(plan)


def replica_of(plan: Plan) -> Replica:
    rows_RSD = own_rows(plan)
    return Sharded(rows_RSD, ProcessGroup()) if plan.where == "sharded" else Replicated(rows_RSD)


def call(given: tuple[Plan, Replica]) -> None:
    """The steps; what was found goes to the folder."""
    plan, replica = given
    seconds, cpu_seconds, results = run_steps(plan, replica)
    found = {"seconds": seconds, "cpu_seconds": cpu_seconds, "results": results, "rows": replica.held()[1].nbytes}
    torch.save(found, f"{plan.folder}/{plan.rank}.pt")
    dist.destroy_process_group()


def run_steps(plan: Plan, replica: Replica) -> tuple[list[float], list[float], Tensor]:
    """Wall and CPU seconds of every step; losses and gradients of the last one's images on this worker."""
    labels_B = torch.arange(BATCH) // IMAGES_PER_CLUSTER * (plan.clusters // BATCH)
    places = rounds(shares(GROUPS, plan.size), GROUP_SIZE)
    batch = [range(own.start * GROUP_SIZE, own.stop * GROUP_SIZE) for own in shares(GROUPS, plan.size)]
    seconds, cpu_seconds, results = [], [], []
    for number in range(plan.steps):
        features_BSD = unit(BATCH, SPACES, plan.width, seed=1_000_000 + number)
        dist.barrier()
        wall, cpu, results = time.perf_counter(), time.process_time(), []
        views, _ = replica.views(labels_B, places, batch)
        for view, own in zip(views, [each[plan.rank] for each in places], strict=True):
            own_BSD = features_BSD[own.start : own.stop].requires_grad_()
            losses_BT = view.contrast(own_BSD, labels_B[own.start : own.stop], list(range(SPACES)), temperature=TAU)
            (gradient_BSD,) = torch.autograd.grad(losses_BT.sum(), own_BSD)
            results.append(torch.cat([losses_BT.detach(), gradient_BSD.flatten(1)], 1))
        clusters_U = labels_B.unique()
        replica.write(clusters_U, views[0].rows(clusters_U))
        seconds.append(time.perf_counter() - wall)
        cpu_seconds.append(time.process_time() - cpu)
    return seconds, cpu_seconds, torch.cat(results)


def measured(where: str, size: int, clusters: int, width: int, steps: int) -> tuple[Row, Tensor]:
    """A row, and the results of all images in order (groups divide evenly among 1, 2 and 4 workers)."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(size) as pool:
        plans = [Plan(rank, size, where, clusters, width, steps, folder) for rank in range(size)]
        peaks = list(pool.map(lambda plan: peak_mb(prepare, call, *plan, threads=1), plans))
        found = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(size)]
    rows_mb = [round(worker["rows"] / 1e6, 1) for worker in found]
    row = Row(
        what=f"{where}, {size} worker{'s' if size > 1 else ''}",
        size=f"C = {clusters:,}, {SPACES} spaces, D = {width}, batch of {BATCH}",
        ours=Timing(
            seconds=median(found[0]["seconds"][1:]),
            cpu_seconds=median(found[0]["cpu_seconds"][1:]),
            first_seconds=found[0]["seconds"][0],
        ),
        peak_mb=max(peaks),
        notes={"rows_MB": max(rows_mb), "rows_MB_of_all_workers": round(sum(rows_mb), 1)},
    )
    return row, torch.cat([worker["results"] for worker in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=128, help="of a feature")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], choices=[1, 2, 4])
    parser.add_argument("--output", type=Path, help="where the JSON is kept")
    parser.add_argument("--quick", action="store_true", help="small sizes, few steps")
    arguments = parser.parse_args()
    clusters, width, steps = (2_000, 16, 3) if arguments.quick else (arguments.clusters, arguments.width, 6)
    _, expected = measured("replicated", 1, clusters, width, steps)
    rows = []
    for size in arguments.workers:
        for where in ("replicated", "sharded"):
            row, results = measured(where, size, clusters, width, steps)
            row.notes["largest_difference"] = f"{(results - expected).abs().max().item():.1e}"
            rows.append(row)
    report("replica", rows, threads=1, output=arguments.output)


if __name__ == "__main__":
    main()
