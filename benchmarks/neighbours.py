"""Labelling from features: neighbours, Jaccard distance and DBSCAN, against the arithmetic that cannot be avoided.

    python benchmarks/neighbours.py --output benchmarks/results/neighbours.json
    python benchmarks/neighbours.py --rows memory --output benchmarks/results/neighbours_memory.json      # 10 minutes
    python benchmarks/neighbours.py --rows million --output benchmarks/results/neighbours_million.json    # 20 minutes

The floor is the *triangle*: N^2 D operations, each pair of rows once, at the rate of large matrix products of the type
that proposes on this machine (bfloat16 where the processor multiplies it, else float32), measured in turn with what is
compared with it. The plain library is faiss's exact search where that is installed (pip install faiss-cpu), else
scikit-learn's. Everything is exact but the rows that say otherwise.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from features import draw_features
from measure import Row, Timing, in_turn, peak_mb, report, set_threads
from sklearn.metrics import adjusted_rand_score

from reidray.arrays import Floats, Ints
from reidray.labelling import dbscan
from reidray.neighbours import jaccard_from_neighbours, nearest, nearest_approximately
from reidray.neighbours.product import BFloat16Product, Product, fastest_product, multiplies_bfloat16

K1, K2, MIN_SAMPLES = 30, 6, 4
EPS = {12_936: 0.6, 32_621: 0.7}
BARS = {12_936: 1.7, 32_621: 1.4}
_BLOCK = 4096


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", choices=["usual", "memory", "million"], default="usual")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: shows that it runs")
    parser.add_argument("--note", help="what should be known about this run, kept with its last row")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    set_threads(options.threads)
    if options.quick:
        rows = usual([(1_500, 128)], rounds=1, threads=options.threads)
    elif options.rows == "usual":
        rows = usual([(12_936, 2048), (32_621, 2048)], rounds=options.rounds, threads=options.threads)
    else:
        rows = memory(threads=options.threads) if options.rows == "memory" else million(threads=options.threads)
    if options.note:
        rows[-1].notes["note"] = options.note
    report("neighbours", rows, threads=options.threads, output=options.output)


def labels(features_ND: Floats, eps: float, **how: Any) -> Ints:
    """What an epoch does: neighbours, Jaccard, DBSCAN."""
    search = nearest_approximately if how else nearest
    return labels_of(*search(features_ND, K1, **how), features_ND, eps)


def labels_of(indices_NK: Ints, similarities_NK: Floats, features_ND: Floats, eps: float) -> Ints:
    distances_NN = jaccard_from_neighbours(indices_NK, similarities_NK, features_ND, k1=K1, k2=K2, keep=eps)
    return dbscan(distances_NN, eps=eps, min_samples=MIN_SAMPLES)


def usual(sizes: list[tuple[int, int]], *, rounds: int, threads: int) -> list[Row]:
    """The sizes of Market-1501's and MSMT17's training sets."""
    rows = []
    for count, width in sizes:
        features_ND = draw_features(count, width, seed=7)
        found = nearest(features_ND, K1)
        rows += exact_rows(features_ND, found, rounds=rounds, threads=threads)
        rows.append(approximate_row(features_ND, found, rounds=rounds))
    return [*rows, compilation_row()]


def compilation_row() -> Row:
    """What the first labelling of a machine takes, and the first of a process once compiled code is on disk."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        command = [sys.executable, "-c", _FIRST_CALL]
        cold, warm = (
            float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
            for _ in range(2)
        )
    return Row(
        what="first call of a process, compiled code on disk",
        size="N = 500, D = 64",
        ours=Timing(warm, warm, cold),
        notes={"first call": "nothing on disk yet", "times are of": "a single call"},
    )


