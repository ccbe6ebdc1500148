"""Labelling after the neighbour search: Jaccard distances, DBSCAN, difficulties; time and memory.

Neighbour lists come from `reidray.neighbours.nearest` once and are kept in the temporary folder, for the search is
measured elsewhere (`benchmarks/neighbours.py`). k1 = 30, k2 = 6, min_samples = 4, as is usual at these sizes.

The floor of the first rows is one pass over what is given: the sums of the lists and of the features. It is a floor of
memory traffic alone; nobody computes Jaccard distances in that time. DBSCAN is compared with scikit-learn's on the
same sparse matrix (only d <= eps is stored), with SciPy's connected components of the core points, and where it fits
with scikit-learn's on the dense matrix. Difficulties are compared with Python sets, on some images, scaled to all; the
parts' lists are the global ones with a random half of the entries redrawn. Memory is that of a fresh process over the
lists and features; at 200,000 images features are narrower, on whose width it does not depend.

    python benchmarks/labelling.py [--threads 2] [--output benchmarks/results/labelling.json] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from features import draw_features
from measure import Row, Timing, in_turn, peak_mb, report, set_threads
from scipy import sparse
from sklearn.cluster import DBSCAN

from reidray.arrays import Array, Floats, Ints
from reidray.labelling import dbscan
from reidray.memory import difficulty
from reidray.neighbours import jaccard_from_neighbours, nearest

# N = images, D = feature width, K = neighbours, L = parts

K1, K2, MIN_SAMPLES = 30, 6, 4
EPS = (0.6, 0.7)
PARTS, DIFFICULTY_NEIGHBOURS = 7, 20
SET_IMAGES = 1_000
DENSE_MOST = 13_000
BARS = {"jaccard": 0.9, "dbscan": 0.010, "difficulty": 0.1}  # seconds at 32,621 images


class Given(NamedTuple):
    """What labelling starts from."""

    indices_NK: Ints
    similarities_NK: Floats
    features_ND: Floats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true", help="small sizes and one round, to see that it runs")
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    rounds = 1 if arguments.quick else 7
    timed = [(800, 64)] if arguments.quick else [(12_936, 2048), (32_621, 2048)]
    weighed = [(800, 64)] if arguments.quick else [(32_621, 2048), (200_000, 256)]
    rows = []
    for count, width in timed:
        given = draw_given(count, width)
        for eps in EPS:
            rows += labelling_rows(given, eps, rounds)
        rows.append(difficulty_row(given, rounds))
        del given
    rows += [memory_row(count, width, arguments.threads) for count, width in weighed]
    report("labelling", rows, threads=arguments.threads, output=arguments.output)


def draw_given(count: int, width: int) -> Given:
    """Features, and their neighbour lists from the temporary folder or from a search."""
    features_ND = draw_features(count, width, seed=0)
    mark = features_ND[:: max(1, count // 50)].sum(axis=1)
    file = Path(tempfile.gettempdir()) / f"reidray_lists_{count}_{width}.npz"
    if file.exists():
        with np.load(file) as kept:
            if np.allclose(kept["mark"], mark, atol=1e-4):  # BLAS rounds by its number of threads
                return Given(kept["indices"], kept["similarities"], features_ND)
    indices_NK, similarities_NK = nearest(features_ND, K1)
    np.savez(file, indices=indices_NK, similarities=similarities_NK, mark=mark)
    return Given(indices_NK, similarities_NK, features_ND)


def distances(given: Given, eps: float) -> sparse.csr_array:
    """Ours, as a run calls it."""
    return jaccard_from_neighbours(*given, k1=K1, k2=K2, keep=eps)


def labels(given: Given, eps: float) -> Ints:
    """Ours, all that follows the search."""
    return dbscan(distances(given, eps), eps=eps, min_samples=MIN_SAMPLES)


def labelling_rows(given: Given, eps: float, rounds: int) -> list[Row]:
    """Everything after the search, and DBSCAN alone."""
    size = _size(given, eps)
    whole = in_turn(
        {
            "ours": partial(labels, given, eps),
            "distances": partial(distances, given, eps),
            "pass": partial(one_pass, given),
        },
        rounds=rounds,
    )
    distances_NN = distances(given, eps)
    library = DBSCAN(eps=eps, min_samples=MIN_SAMPLES, metric="precomputed")
    candidates: dict[str, Any] = {
        "ours": partial(dbscan, distances_NN, eps=eps, min_samples=MIN_SAMPLES),
        "scikit-learn, sparse": partial(library.fit_predict, distances_NN),
        "SciPy connected components": partial(by_components, distances_NN, eps),
    }
    expected_N = dbscan(distances_NN, eps=eps, min_samples=MIN_SAMPLES)
    equal = {name: bool(np.array_equal(candidate(), expected_N)) for name, candidate in candidates.items()}
    alone = in_turn(candidates, rounds=rounds)
    others = {name: timing.seconds for name, timing in alone.items() if name != "ours"}
    if len(expected_N) <= DENSE_MOST:
        dense = partial(library.fit_predict, _dense(distances_NN))
        equal["scikit-learn, dense"] = bool(np.array_equal(dense(), expected_N))
        others["scikit-learn, dense"] = in_turn({"dense": dense}, rounds=1)["dense"].seconds
    judged = len(expected_N) == 32_621
    return [
        Row(
            what="Jaccard and DBSCAN from given lists",
            size=size,
            bar=f"<= {BARS['jaccard']} CPU seconds" if judged else "",
            ours=whole["ours"],
            floor=("one pass over lists and features", whole["pass"]),
            reached=whole["ours"].cpu_seconds <= BARS["jaccard"] if judged else None,
            notes={
                "distances_cpu_seconds": whole["distances"].cpu_seconds,
                "stored_per_image": round(distances_NN.nnz / len(expected_N), 1),
                "clusters": int(expected_N.max()) + 1,
                "outliers": int((expected_N < 0).sum()),
            },
        ),
        Row(
            what="DBSCAN on the sparse matrix",
            size=size,
            bar=f"<= {1e3 * BARS['dbscan']:.0f} ms" if judged else "",
            ours=alone["ours"],
            library=("scikit-learn on the same matrix", alone["scikit-learn, sparse"]),
            reached=alone["ours"].seconds <= BARS["dbscan"] if judged else None,
            notes={"seconds_of_others": others, "labels_equal_ours": equal},
        ),
    ]


def one_pass(given: Given) -> float:
    """Reads lists and features."""
    return float(sum(part.sum() for part in given))


def by_components(distances_NN: sparse.csr_array, eps: float) -> Ints:
    """DBSCAN as connected components of the core points; border points then go to the lowest cluster beside them."""
    near = distances_NN.copy()
    near.data = (near.data <= eps).astype(np.int8)  # the diagonal is stored
    near.eliminate_zeros()
    core_N = np.diff(near.indptr) >= MIN_SAMPLES
    cores = np.flatnonzero(core_N)
    labels_N = np.full(len(core_N), -1, np.int64)
    _, component = sparse.csgraph.connected_components(near[cores][:, cores], directed=False)
    _, first = np.unique(component, return_index=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    labels_N[cores] = number[component]
    border, beside = near[:, cores].nonzero()
    lowest = np.full(len(core_N), len(cores), np.int64)
    np.minimum.at(lowest, border, labels_N[cores[beside]])
    return np.where(core_N | (lowest == len(cores)), labels_N, lowest)


def _dense(distances_NN: sparse.csr_array) -> Floats:
    dense_NN = np.ones(distances_NN.shape, np.float32)
    stored = distances_NN.tocoo()
    dense_NN[stored.coords] = stored.data
    return dense_NN


def difficulty_row(given: Given, rounds: int) -> Row:
    """Eq. 7 for all parts."""
    rng = np.random.default_rng(0)
    count = len(given.features_ND)
    lists_NK = np.ascontiguousarray(given.indices_NK[:, : DIFFICULTY_NEIGHBOURS + 1])
    parts_LNK = [
        np.where(rng.random(lists_NK.shape) < 0.5, lists_NK, rng.integers(0, count, lists_NK.shape))
        for _ in range(PARTS)
    ]
    images = min(SET_IMAGES, count)
    some_LNK = [part_NK[:images] for part_NK in parts_LNK]
    expected = by_sets(lists_NK[:images], some_LNK)
    timings = in_turn(
        {"ours": partial(difficulty, lists_NK, parts_LNK), "sets": partial(by_sets, lists_NK[:images], some_LNK)},
        rounds=rounds,
    )
    ours = difficulty(lists_NK, parts_LNK)
    judged = count == 32_621
    sets = timings["sets"]
    times = count / images
    return Row(
        what="difficulties from given lists",
        size=f"N = {count:,}, {PARTS} parts, k = {DIFFICULTY_NEIGHBOURS}",
        bar=f"<= {BARS['difficulty']} CPU seconds" if judged else "",
        ours=timings["ours"],
        library=(
            f"Python sets, {images:,} of {count:,} images, scaled",
            Timing(times * sets.seconds, times * sets.cpu_seconds, times * sets.first_seconds),
        ),
        reached=timings["ours"].cpu_seconds <= BARS["difficulty"] if judged else None,
        notes={"equal_to_sets": bool(np.array_equal(ours[:images], expected))},
    )


def by_sets(lists_NK: Array, parts_LNK: list[Array]) -> Floats:
    """Eq. 7 as one writes it down."""
    alphas_NL = np.empty((len(lists_NK), len(parts_LNK)), np.float32)
    for i, of_global in enumerate(lists_NK):
        near = set(of_global.tolist()) - {i}
        for part, part_NK in enumerate(parts_LNK):
            near_in_part = set(part_NK[i].tolist()) - {i}
            alphas_NL[i, part] = len(near & near_in_part) / len(near | near_in_part)
    return alphas_NL


def memory_row(count: int, width: int, threads: int) -> Row:
    """Highest memory of distances and labels over lists and features; with the search: benchmarks/neighbours.py."""
    draw_given(count, width)  # searched here, so that the fresh process only reads the lists
    peak = peak_mb(prepared, labels_of_last_eps, count, width, threads=threads)
    return Row(
        what="memory of Jaccard and DBSCAN",
        size=f"N = {count:,}, D = {width}, eps = {EPS[-1]}",
        peak_mb=peak,
    )


def prepared(count: int, width: int) -> Given:
    """The input; compiles on a small one."""
    small = draw_features(200, 16, seed=0)
    labels_of_last_eps(Given(*nearest(small, K1), small))
    return draw_given(count, width)


def labels_of_last_eps(given: Given) -> Ints:
    """The eps that stores more pairs."""
    return labels(given, EPS[-1])


def _size(given: Given, eps: float) -> str:
    count, width = given.features_ND.shape
    return f"N = {count:,}, D = {width}, eps = {eps}"


if __name__ == "__main__":
    main()
