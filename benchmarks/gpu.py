"""Labelling and part clustering on one GPU, from arrays that are there already.

    python benchmarks/gpu.py [--threads 2] [--output benchmarks/results/gpu.json] [--quick]

Labelling is everything from unit features to the labels of DBSCAN: neighbours, sparse Jaccard distances, clusters. Its
floor is the bfloat16 product of all rows with all rows, in the blocks that the search takes. Part clustering starts
from inner products in bfloat16, as the extraction leaves them. Every timed call waits for the GPU; kernels are compiled
in the first, which is in no median. Memory is the most that PyTorch held over the input; CuPy only launches.

Needs a CUDA device and CuPy, and says so in one sentence where there is none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from features import draw_features
from measure import Row, in_turn, report, set_threads

from reidray.cuda.dbscan import dbscan
from reidray.cuda.device import Device, cuda_device
from reidray.cuda.difficulty import difficulty
from reidray.cuda.jaccard import SparseRows, jaccard_from_neighbours
from reidray.cuda.neighbours import nearest
from reidray.cuda.parsing import parse_grams

WIDTH = 2048
K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.6, 4
BLOCK = 4096
HEIGHT_OF_MAP, WIDTH_OF_MAP = 24, 8
PARSING = {
    "height": HEIGHT_OF_MAP,
    "width": WIDTH_OF_MAP,
    "num_parts": 4,
    "max_distance": 8.0,
    "linkage": "average",
    "classes": 3,
    "log_magnitude": False,
    "centre_prior": 0.0,
    "space": "forbid",
}


def waited_for(call: Callable[[], Any]) -> Callable[[], None]:
    """The call until the GPU has done it."""

    def complete() -> None:
        call()
        torch.cuda.synchronize()

    return complete


def most_mb(call: Callable[[], Any]) -> float:
    """Megabytes (10^6 bytes) of the GPU that PyTorch holds during a call, over what it held before."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    waited_for(call)()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def product_of_all(rows_ND: torch.Tensor) -> None:
    """Every inner product once, in bfloat16 with float32 results."""
    rows_at_once = max(256, BLOCK * BLOCK // len(rows_ND) // 256 * 256)
    for start in range(0, len(rows_ND), rows_at_once):
        torch.mm(rows_ND[start : start + rows_at_once], rows_ND.T, out_dtype=torch.float32)


def labelling(count: int, device: Device, *, rounds: int) -> list[Row]:
    features_ND = torch.from_numpy(np.asarray(draw_features(count, WIDTH, seed=0))).cuda()
    rounded_ND = features_ND.bfloat16()

    def neighbours() -> tuple[torch.Tensor, torch.Tensor]:
        return nearest(features_ND, K1, block=BLOCK, device=device)

    def distances(lists: tuple[torch.Tensor, torch.Tensor]) -> SparseRows:
        return jaccard_from_neighbours(*lists, features_ND, k1=K1, k2=K2, keep=EPS, device=device)

    def labels(rows: SparseRows) -> torch.Tensor:
        return dbscan(rows, eps=EPS, min_samples=MIN_SAMPLES, dense_bytes=0, device=device)

    found = neighbours()
    close = distances(found)
    clusters = int(labels(close).max()) + 1
    floor = "bfloat16 product of all rows"
    calls: dict[str, Callable[[], Any]] = {
        "all": lambda: labels(distances(neighbours())),
        floor: lambda: product_of_all(rounded_ND),
        "neighbours": neighbours,
        "Jaccard distances": lambda: distances(found),
        "DBSCAN": lambda: labels(close),
        "difficulty of 3 parts": lambda: difficulty(found[0], [found[0].flip(0)] * 3, device=device),
    }
    times = in_turn({name: waited_for(call) for name, call in calls.items()}, rounds=rounds)
    size = f"N = {count:,}, D = {WIDTH}"
    full = count == 32_621
    whole = Row(
        what="neighbours, Jaccard, DBSCAN from features on the GPU",
        size=size,
        bar="0.5 s on an H100" if full else "",
        ours=times["all"],
        floor=(floor, times[floor]),
        reached=times["all"].seconds <= 0.5 if full else None,
        notes={
            "gpu": torch.cuda.get_device_name(),
            "gpu_mb": round(most_mb(calls["all"])),
            "clusters": clusters,
            "stored_distances": len(close.columns_E),
        },
    )
    parts = [name for name in calls if name not in ("all", floor)]
    return [whole, *(Row(what=f"{name}, of the above", size=size, ours=times[name]) for name in parts)]


def draw_grams(count: int) -> torch.Tensor:
    """bfloat16 inner products of maps that look like a standing person: 68 of 192 cells are bright, in three looks."""
    random = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(HEIGHT_OF_MAP), torch.arange(WIDTH_OF_MAP), indexing="ij")
    body_P = ((rows >= 3) & (rows < 20) & (columns >= 2) & (columns < 6)).flatten().cuda()
    look_P = ((rows >= 7).int() + (rows >= 13).int()).flatten().cuda()
    looks_BLD = torch.rand((count, 3, 64), generator=random).cuda()
    noise_BPD = torch.rand((count, len(look_P), 64), generator=random).cuda()
    cells_BPD = looks_BLD[:, look_P] + 0.3 * noise_BPD
    cells_BPD *= torch.where(body_P, 1.0, 0.1)[:, None]
    return (cells_BPD @ cells_BPD.mT).bfloat16()


def part_clustering(count: int, device: Device, *, rounds: int) -> Row:
    grams_BPP = draw_grams(count)

    def ours() -> Any:
        return parse_grams(grams_BPP, **PARSING, device=device)

    timing = in_turn({"ours": waited_for(ours)}, rounds=rounds)["ours"]
    images_a_second = count / timing.seconds
    return Row(
        what="part clustering from inner products on the GPU",
        size=f"{count:,} images of {HEIGHT_OF_MAP} x {WIDTH_OF_MAP} cells",
        bar="100,000 images/s on an H100",
        ours=timing,
        reached=images_a_second >= 100_000,
        notes={
            "images_per_second": round(images_a_second),
            "gpu_mb": round(most_mb(ours)),
            "mean_foreground": round(float(ours().foreground_B.double().mean()), 1),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of all pools of the host")
    parser.add_argument("--output", type=Path, help="where the JSON is kept")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    arguments = parser.parse_args()
    try:
        device = cuda_device()
    except (RuntimeError, ImportError) as error:
        sys.exit(f"benchmarks/gpu.py cannot run here: {error}")
    set_threads(arguments.threads)
    sizes, images, rounds = ((1_000,), 256, 1) if arguments.quick else ((12_936, 32_621), 8_192, 7)
    rows = [row for count in sizes for row in labelling(count, device, rounds=rounds)]
    rows.append(part_clustering(images, device, rounds=rounds))
    report("gpu", rows, threads=arguments.threads, output=arguments.output)


if __name__ == "__main__":
    main()
