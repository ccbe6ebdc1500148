"""What a run of many images would need on a cluster, from the costs that other benchmarks measured.

    python benchmarks/plan.py
    python benchmarks/plan.py --images 10000000 --spaces 4 --machines 40 --block 4096 --shard 256

Nothing is run: numbers of rows, messages, bytes and tasks follow from how the work is divided, seconds and memory from
benchmarks/results (neighbours, neighbours_million, ranking, packing and large_200000). Each machine has a worker, a
labeller and a shard of the memory bank. Seconds of arithmetic are for machines like those that were measured, two cores
each: with a GPU, or with more cores, they are others.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

from reidray.training.block_search import strip_length
from reidray.training.reading import block_size

RESULTS = Path(__file__).parent / "results"
NUMBER = 4  # bytes of a float32
ENTRY = 8 + NUMBER  # of a neighbour list: the index and the similarity
PREPARED = 1.5  # a block in float32, and in bfloat16 for the product
CELLS = 24 * 8  # of a map of ResNet-50 at 384x128


@dataclass(frozen=True)
class Size:
    """Of a run.

    spaces: vectors of an image's feature that are searched; width: of each. block: run.search_block; shard: of
    data.images_per_shard; neighbours: method.k1.
    """

    images: int = 10_000_000
    spaces: int = 1
    width: int = 2048
    machines: int = 40
    block: int = 4096
    shard: int = 256
    neighbours: int = 30


@dataclass(frozen=True)
class Costs:
    """What was measured.

    product: seconds of a multiplication and addition of two rows' numbers on one machine, in bfloat16, with search and
    lists; float32: of a product alone. cluster: CPU-seconds of Jaccard and DBSCAN an image; clusters: an image. MB an
    image of the labeller that clusters, of the process that packs, and of a checkpoint.
    """

    product: float
    float32: float
    cluster: float
    clusters: float
    cluster_mb: float
    pack_mb: float
    checkpoint_mb: float


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said = {"spaces": "1 for Cluster Contrast, 1 + parts for SCWM that clusters by the whole", "width": "of a vector"}
    said |= {"block": "run.search_block", "shard": "data.images_per_shard", "neighbours": "method.k1"}
    for name, default in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=default, help=said.get(name, ""))
    options = vars(parser.parse_args())
    for name, value in options.items():
        if value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    print(table(planned(Size(**options), measured())))


def measured() -> Costs:
    """From benchmarks/results."""
    search = row("neighbours.json", "neighbours", "N = 32,621, D = 2048")
    cluster = row("neighbours.json", "Jaccard, DBSCAN from neighbours", "N = 32,621, D = 2048")
    million = row("neighbours_million.json", "the same, from a mapped file", "N = 1,000,000, D = 128")
    ranking = row("ranking.json", "ranking at MSMT17's size", "11,659 queries x 82,161 images, D = 2048")
    large = json.loads((RESULTS / "large_200000.json").read_text())
    few, many = (row("packing.json", "read and pack", f"N = {count:,} files of 64x128") for count in (20_000, 200_000))
    return Costs(
        product=search["ours"]["seconds"] / (32_621**2 / 2 * 2048),
        float32=ranking["floor"][1]["seconds"] / (11_659 * 82_161 * 2048),
        cluster=cluster["ours"]["cpu_seconds"] / 32_621,
        clusters=large["clusters"] / large["images"],
        cluster_mb=million["peak_mb"] / 1e6,
        pack_mb=(many["peak_mb"] - few["peak_mb"]) / 180_000,
        checkpoint_mb=large["disk_mb"]["a checkpoint"] / large["images"],
    )


def row(file: str, what: str, size: str) -> dict[str, Any]:
    """A row of a benchmark's results."""
    rows = json.loads((RESULTS / file).read_text())["rows"]
    [found] = [row for row in rows if (row["what"], row["size"]) == (what, size)]
    return dict(found)


def planned(size: Size, costs: Costs) -> list[tuple[str, str]]:
    """What is needed, in words, and how much of it."""
    row_bytes = size.spaces * size.width * NUMBER
    files = ceil(size.images / size.shard)
    block = block_size(size.block, [(0, size.images)])
    blocks = ceil(size.images / block)
    strip = strip_length(blocks * (blocks - 1) // 2, size.machines)
    tasks = size.spaces * (blocks + sum(ceil((blocks - 1 - first) / strip) for first in range(blocks)))
    read = size.spaces * (blocks * (blocks - 1) // 2) + tasks  # blocks: every other one, and once that of the task
    moved = read * block * size.width * NUMBER
    pairs = size.images**2 / 2 * size.spaces
    lists = size.images * size.neighbours * ENTRY
    asked = min(size.machines, max(1, block // size.shard))
    clusters = f"{size.images * costs.cluster:,.0f} CPU-seconds, {size.images * costs.cluster_mb / 1e3:,.0f} GB"
    doubts = size.images**2 * costs.clusters * size.width * costs.float32
    centroids = size.images * costs.clusters * size.width * NUMBER
    pieces = ceil(size.images * costs.clusters / block)
    sent = ceil(blocks / strip_length(blocks * pieces, size.machines)) * centroids
    rows = [
        ("rows of a bank shard", f"{ceil(size.images / size.machines):,} images"),
        (
            "their features",
            f"{size.images * row_bytes / size.machines / 1e9:,.1f} GB a shard, twice with method.camera_centring",
        ),
        ("messages of an extraction", f"{files:,}, each of {size.shard * row_bytes / 1e6:,.0f} MB"),
        ("block tasks of a labelling", f"{tasks:,}, of one block of {block:,} images with up to {strip}"),
        ("blocks that tasks read", f"{read:,}, each of up to {asked} shards: {read * asked:,} messages"),
        ("two blocks, in each labeller", f"{2 * PREPARED * block * size.width * NUMBER / 1e9:,.1f} GB"),
        ("bytes that tasks read", f"{moved / 1e12:,.1f} TB, {moved / size.machines / 1e9:,.0f} GB a labeller"),
        ("multiplying and searching", f"{pairs * size.width * costs.product / size.machines / 3600:,.1f} h"),
        ("lists, in the worker of rank 0", f"{2 * lists / 1e9:,.1f} GB a space, with the copy that is clustered"),
        ("Jaccard and DBSCAN, one labeller", clusters),
        ("doubts of the last labels", f"{doubts / size.machines / 3600:,.1f} h"),
        (
            "their centroids, in the worker of rank 0",
            f"{centroids / 1e9:,.1f} GB, of which it sends {sent / 1e9:,.0f} GB",
        ),
        ("labels to the bank", f"{files:,} messages of rank 0"),
        ("packing, one process", f"{size.images * costs.pack_mb / 1e3:,.1f} GB"),
        ("a checkpoint", f"{size.images * costs.checkpoint_mb / 1e3:,.1f} GB"),
    ]
    if size.spaces > 1:
        grams = size.images * CELLS**2 * NUMBER
        rows.insert(3, ("inner products of cells, to labellers", f"{grams / 1e12:,.1f} TB an extraction"))
    return rows


def table(rows: list[tuple[str, str]]) -> str:
    """Markdown."""
    return "\n".join(["| what | how much |", "|---|---|", *(f"| {what} | {much} |" for what, much in rows)])


if __name__ == "__main__":
    main()
