"""The neighbour search by block tasks against the search of all rows at once, on one machine with as many threads.

    python benchmarks/blocks.py --output benchmarks/results/blocks.json

Block tasks go the way that they go in a run: through `run_all` to labellers, which read their blocks from a memory
bank; `GrowingLists` merges what they bring. Once one labeller has all threads, in this process; once each thread is a
labeller of its own, in a process of its own (what passes between processes is pickled). CPU-seconds are those of all
processes. Results are compared bit for bit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from features import draw_features
from measure import Row, in_turn, peak_mb, report, set_threads

from reidray.arrays import Floats, Ints
from reidray.bank import BankShard, Done, InProcess, Member, MemoryBank
from reidray.config import Settings
from reidray.methods.label_search import Space
from reidray.neighbours import nearest
from reidray.training.block_search import GrowingLists, strip_length
from reidray.training.labeller import Labeller
from reidray.training.pool import run_all
from reidray.training.reading import Moment, Stretch, stretches

K1 = 30
FEATURES = Space("features")
SIZES = {12_936: 4, 32_621: 8}  # images of Market-1501's and MSMT17's training sets, in blocks of run.search_block


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blocks", type=int, help="how many, instead of those that run.search_block makes")
    parser.add_argument("--quick", action="store_true", help="a small size, one round: shows that it runs")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    set_threads(options.threads)
    rounds, threads = 1 if options.quick else options.rounds, options.threads
    sizes = {1_500: 4} if options.quick else SIZES
    rows = []
    for count, blocks in sizes.items():
        width = 128 if options.quick else 2048
        rows += compared(count, width, options.blocks or blocks, rounds=rounds, threads=threads)
    report("blocks", rows, threads=threads, output=options.output)


def compared(count: int, width: int, blocks: int, *, rounds: int, threads: int) -> list[Row]:
    """One process that searches everything, one that works off block tasks, and several that share these."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.npy"
        np.save(file, draw_features(count, width, seed=7))
        features_ND = np.load(file)
        alone = [InProcess(Labeller(*furnished(file, count, blocks)))]
        several = [Child(file, count, blocks, threads=1) for _ in range(threads)]
        expected = nearest(features_ND, K1)

        def cpu_seconds() -> float:
            return time.process_time() + sum(child.submit("cpu_seconds").result() for child in several)

        candidates: dict[str, Callable[[], Any]] = {
            "at once": lambda: nearest(features_ND, K1),
            "by blocks": lambda: by_blocks(alone, count, blocks),
            "by several": lambda: by_blocks(several, count, blocks),
        }
        equal = [same(expected, by_blocks(members, count, blocks)) for members in (alone, several)]
        times = in_turn(candidates, rounds=rounds, clock=cpu_seconds)
        for child in several:
            child.close()
        peak = peak_mb(prepared_task, call_task, file, count, blocks, threads=threads)
    size = f"N = {count:,}, D = {width}, k = {K1}, {blocks} blocks"
    rows = [
        Row(what="neighbours of all rows at once", size=size, ours=times["at once"]),
    ]
    for name, what, bits in (
        ("by blocks", f"block tasks, one labeller of {threads} threads", equal[0]),
        ("by several", f"block tasks, {threads} labellers of one thread", equal[1]),
    ):
        wall = times[name].seconds / times["at once"].seconds
        cpu = times[name].cpu_seconds / times["at once"].cpu_seconds
        rows.append(
            Row(
                what=what,
                size=size,
                bar="<= 1.15 x at once, wall and CPU-seconds",
                ours=times[name],
                reached=wall <= 1.15 and cpu <= 1.15,
                notes={"wall x": round(wall, 3), "CPU x": round(cpu, 3), "equal bit for bit": bits},
            )
        )
    rows.append(Row(what="memory of a task: a block with another one", size=size, peak_mb=peak))
    return rows


def furnished(file: Path, count: int, blocks: int) -> tuple[Settings, MemoryBank]:
    """Settings, and a bank with the features in shards of a fourth of a block."""
    settings = Settings.model_validate(
        {"method": {"name": "cluster_contrast", "k1": K1}, "run": {"search_block": -(-count // blocks)}}
    )
    layout = shards_of(count, blocks)
    bank = MemoryBank([InProcess(BankShard()) for _ in range(2)], {"train": layout})
    features_ND = np.load(file, mmap_mode="r")
    for shard, (first, rows) in enumerate(layout):
        bank.put("train/features", 0, shard, features_ND[first : first + rows, None])
    return settings, bank


def shards_of(count: int, blocks: int) -> list[tuple[int, int]]:
    """First index and number of images of each shard: four a block."""
    edges = [count * edge // (4 * blocks) for edge in range(4 * blocks + 1)]
    return [(first, last - first) for first, last in pairwise(edges)]


def blocks_of(count: int, blocks: int) -> list[Stretch]:
    """The blocks that a labelling would make."""
    cut = stretches(shards_of(count, blocks), count // blocks - 1)
    assert len(cut) == blocks
    return cut


def by_blocks(members: list[Any], count: int, blocks: int) -> tuple[Ints, Floats]:
    """The lists by these labellers, who have kept nothing from the time before."""
    for member in members:
        member.submit("forget").result()
    strip = strip_length(blocks * (blocks - 1) // 2, len(members))
    lists = GrowingLists(Moment(0, 0), FEATURES, blocks_of(count, blocks), K1, strip=strip, there=lambda _: True)
    run_all(members, lists.tasks)
    return lists.lists()


def same(one: tuple[Ints, Floats], other: tuple[Ints, Floats]) -> bool:
    return all(np.array_equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def prepared_task(file: Path, count: int, blocks: int) -> tuple[Labeller, tuple[Any, ...]]:
    """A labeller, warm, and the arguments of a task about two whole blocks that it has not read yet."""
    settings, bank = furnished(file, count, blocks)
    tiny = settings.model_copy(update={"run": settings.run.model_copy(update={"labeller_cache_mb": 0.0})})
    labeller = Labeller(tiny, bank)
    cut = blocks_of(count, blocks)
    known = [np.full((block.count, K1), -np.inf, np.float32) for block in cut]
    small = [replace(block, count=1, shards=range(block.shards.start, block.shards.start + 1)) for block in cut]
    few = [np.full((bank.layout("train")[block.shards.start][1], K1), -np.inf, np.float32) for block in small]
    labeller.find(Moment(0, 0), FEATURES, small[0], few[0], [(small[1], few[1])])
    labeller.forget()
    return labeller, (Moment(0, 0), FEATURES, cut[0], known[0], [(cut[1], known[1])])


def call_task(given: tuple[Labeller, tuple[Any, ...]]) -> None:
    labeller, arguments = given
    labeller.find(*arguments)


class Child(Member):
    """A labeller with a bank of its own, in a process of its own."""

    def __init__(self, file: Path, count: int, blocks: int, *, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_answer, args=(there, file, count, blocks, threads), daemon=True)
        self._process.start()

    def submit(self, method: str, *arguments: Any) -> Done:
        """Call it; the answer is waited for here."""
        self._pipe.send((method, arguments))
        return Done(self._pipe.recv())

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


def _answer(pipe: Connection, file: Path, count: int, blocks: int, threads: int) -> None:
    set_threads(threads)
    labeller = Labeller(*furnished(file, count, blocks))
    while (call := pipe.recv()) is not None:
        method, arguments = call
        pipe.send(time.process_time() if method == "cpu_seconds" else getattr(labeller, method)(*arguments))


if __name__ == "__main__":
    main()