_FIRST_CALL = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from neighbours import draw_features, labels
features_ND = draw_features(500, 64, seed=1)
started = time.perf_counter()
labels(features_ND, 0.6)
print(time.perf_counter() - started)
"""


def exact_rows(features_ND: Floats, found: tuple[Ints, Floats], *, rounds: int, threads: int) -> list[Row]:
    count, width = features_ND.shape
    size, eps, product = f"N = {count:,}, D = {width}", EPS.get(count, 0.6), fastest_product()
    name = f"triangle of {product_name(product)}"
    library, search = plain_search(features_ND)
    times = in_turn(
        {
            "floor": lambda: blocks_of_products(features_ND, product),
            "ours": lambda: labels(features_ND, eps),
            "search": lambda: nearest(features_ND, K1),
            "rest": lambda: labels_of(*found, features_ND, eps),
        },
        rounds=rounds,
    )
    plain, theirs = once(search)
    floor = scaled(times["floor"], count * count * width / operations(features_ND))
    ratio = times["ours"].seconds / floor.seconds
    bar = BARS.get(count)
    limits = {32_621: 400.0}
    peak = peak_mb(prepared_features, labels_of_given, count, width, eps, threads=threads)
    return [
        Row(
            what="neighbours, Jaccard, DBSCAN",
            size=size,
            bar=f"<= {bar} x the bfloat16 triangle" + (f", <= {limits[count]:.0f} MB" if count in limits else "")
            if bar
            else "",
            ours=times["ours"],
            floor=(name, floor),
            peak_mb=peak,
            reached=(ratio <= bar and peak <= limits.get(count, np.inf)) if bar and multiplies_bfloat16() else None,
            notes={"eps": eps, **clusters(labels_of(*found, features_ND, eps))},
        ),
        Row(
            what="neighbours",
            size=size,
            ours=times["search"],
            floor=(name, floor),
            library=(library, plain),
            notes={"library equals ours": agreement(features_ND, found[0], theirs)},
        ),
        Row(
            what="Jaccard, DBSCAN from neighbours",
            size=size,
            bar="<= 0.9 CPU-seconds" if count == 32_621 else "",
            ours=times["rest"],
            reached=times["rest"].cpu_seconds <= 0.9 if count == 32_621 else None,
        ),
    ]


def approximate_row(features_ND: Floats, exact: tuple[Ints, Floats], *, rounds: int) -> Row:
    """256 components propose 48 candidates."""
    count, width = features_ND.shape
    eps, how = EPS.get(count, 0.6), {"components": min(256, width // 2), "candidates": 48}
    found = nearest_approximately(features_ND, K1, **how)
    recall = np.mean([np.isin(a, b, assume_unique=True).mean() for a, b in zip(exact[0], found[0], strict=True)])
    both = [as_sets(labels_of(*lists, features_ND, eps)) for lists in (exact, found)]
    return Row(
        what=f"the same, approximate: {how['components']} components, 48 candidates",
        size=f"N = {count:,}, D = {width}",
        ours=in_turn({"ours": lambda: labels(features_ND, eps, **how)}, rounds=rounds)["ours"],
        notes={
            "recall of 30 neighbours": round(float(recall), 5),
            "ARI with the exact labels": round(adjusted_rand_score(*both), 4),
        },
    )


def memory(*, threads: int) -> list[Row]:
    """200,000 rows: what they need beside themselves."""
    peak = peak_mb(prepared_features, labels_of_given, 200_000, 2048, 0.7, threads=threads)
    return [
        Row(
            what="neighbours, Jaccard, DBSCAN",
            size="N = 200,000, D = 2048",
            bar="<= 2,500 MB",
            peak_mb=peak,
            reached=peak <= 2500,
        )
    ]


def million(*, threads: int) -> list[Row]:
    """200,000 and 1,000,000 narrow rows in a mapped file: it ends, and pairs cost the same."""
    rows = []
    per_pair = {}
    for count in (200_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            timing, resident = mapped(Path(folder) / "features.npy", count, threads)
        per_pair[count] = timing.cpu_seconds / count**2
        last = count == 1_000_000
        rows.append(
            Row(
                what="the same, from a mapped file",
                size=f"N = {count:,}, D = 128",
                bar="<= 12,000 MB resident, time per pair as at 200,000" if last else "",
                ours=timing,
                peak_mb=resident,
                reached=resident <= 12_000 and per_pair[count] <= per_pair[200_000] if last else None,
                notes={"CPU-picoseconds per pair": round(per_pair[count] * 1e12, 2), "times are of": "a single call"},
            )
        )
    return rows


def mapped(file: Path, count: int, threads: int) -> tuple[Timing, float]:
    """Time and resident megabytes of labelling rows that lie in a file (reading them counts as memory)."""
    draw_features(count, 128, seed=7, file=file)
    resident = peak_mb(mapped_file, labels_of_given, str(file), threads=threads)
    wall, cpu = (float(number) for number in file.with_suffix(".seconds").read_text().split())
    return Timing(wall, cpu, wall), resident


# --- what is measured in a process of its own -------------------------------------------------------------------------


def prepared_features(count: int, width: int, eps: float) -> tuple[Floats, float]:
    labels(draw_features(500, width, seed=1), eps)
    return draw_features(count, width, seed=7), eps


def mapped_file(file: str) -> tuple[Floats, float]:
    labels(draw_features(500, 128, seed=1), 0.6)
    mapped_ND: Floats = np.load(file, mmap_mode="r")
    return mapped_ND, 0.6


def labels_of_given(given: tuple[Floats, float]) -> None:
    features_ND, eps = given
    wall, cpu = time.perf_counter(), time.process_time()
    print(clusters(labels(features_ND, eps)), file=sys.stderr)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if isinstance(features_ND, np.memmap) and features_ND.filename is not None:
        Path(features_ND.filename).with_suffix(".seconds").write_text(f"{wall} {cpu}")


# --- floors and libraries ---------------------------------------------------------------------------------------------


def blocks_of_products(features_ND: Floats, product: Product) -> None:
    """A large product of the type that proposes; of a block with itself, NumPy would do half of it."""
    rows = product.prepare(features_ND[:_BLOCK])
    product.multiply(rows, rows.clone(), product.room(len(rows) ** 2))


def operations(features_ND: Floats) -> int:
    side = min(_BLOCK, len(features_ND))
    return 2 * side * side * features_ND.shape[1]


def scaled(timing: Timing, factor: float) -> Timing:
    return Timing(timing.seconds * factor, timing.cpu_seconds * factor, timing.first_seconds * factor)


def product_name(product: Product) -> str:
    return "bfloat16" if isinstance(product, BFloat16Product) else "float32"


def plain_search(features_ND: Floats) -> tuple[str, Any]:
    """Exact search by the library that one would take."""
    try:
        import faiss
    except ImportError:
        from sklearn.neighbors import NearestNeighbors

        searcher = NearestNeighbors(n_neighbors=min(K1, len(features_ND)), algorithm="brute", metric="euclidean")
        searcher.fit(features_ND)
        return "scikit-learn brute force", lambda: searcher.kneighbors(features_ND, return_distance=False)
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(features_ND.shape[1])
    index.add(features_ND)
    return "faiss IndexFlatIP", lambda: index.search(features_ND, K1)[1]


def once(call: Any) -> tuple[Timing, Any]:
    """One call of a library that needs no compilation, and what it gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    seconds = time.perf_counter() - wall
    return Timing(seconds, time.process_time() - cpu, seconds), result


def agreement(features_ND: Floats, ours_NK: Ints, theirs_NK: Ints) -> str:
    """Share of lists that are the same, and the largest gap where they are not."""
    differ = np.flatnonzero((theirs_NK != ours_NK).any(axis=1))
    worst = 0.0
    for i in differ:
        ours, theirs = (features_ND[some[i]].astype(np.float64) @ features_ND[i] for some in (ours_NK, theirs_NK))
        worst = max(worst, float(np.abs(ours - theirs).max()))
    return f"{1 - len(differ) / len(ours_NK):.5f} of the lists; elsewhere similarities within {worst:.1e}"


def clusters(labels_N: Ints) -> dict[str, Any]:
    return {"clusters": int(labels_N.max()) + 1, "outliers": round(float((labels_N < 0).mean()), 4)}


def as_sets(labels_N: Ints) -> Ints:
    """Each outlier a set of its own."""
    outliers = labels_N < 0
    return np.where(outliers, labels_N.max() + 1 + np.cumsum(outliers), labels_N)


if __name__ == "__main__":
    main()
