"""A training step beside the same step in a bare PyTorch DDP loop, and what a step waits for the memory bank.

Ray Train starts two workers of one thread (gloo) with bank and labellers as actors, as in any run; a small drawn set is
extracted and labelled, and a worker's batches are made beforehand, so that loading is in neither. Then in turn, a few
steps each:

- ours: what `reidray/training/loop.py` does in a step: `Learner.update` (BN groups, gathers, memory), rank 0's rows to
  the bank, the losses to the host and the check that they are finite.
- the bare loop: `DistributedDataParallel` as it comes around the same network with PyTorch's own batch norm, the same
  loss functions on the same images, one `dist.all_gather` of the features, a memory that is a tensor of the process,
  the same rule of update; PyTorch's settings as they come, where a run asks for deterministic algorithms.
- the bare loop with `forward_sync_buffers=False`: DDP as it comes sends rank 0's running statistics to all before every
  forward pass, which ours does not need, since it has the statistics of all.

All start from equal weights and must have equal losses after the first step. A step is timed on rank 0, from a barrier
on. The bank is flushed after each turn, and that is timed apart: no turn pays for another's writes. `exposed wait` is
what rank 0 spends in `WriteBehind.add`, plus its share of the flush. `ours / bare` is the ratio of the medians.

    OMP_NUM_THREADS=1 python benchmarks/step.py [--output benchmarks/results/step.json] [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from reidray.bank import MemoryBank
from reidray.config import Settings
from reidray.features import Embedder, Network
from reidray.features.embedder import build_trunk
from reidray.launch.services import worker_context
from reidray.losses import (
    centroid_contrast,
    diversity_loss,
    parsing_loss,
    part_separation,
    weighted_contrast,
)
from reidray.memory import average_update
from reidray.training import epoch_labels, epoch_updates, loop
from reidray.training.batches import Group, Step
from reidray.training.context import Context, Meter
from reidray.training.images import as_input
from reidray.training.label_service import LabelService
from reidray.training.learner import Learner
from reidray.training.placement import compare_with_bank, load_replicas
from reidray.training.ranks import ProcessGroup
from reidray.training.state import RunState
from reidray.training.write_behind import WriteBehind

# B = global batch, C = clusters, S = spaces (0 = global, then the parts), D = feature width

BAR, WAIT_BAR = 1.05, 0.01
CPU = torch.device("cpu")
Batch = tuple[Step, list[Group]]


def settings_of(folder: Path, *, quick: bool) -> Settings:
    """The defaults, but for fewer persons to draw and nobody to evaluate on."""
    return Settings(
        data={
            "packed": str(folder / "packed"),
            "root": str(folder / "drawn"),
            "drawn": {"train_persons": 40 if quick else 60, "validation_persons": 1, "test_persons": 1},
        },
        run={"workers": 2, "replica": "replicated", "dir": str(folder / "run"), "device": "cpu", "threads": 1},
    )


# ---- the candidates; a step returns the losses of this rank's images, or those of all


class Ours:
    """A step as `reidray.training.loop` takes it."""

    def __init__(self, context: Context, state: RunState) -> None:
        self._context = context
        replicas = load_replicas(context, state.method.memories, 0)
        self.learner = Learner(context.settings, state, replicas, epoch=0, ranks=context.ranks, device=CPU)
        self._bank = TimedBank(context.bank, 0)
        self._meter = Meter(context, "train", context.settings.train.steps, "steps", 0)
        self._losses: dict[str, list[float]] = {}
        self._number = 0
        self.waits, self.flushes = self._bank.waits, self._bank.flushes

    def begin(self) -> None:
        loop.repeatable(CPU)

    def step(self, batch: Batch) -> dict[str, float]:
        step, groups = batch
        update = self.learner.update(step, groups)
        if self._context.ranks.rank == 0:
            self._bank.update(self._number, update.moved)
        terms = dict(zip(update.losses, torch.stack(list(update.losses.values())).tolist(), strict=True))
        epoch_updates._stop_if_not_finite(terms, 0, self._number)
        for name, value in terms.items():
            self._losses.setdefault(name, []).append(value)
        self._meter.add(1, self._context.settings.batch_size, terms)
        self._number += 1
        return terms

    def end(self) -> None:
        if self._context.ranks.rank == 0:
            self._bank.flush()

    def memory_CSD(self) -> Tensor:
        return self.learner.replicas["features"].held()[1]


class TimedBank:
    """The bank, and the seconds that its caller spends in it."""

    def __init__(self, bank: MemoryBank, epoch: int) -> None:
        self._bank, self._behind = bank, WriteBehind(bank, epoch)
        self.waits: list[tuple[float, float]] = []
        self.flushes: list[tuple[float, float]] = []

    def update(self, number: int, moved: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self._behind.add(number, {name: (own.cpu().numpy(), rows.cpu().numpy()) for name, (own, rows) in moved.items()})
        self.waits.append((time.perf_counter() - wall, time.process_time() - cpu))

    def flush(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self._behind.send()
        self._bank.flush()
        self.flushes.append((time.perf_counter() - wall, time.process_time() - cpu))


class Bare:
    """SCWM as one would write it for DDP alone; one BN group a worker, so that PyTorch's batch norm sees the same."""

    def __init__(self, context: Context, network: Embedder, **ddp: bool) -> None:
        self._settings = context.settings
        self._network = DistributedDataParallel(network, **ddp)
        self._optimiser = adam(network, context.settings)
        self._centroids_CSD = torch.from_numpy(context.bank.memory("features", 0))
        network.train()

    def begin(self) -> None:
        from torch.utils import deterministic  # no module, so Ray cannot send it with this function

        torch.use_deterministic_algorithms(False)
        deterministic.fill_uninitialized_memory = True  # PyTorch's default

    def step(self, batch: Batch) -> dict[str, float]:
        step, (group,) = batch
        features = self._network(as_input(group.pixels, CPU))
        terms = self._terms(features, group)
        loss = torch.stack([loss_B.mean() for loss_B in terms.values()]).sum()
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        own_BSD = features.features_BSD.detach().contiguous()
        gathered = [torch.empty_like(own_BSD) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, own_BSD)
        clusters_U, places_B = step.targets.labels_B.unique(return_inverse=True)
        self._centroids_CSD[clusters_U] = average_update(
            self._centroids_CSD[clusters_U],
            torch.cat(gathered),
            places_B,
            momentum=self._settings.method.momentum,
        )
        return {name: loss_B.mean().item() for name, loss_B in terms.items()}

    def _terms(self, features: Any, group: Group) -> dict[str, Tensor]:
        targets, tau = group.targets, self._settings.method.temperature
        contrast_BS = torch.stack(
            [
                centroid_contrast(
                    features.features_BSD[:, space], targets.labels_B, self._centroids_CSD[:, space], temperature=tau
                )
                for space in range(features.features_BSD.shape[1])
            ],
            1,
        )
        contrast_BS = weighted_contrast(contrast_BS, targets["weights"], place=self._settings.scwm.weight_place)
        own_BLD = self._centroids_CSD[targets.labels_B][:, 1:]
        return {
            "parsing": parsing_loss(features.part_logits_BLHW, targets["masks"], targets["visible"]),
            "diversity": diversity_loss(features.masks_BLHW, cells=self._settings.scwm.diversity_cells),
            "global_contrast": contrast_BS[:, 0],
            "part_contrast": contrast_BS[:, 1:].mean(1),
            "separation": part_separation(features.features_BSD[:, 1:], own_BLD, temperature=tau),
        }

    def end(self) -> None:
        pass

    def memory_CSD(self) -> Tensor:
        return self._centroids_CSD


