"""Ranking a gallery for each query (`reidray.evaluation.rank`): time, memory, and what it costs beside its product.

The floor is the float32 matrix product of all queries and the gallery alone, in the same blocks, by PyTorch or NumPy,
whichever is faster here. The library version sorts the gallery of each query with NumPy and scores it with
scikit-learn's `average_precision_score`; it ranks some queries only and its time is scaled to all of them. Queries and
gallery are drawn together, so that a person has about 25 images in several cameras; `of an untrained model` adds one
common direction to all features, and `few persons` joins identities to 40 persons, several hundred matches a query.

    python benchmarks/ranking.py [--threads 2] [--output benchmarks/results/ranking.json] [--quick]
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from features import draw
from measure import Row, Timing, in_turn, peak_mb, report, set_threads
from sklearn.metrics import average_precision_score

from reidray.arrays import Floats, Ints
from reidray.evaluation import rank

# Q = queries, G = gallery, D = feature width

_BLOCK, _COLUMNS = 4096, 1024  # queries and gallery images of one product: 2 threads of `rank`, its default block
_MOST_MB = 256.0


class Case(NamedTuple):
    """The arguments of `rank`, in its order."""

    query_QD: Floats
    gallery_GD: Floats
    query_persons: Ints
    gallery_persons: Ints
    query_cameras: Ints
    gallery_cameras: Ints


class Size(NamedTuple):
    """What is drawn: persons = 0 leaves the identities as they are; common is the share of the common direction."""

    what: str
    queries: int
    gallery: int
    width: int
    rounds: int
    limit: float | None = None
    persons: int = 0
    common: float = 0.0


_SIZES = (
    Size("ranking at Market-1501's size", 3_368, 15_913, 2048, 5, limit=1.25),
    Size("ranking at MSMT17's size", 11_659, 82_161, 2048, 3, limit=1.12),
    Size("ranking, of an untrained model", 3_368, 15_913, 2048, 3, common=1.5),
    Size("ranking, few persons", 3_368, 15_913, 2048, 3, persons=40),
)
_QUICK_SIZES = tuple(size._replace(queries=200, gallery=2_000, width=256, rounds=1) for size in _SIZES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true", help="small sizes and one round, to see that it runs")
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    sizes = _QUICK_SIZES if arguments.quick else _SIZES
    rows = [_row(size, arguments.threads, judged=not arguments.quick) for size in sizes]
    report("ranking", rows, threads=arguments.threads, output=arguments.output)


def _row(size: Size, threads: int, *, judged: bool) -> Row:
    case = draw_case(size)
    sample = np.linspace(0, size.queries - 1, min(size.queries, 100)).astype(np.int64)
    sampled = case._replace(
        query_QD=case.query_QD[sample],
        query_persons=case.query_persons[sample],
        query_cameras=case.query_cameras[sample],
    )
    timings = in_turn(
        {
            "ours": partial(rank, *case),
            "torch.mm": partial(_products, case, _torch_product),
            "numpy.matmul": partial(_products, case, _numpy_product),
        },
        rounds=size.rounds,
    )
    library = in_turn({"library": partial(library_mean_average_precision, sampled)}, rounds=1)["library"]
    floor = min(("torch.mm", "numpy.matmul"), key=lambda name: timings[name].seconds)
    difference = abs(rank(*sampled).mAP - library_mean_average_precision(sampled))
    result = rank(*case)
    del case, sampled
    peak = peak_mb(draw_case, rank_case, size, threads=threads)
    ratio = timings["ours"].seconds / timings[floor].seconds
    return Row(
        what=size.what,
        size=f"{size.queries:,} queries x {size.gallery:,} images, D = {size.width}",
        bar=f"<= {size.limit} x the product, <= {_MOST_MB:.0f} MB" if size.limit else "",
        ours=timings["ours"],
        floor=(f"float32 product, {floor}", timings[floor]),
        library=(
            f"argsort and scikit-learn, {len(sample)} of {size.queries:,} queries, scaled",
            _scaled(library, size.queries / len(sample)),
        ),
        peak_mb=peak,
        reached=bool(ratio <= size.limit and peak <= _MOST_MB) if size.limit and judged else None,
        notes={
            "CPU-seconds over floor": round(timings["ours"].cpu_seconds / timings[floor].cpu_seconds, 3),
            "mAP differs from the library's by": difference,
            "mAP": round(result.percent()["mAP"], 2),
        },
    )


def _scaled(timing: Timing, times: float) -> Timing:
    return Timing(*(times * seconds for seconds in (timing.seconds, timing.cpu_seconds, timing.first_seconds)))


def draw_case(size: Size) -> Case:
    """Queries and gallery in random order, of the same persons; ranks a small part once, which compiles."""
    count = size.queries + size.gallery
    features_ND, persons_N, cameras_N = draw(count, size.width, seed=0)
    if size.persons:
        persons_N = persons_N % size.persons
    if size.common:
        common_D = np.abs(np.random.default_rng(1).standard_normal(size.width, dtype=np.float32))
        common_D *= size.common / np.linalg.norm(common_D)
        for start in range(0, count, 4096):
            rows_ND = features_ND[start : start + 4096]
            rows_ND += common_D
            rows_ND /= np.linalg.norm(rows_ND, axis=1, keepdims=True)
    split = [part[some] for part in (features_ND, persons_N + 1, cameras_N) for some in _halves(size.queries)]
    case = Case(*split)
    rank(*(part[:200] for part in case))
    return case


def _halves(queries: int) -> tuple[slice, slice]:
    return slice(0, queries), slice(queries, None)


def rank_case(case: Case) -> None:
    rank(*case)


def _products(case: Case, product: Any) -> None:
    room = np.empty(min(_BLOCK, len(case.query_QD)) * min(_COLUMNS, len(case.gallery_GD)), np.float32)
    for start in range(0, len(case.query_QD), _BLOCK):
        rows_RD = case.query_QD[start : start + _BLOCK]
        for first in range(0, len(case.gallery_GD), _COLUMNS):
            columns_SD = case.gallery_GD[first : first + _COLUMNS]
            product(rows_RD, columns_SD, room[: len(rows_RD) * len(columns_SD)].reshape(len(rows_RD), len(columns_SD)))


def _torch_product(rows_RD: Floats, columns_SD: Floats, out_RS: Floats) -> None:
    torch.mm(torch.from_numpy(rows_RD), torch.from_numpy(columns_SD).T, out=torch.from_numpy(out_RS))


def _numpy_product(rows_RD: Floats, columns_SD: Floats, out_RS: Floats) -> None:
    np.matmul(rows_RD, columns_SD.T, out=out_RS)


def library_mean_average_precision(case: Case) -> float:
    """As many scripts do it: all products, then each query's gallery less what does not count, sorted and scored."""
    products_QG = case.query_QD @ case.gallery_GD.T
    precisions = []
    for q, products_G in enumerate(products_QG):
        same_person_G = case.gallery_persons == case.query_persons[q]
        counts_G = ~(same_person_G & (case.gallery_cameras == case.query_cameras[q]))
        order = np.argsort(-products_G[counts_G], kind="stable")
        matches, scores = same_person_G[counts_G][order], products_G[counts_G][order]
        if matches.any():
            precisions.append(average_precision_score(matches, scores))
    return float(np.mean(precisions))


if __name__ == "__main__":
    main()
