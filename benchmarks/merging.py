"""Merging clusters down to 5 % of the images, in 19 stages of 5 % each, on fixed features: IHC and BUC.

    python benchmarks/merging.py [--threads 2] [--output benchmarks/results/merging.json] [--quick]

Ours is everything from unit features to the labels of the last stage. The floor is the lower triangle of the float32
matrix product and, for each stage, one pass (read and write) over the matrices that the criterion keeps. A run that
trains between stages pays one stage at a time from new features: the row "one stage" measures it half way.

SciPy's `linkage(method="single")` is the library version of BUC's criterion without its size term, and of nothing else
here: it knows neither the size term, nor IMD, nor CPD. It takes float64 rows and keeps the whole distance matrix in
float64, so it is compared at a smaller N; `labels_equal` says whether cutting its tree gives our clusters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from features import draw_features
from measure import Row, in_turn, peak_mb, report, set_threads
from scipy.cluster.hierarchy import fcluster, linkage

from reidray.arrays import Floats, Ints
from reidray.labelling import Criterion, merge_stage, stage_distances

WIDTH, STAGES = 2048, 19
CRITERIA = {
    "IHC": (Criterion("intermediate", size_weight=0.0, compactness_weight=0.3), 3),
    "BUC": (Criterion("minimum", size_weight=0.003, compactness_weight=0.0), 1),
}
WITHOUT = Criterion("minimum", size_weight=0.0, compactness_weight=0.0)
BLOCK = 512


def all_stages(features_ND: Floats, criterion: Criterion) -> Ints:
    """Labels of the last stage."""
    count = int(0.05 * len(features_ND))
    labels_N = np.arange(len(features_ND))
    distances = stage_distances(features_ND, labels_N, criterion=criterion)
    for _ in range(STAGES):
        labels_N = merge_stage(distances, count, criterion=criterion)
    return labels_N


def one_stage(features_ND: Floats, labels_N: Ints, criterion: Criterion) -> Ints:
    """A stage that begins with new features."""
    distances = stage_distances(features_ND, labels_N, criterion=criterion)
    return merge_stage(distances, int(0.05 * len(features_ND)), criterion=criterion)


def floor(features_ND: Floats, matrices_MP: list[torch.Tensor]) -> None:
    """The arithmetic and the memory traffic that cannot be avoided."""
    rows = torch.from_numpy(features_ND)
    for start in range(0, len(rows), BLOCK):
        torch.mm(rows[start : start + BLOCK], rows[: start + BLOCK].T)
    for stage in range(STAGES):
        left = len(rows) - stage * int(0.05 * len(rows))
        for matrix_P in matrices_MP:
            matrix_P[: left * (left - 1) // 2].mul_(1.0)


def prepare(name: str, images: int) -> tuple[str, Floats]:
    """Input of `peak_mb`, with everything compiled and imported."""
    call((name, draw_features(200, WIDTH, seed=1)))
    return name, draw_features(images, WIDTH, seed=0)


def call(given: tuple[str, Floats]) -> None:
    name, features_ND = given
    all_stages(features_ND, CRITERIA[name][0])


def against_the_floor(name: str, features_ND: Floats, *, rounds: int, threads: int) -> Row:
    criterion, matrices = CRITERIA[name]
    images = len(features_ND)
    kept = [torch.ones(images * (images - 1) // 2) for _ in range(matrices)]
    what = f"float32 product, lower triangle, and {STAGES} passes over {matrices} shrinking matrices"
    times = in_turn(
        {"ours": lambda: all_stages(features_ND, criterion), what: lambda: floor(features_ND, kept)}, rounds=rounds
    )
    peak = peak_mb(prepare, call, name, images, threads=threads)
    return Row(
        what=f"{name}, {STAGES} stages of 5 %",
        size=f"N = {images:,}, D = {WIDTH}",
        bar="60 s on 2 cores, 2 GB" if images == 12_936 else "",
        ours=times["ours"],
        floor=(what, times[what]),
        peak_mb=peak,
        reached=times["ours"].seconds <= 60 and peak <= 2000 if images == 12_936 else None,
    )


def a_single_stage(features_ND: Floats, *, rounds: int) -> Row:
    criterion = CRITERIA["IHC"][0]
    distances = stage_distances(features_ND, np.arange(len(features_ND)), criterion=criterion)
    labels_N = merge_stage(distances, len(features_ND) // 2, criterion=criterion)
    del distances
    times = in_turn({"ours": lambda: one_stage(features_ND, labels_N, criterion)}, rounds=rounds)
    return Row(
        what="IHC, one stage from new features, half of the merges done",
        size=f"N = {len(features_ND):,}, D = {WIDTH}",
        ours=times["ours"],
    )


def against_scipy(features_ND: Floats, *, rounds: int) -> Row:
    def scipy_tree() -> np.ndarray:
        return linkage(features_ND.astype(np.float64), "single")

    name = "scipy.cluster.hierarchy.linkage(method='single'), pdist included"
    times = in_turn({"ours": lambda: all_stages(features_ND, WITHOUT), name: scipy_tree}, rounds=rounds)
    labels_N = all_stages(features_ND, WITHOUT)
    cut_N = fcluster(scipy_tree(), int(labels_N.max()) + 1, "maxclust")
    groups = len(set(zip(labels_N.tolist(), cut_N.tolist(), strict=True)))
    return Row(
        what="BUC without its size term, 19 stages of 5 %",
        size=f"N = {len(features_ND):,}, D = {WIDTH}",
        ours=times["ours"],
        library=(name, times[name]),
        notes={"labels_equal": groups == int(labels_N.max()) + 1 == len(set(cut_N.tolist()))},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of all pools")
    parser.add_argument("--output", type=Path, help="where the JSON is kept")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    images, fewer, rounds = (1_000, 400, 1) if arguments.quick else (12_936, 4_000, 3)
    features_ND = draw_features(images, WIDTH, seed=0)
    rows = [against_the_floor(name, features_ND, rounds=rounds, threads=arguments.threads) for name in CRITERIA]
    rows.append(a_single_stage(features_ND, rounds=rounds))
    rows.append(against_scipy(draw_features(fewer, WIDTH, seed=0), rounds=rounds))
    report("merging", rows, threads=arguments.threads, output=arguments.output)


if __name__ == "__main__":
    main()