def adam(model: Embedder, settings: Settings) -> torch.optim.Adam:
    train = settings.train
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=train.learning_rate, weight_decay=train.weight_decay)


def bare_network(settings: Settings, like: Network) -> Embedder:
    """The same network with PyTorch's own batch norm, and the same weights."""
    model = settings.model
    network = Embedder(
        build_trunk(model.backbone, 0),
        pooling=model.pooling,
        num_parts=settings.scwm.num_parts,
        part_pooling=model.part_pooling,
        seed=0,
    ).to(memory_format=torch.channels_last)
    network.load_state_dict(like.state_dict())
    return network


# ---- what a worker runs


def work(handed: dict[str, Any], *, rounds: int, turn: int) -> dict[str, Any] | None:
    """In place of a run's epochs; rank 0 returns what was found."""
    ranks, settings = ProcessGroup(), handed["settings"]
    context = worker_context(
        settings,
        handed["packed"],
        Path(handed["run_dir"]),
        handed["bank"],
        LabelService(handed["labellers"], settings, handed["bank"]),
        lambda event: handed["mailbox"].submit("put", dict(event)),
        ranks,
        CPU,
    )
    loop.repeatable(CPU)
    state = loop._start(context, context.method, context.split("train").source.digest, weights=True)
    epoch_labels.extract(context, state, 0)
    figures = epoch_labels.label(context, state, 0)
    batches = list(epoch_updates._batches(context, state, context.bank.read("train/labels", 0), 0, 0))
    networks = [bare_network(settings, state.model) for _ in range(2)]
    candidates: dict[str, Any] = {
        "ours": Ours(context, state),
        "bare": Bare(context, networks[0]),
        "bare, forward_sync_buffers=False": Bare(context, networks[1], forward_sync_buffers=False),
    }
    found = in_turn(candidates, batches, ranks, rounds=rounds, turn=turn)
    ours = candidates["ours"]
    compare_with_bank(context, ours.learner.replicas, 0)
    context.checkpoints.close()
    if ranks.rank:
        return None
    return found | {
        "first_wait": ours.waits[0][0],
        "waits": ours.waits[1:],
        "flushes": ours.flushes[1:],
        "turn": turn,
        "rounds": rounds,
        "clusters": figures["clusters"],
        "shape_CSD": tuple(ours.memory_CSD().shape),
    }


def in_turn(
    candidates: dict[str, Any], batches: list[Batch], ranks: ProcessGroup, *, rounds: int, turn: int
) -> dict[str, Any]:
    """Wall and CPU seconds of every step after the first, in which losses must agree; every round begins elsewhere."""
    first, losses = {}, {}
    for name, candidate in candidates.items():
        candidate.begin()
        first[name], losses[name] = timed(candidate.step, batches[0], ranks)
        candidate.end()
    differences = {name: difference(losses["ours"], own, ranks) for name, own in losses.items() if name != "ours"}
    assert max(differences.values()) <= 1e-5, f"losses of the first step differ from ours: {differences}"
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            candidates[name].begin()
            for place in range(turn):
                batch = batches[(1 + number * turn + place) % len(batches)]
                times[name].append(timed(candidates[name].step, batch, ranks)[0])
            candidates[name].end()
    return {"first": first, "times": times, "differences": differences}


def timed(
    step: Callable[[Batch], dict[str, float]], batch: Batch, ranks: ProcessGroup
) -> tuple[tuple[float, float], dict[str, float]]:
    ranks.barrier()
    wall, cpu = time.perf_counter(), time.process_time()
    losses = step(batch)
    return (time.perf_counter() - wall, time.process_time() - cpu), losses


def difference(ours: dict[str, float], own: dict[str, float], ranks: ProcessGroup) -> float:
    """Between our losses, which are of all images, and the mean over ranks of a bare loop's."""
    everyone = ranks.gather(own)
    return max(abs(value - float(np.mean([losses[name] for losses in everyone]))) for name, value in ours.items())


# ---- the command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="where the JSON is kept")
    parser.add_argument("--quick", action="store_true", help="few images and steps, to see that it runs")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--turn", type=int, default=10, help="steps of each candidate in a round")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.turn = 2, 3
    from measure import report  # not needed where the workers are

    with TemporaryDirectory() as folder:
        settings = settings_of(Path(folder), quick=arguments.quick)
        found = on_ray(settings, partial(work, rounds=arguments.rounds, turn=arguments.turn))
    report("step", rows_of(settings, found, judged=not arguments.quick), threads=1, output=arguments.output)


def on_ray(settings: Settings, worker: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """`worker` where `reidray.training.loop.train` would run, everything around it as in a run."""
    from reidray.actors import train_group
    from reidray.actors.cluster import connect
    from reidray.launch.prepare import prepared

    packed = prepared(settings, silent, processes=1)
    connect(settings)
    train_group.work = worker
    Path(settings.run.dir or "").mkdir()
    return train_group.train_on_ray(settings, packed, Path(settings.run.dir or ""), silent)


def silent(event: Mapping[str, Any]) -> None:
    pass


def rows_of(settings: Settings, found: dict[str, Any], *, judged: bool) -> list[Any]:
    from measure import Row, Timing

    def timing(name: str) -> Timing:
        walls, cpus = zip(*found["times"][name], strict=True)
        return Timing(float(np.median(walls)), float(np.median(cpus)), found["first"][name][0])

    data, (C, S, D) = settings.data, found["shape_CSD"]
    size = f"{settings.batch_size} images of {data.height} x {data.width}, {settings.model.backbone}, {C} clusters, "
    size += f"{S} spaces, D = {D}, 2 workers"
    ours, bare, silent = (timing(name) for name in found["times"])
    pairs = np.reshape(found["waits"][: len(found["waits"]) // 2 * 2], (-1, 2, 2))  # of two steps one sends
    waits, flushes = np.median(pairs.mean(1), 0), np.median(found["flushes"], 0) / found["turn"]
    exposed = Timing(*(waits + flushes).tolist(), found["first_wait"])
    return [
        Row(
            what="a step",
            size=size,
            bar=f"<= {BAR} x a bare DDP loop",
            ours=ours,
            floor=("bare DDP loop", bare),
            reached=ours.seconds <= BAR * bare.seconds if judged else None,
            notes={
                "steps": len(found["times"]["ours"]),
                "in turns of": found["turn"],
                "quartiles_ms": {name: quartiles_ms(name, found) for name in found["times"]},
                "CPU-seconds over the bare loop's": round(ours.cpu_seconds / bare.cpu_seconds, 3),
                "over the bare loop, forward_sync_buffers=False": round(ours.seconds / silent.seconds, 3),
                "CPU-seconds over it": round(ours.cpu_seconds / silent.cpu_seconds, 3),
                "losses_of_the_first_step_differ_by": f"{max(found['differences'].values()):.1e}",
            },
        ),
        Row(
            what="exposed wait for the bank in a step, 2 shards",
            size=size,
            bar=f"<= {WAIT_BAR:.0%} of a step",
            ours=exposed,
            floor=("a step", ours),
            reached=exposed.seconds <= WAIT_BAR * ours.seconds if judged else None,
            notes={"update_ms": round(1e3 * float(waits[0]), 3), "flush_ms": round(1e3 * float(flushes[0]), 3)},
        ),
    ]


def quartiles_ms(name: str, found: dict[str, Any]) -> list[float]:
    walls = [wall for wall, _ in found["times"][name]]
    return [round(1e3 * value, 1) for value in np.percentile(walls, (25, 75)).tolist()]


if __name__ == "__main__":
    main()
