"""Part clustering (`reidray.parsing`): from feature maps, from inner products, and its two steps alone.

The library version is what one would write with scikit-learn: k-means of the cells' magnitudes, pairwise distances of
the foreground at unit length, pairs that are too far apart at 1000 x the largest distance, agglomeration of the
precomputed distances. Its k-means starts 10 times (`n_init=10`), as the exact one here needs no luck; once (today's
`n_init="auto"`) is in the notes. The floor of a map is to read it once and to multiply its foreground by a BLAS, that
of inner products to read them once. Maps are drawn: an ellipse of larger magnitudes, about 68 of 192 cells, smooth
features that depend on the part, noise. Figures for each image and core are CPU seconds / images.

    python benchmarks/parsing.py [--threads 2] [--output benchmarks/results/parsing.json] [--quick]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measure import Row, Timing, in_turn, report, set_threads
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import pairwise_distances

from reidray.arrays import Array, Floats, Ints
from reidray.parsing import agglomerate, classes_1d, parse_grams, parse_parts

# B = images, D = feature width, H, W = cells of a map, P = H W, F = foreground cells, N = points

_FASTER, _MOST_MS = 9.0, 0.06
_PARTS = {4: 8.0, 7: 6.0}  # parts, the background counted: eta in cells
_FIRST_CALL = """
import time, numpy, reidray.parsing as parsing
maps = numpy.random.default_rng(0).random((1, 8, 6, 4), dtype=numpy.float32)
start = time.perf_counter()
{call}
print(time.perf_counter() - start)
"""
_CALLS = {
    "inner products": "parsing.parse_grams(numpy.eye(24, dtype=numpy.float32)[None], height=6, width=4, num_parts=4,"
    " max_distance=2.0, linkage='average')",
    "maps": "parsing.parse_parts(maps, num_parts=4, max_distance=2.0)",
}


class Size(NamedTuple):
    """What is drawn and how often it is timed; repeats: inner products of the same maps, to fill a batch."""

    images: int
    repeats: int
    depth: int
    height: int
    width: int
    rounds: int

    @property
    def words(self) -> str:
        return f"{self.images} maps of {self.height} x {self.width} cells, D = {self.depth}"


_SIZE, _QUICK_SIZE = Size(64, 8, 2048, 24, 8, 7), Size(4, 1, 64, 24, 8, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true", help="small sizes and one round, to see that it runs")
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    size, judged = (_QUICK_SIZE, False) if arguments.quick else (_SIZE, True)
    maps_BDHW = draw_maps(size.images, size.depth, size.height, size.width, seed=0)
    rows = [_maps_row(size, maps_BDHW, num_parts, eta, judged=judged) for num_parts, eta in _PARTS.items()]
    rows += _gram_rows(size, maps_BDHW, judged=judged)
    rows += [_agglomeration_row(size, count) for count in (64, 192)]
    rows.append(_classes_row(size, maps_BDHW))
    if not arguments.quick:
        rows.append(_first_call_row())
    report("parsing", rows, threads=arguments.threads, output=arguments.output)


def draw_maps(images: int, depth: int, height: int, width: int, *, seed: int) -> Floats:
    """float32 [B, D, H, W]: a person is an ellipse, six parts from top to bottom have features of their own."""
    rng = np.random.default_rng(seed)
    looks_KD = np.maximum(0, rng.standard_normal((6, depth), dtype=np.float32) - 0.3)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    maps_BDHW = np.empty((images, depth, height, width), np.float32)
    for image in range(images):
        middle = rng.uniform(0.46, 0.54, 2) * (height - 1, width - 1)
        radii = rng.uniform(0.43, 0.53) * height, rng.uniform(0.16, 0.28) * width
        inside_HW = ((rows - middle[0]) / radii[0]) ** 2 + ((columns - middle[1]) / radii[1]) ** 2
        body_HW = 1 / (1 + np.exp(8 * (inside_HW - 1)))  # smooth at the rim
        cuts = np.array([0.14, 0.35, 0.55, 0.78, 0.92]) + rng.normal(0, 0.02, 5)
        part_HW = np.searchsorted(cuts, (rows - middle[0]) / (2 * radii[0]) + 0.5)
        own_KD = np.maximum(0, looks_KD + 0.8 * np.abs(rng.standard_normal((6, depth), dtype=np.float32)))
        scene_D = np.maximum(0, rng.standard_normal(depth, dtype=np.float32) - 0.2)
        spot = rng.uniform(0.2, 0.8, 2) * (height, width)
        salience_HW = 1 + rng.uniform(0.5, 1.5) * np.exp(-((rows - spot[0]) ** 2 + (columns - spot[1]) ** 2) / 6)
        noise_HWD = rng.standard_normal((height, width, depth), dtype=np.float32)
        noise_HWD[1:] += 0.6 * noise_HWD[:-1]
        noise_HWD[:, 1:] += 0.6 * noise_HWD[:, :-1]
        cells_HWD = (body_HW * salience_HW)[..., None] * own_KD[part_HW] + (1 - body_HW)[..., None] * 0.35 * scene_D
        cells_HWD += 0.25 * noise_HWD * np.maximum(0.4, body_HW)[..., None]
        maps_BDHW[image] = np.moveaxis(np.maximum(0, cells_HWD), 2, 0)
    return maps_BDHW


def _maps_row(size: Size, maps_BDHW: Floats, num_parts: int, eta: float, *, judged: bool) -> Row:
    settings = {"num_parts": num_parts, "max_distance": eta}
    foregrounds = [_foreground(image_DHW, parse_parts(image_DHW[None], **settings)[0]) for image_DHW in maps_BDHW]
    timings = in_turn(
        {
            "ours": partial(parse_parts, maps_BDHW, **settings),
            "bfloat16": partial(parse_parts, torch.from_numpy(maps_BDHW).bfloat16(), **settings),
            "floor": partial(_read_and_multiply, maps_BDHW, foregrounds),
            "n_init=1": partial(_library, maps_BDHW, num_parts, eta, 1),
            "n_init=10": partial(_library, maps_BDHW, num_parts, eta, 10),
        },
        rounds=size.rounds,
    )
    per_image = _milliseconds(timings, size.images)
    ratio = per_image["n_init=10"] / per_image["ours"]
    theirs_BHW = _library(maps_BDHW, num_parts, eta, 10)
    equal_B = (theirs_BHW == parse_parts(maps_BDHW, **settings)).all(axis=(1, 2))
    return Row(
        what=f"part clustering from feature maps, {num_parts - 1} parts",
        size=size.words,
        bar=f">= {_FASTER:.0f} x faster than scikit-learn",
        ours=timings["ours"],
        floor=("reading once and the foreground's product", timings["floor"]),
        library=("scikit-learn, n_init=10", timings["n_init=10"]),
        reached=bool(ratio >= _FASTER) if judged else None,
        notes={
            "CPU ms / image": per_image,
            "times faster than n_init=1": round(per_image["n_init=1"] / per_image["ours"], 1),
            "images equal to scikit-learn's": f"{int(equal_B.sum())} of {size.images}",
            "foreground cells": float(np.mean([len(cells_FD) for cells_FD in foregrounds])),
        },
    )


def _foreground(image_DHW: Floats, parts_HW: Ints) -> Floats:
    """Contiguous float32 [F, D]."""
    cells_PD = image_DHW.reshape(len(image_DHW), -1).T
    return np.ascontiguousarray(cells_PD[parts_HW.ravel() < parts_HW.max()])


def _read_and_multiply(maps_BDHW: Floats, foregrounds: list[Floats]) -> None:
    for image_DHW, cells_FD in zip(maps_BDHW, foregrounds, strict=True):
        image_DHW.max()
        cells_FD @ cells_FD.T


def _library(maps_BDHW: Floats, num_parts: int, eta: float, starts: int) -> Ints:
    return np.stack([_library_parts(image_DHW, num_parts, eta, starts) for image_DHW in maps_BDHW])


def _library_parts(image_DHW: Floats, num_parts: int, eta: float, starts: int) -> Ints:
    """int64 [H, W], as `parse_parts`."""
    depth, height, width = image_DHW.shape
    cells_PD = image_DHW.reshape(depth, -1).T
    magnitude_P = np.linalg.norm(cells_PD, axis=1)
    classes = KMeans(3, n_init=starts, random_state=0).fit(magnitude_P[:, None])
    found_F = np.flatnonzero(classes.labels_ != classes.cluster_centers_.argmin())
    units_FD = cells_PD[found_F] / magnitude_P[found_F, None]
    places_F2 = np.stack([found_F // width, found_F % width], axis=1)
    distances_FF = pairwise_distances(units_FD).astype(np.float64)
    forbidden = 1000 * distances_FF.max()
    distances_FF[pairwise_distances(places_F2) >= eta] = forbidden
    clustering = AgglomerativeClustering(num_parts - 1, metric="precomputed", linkage="average")
    labels_F = clustering.fit(distances_FF).labels_
    rows_K = [places_F2[labels_F == label, 0].mean() for label in range(num_parts - 1)]
    parts_P = np.full(height * width, num_parts - 1)
    parts_P[found_F] = np.argsort(np.argsort(rows_K))[labels_F]
    return parts_P.reshape(height, width)


def _gram_rows(size: Size, maps_BDHW: Floats, *, judged: bool) -> list[Row]:
    cells_BDP = maps_BDHW.reshape(size.images, size.depth, -1)
    once_BPP = torch.from_numpy(cells_BDP.transpose(0, 2, 1) @ cells_BDP)
    grams_BPP = once_BPP.repeat(size.repeats, 1, 1)
    scale_B11 = torch.exp2(-torch.floor(torch.log2(once_BPP.amax((1, 2), keepdim=True)))).repeat(size.repeats, 1, 1)
    types = {
        "float32": grams_BPP,
        "bfloat16": grams_BPP.bfloat16(),
        "float16": (grams_BPP * scale_B11).half(),  # powers of two change no parts, and keep products below 65504
    }
    call = partial(parse_grams, height=size.height, width=size.width, linkage="average")
    rows = []
    for num_parts, eta in _PARTS.items():
        candidates: dict[str, Callable[[], Any]] = {}
        for name, grams in types.items():
            bits = grams.view(torch.int16).numpy() if grams.dtype != torch.float32 else grams.numpy()
            candidates[name] = partial(call, grams, num_parts=num_parts, max_distance=eta)
            candidates[f"read {name}"] = partial(np.max, bits)
        timings = in_turn(candidates, rounds=size.rounds)
        per_image = _milliseconds(timings, len(grams_BPP))
        wanted = call(grams_BPP, num_parts=num_parts, max_distance=eta)
        for name, grams in types.items():
            found = call(grams, num_parts=num_parts, max_distance=eta)
            rows.append(
                Row(
                    what=f"part clustering from inner products in {name}, {num_parts - 1} parts",
                    size=f"{len(grams_BPP)} matrices of {grams_BPP.shape[1]} x {grams_BPP.shape[1]}",
                    bar=f"<= {_MOST_MS} ms an image and core",
                    ours=timings[name],
                    floor=("reading once", timings[f"read {name}"]),
                    reached=bool(per_image[name] <= _MOST_MS) if judged else None,
                    notes={
                        "CPU ms / image": per_image[name],
                        "cells as from float32": round(float((found.parts_BHW == wanted.parts_BHW).mean()), 4),
                        "foreground cells": float(wanted.foreground_B.mean()),
                        "far share": round(float(wanted.far_share_B.mean()), 4),
                    },
                )
            )
    return rows


def _agglomeration_row(size: Size, count: int) -> Row:
    """Random points: no ties."""
    points_NK = np.random.default_rng(count).random((count, 8))
    distances_NN = pairwise_distances(points_NK)
    distances_NN = (distances_NN + distances_NN.T) / 2
    np.fill_diagonal(distances_NN, 0.0)
    condensed = squareform(distances_NN)
    clustering = AgglomerativeClustering(3, metric="precomputed", linkage="average")
    times = 1 if size.rounds == 1 else 200
    timings = in_turn(
        {
            "ours": partial(_repeat, times, agglomerate, distances_NN, 3, linkage="average"),
            "SciPy": partial(_repeat, times, _scipy_clusters, condensed),
            "scikit-learn": partial(_repeat, times, clustering.fit, distances_NN),
        },
        rounds=size.rounds,
    )
    return Row(
        what="agglomeration alone, average linkage, with its checks",
        size=f"N = {count}, {times} times",
        ours=timings["ours"],
        library=("SciPy's linkage and fcluster", timings["SciPy"]),
        notes={"CPU ms / call": _milliseconds(timings, times)},
    )


def _scipy_clusters(condensed: Array) -> Array:
    return fcluster(linkage(condensed, "average"), 3, "maxclust")


def _classes_row(size: Size, maps_BDHW: Floats) -> Row:
    magnitudes_BP = np.linalg.norm(maps_BDHW.reshape(size.images, size.depth, -1), axis=1).astype(np.float64)
    timings = in_turn(
        {
            "ours": lambda: [classes_1d(magnitudes_P, num_classes=3) for magnitudes_P in magnitudes_BP],
            "n_init=10": lambda: [
                KMeans(3, n_init=10, random_state=0).fit(magnitudes_P[:, None]) for magnitudes_P in magnitudes_BP
            ],
        },
        rounds=size.rounds,
    )
    return Row(
        what="exact k-means of magnitudes alone, with its checks",
        size=f"{size.images} x {magnitudes_BP.shape[1]} values, 3 classes",
        ours=timings["ours"],
        library=("scikit-learn, n_init=10", timings["n_init=10"]),
        notes={"CPU ms / call": _milliseconds(timings, size.images)},
    )


def _first_call_row() -> Row:
    """In processes of their own: the first compiles, the second finds compiled code on disk."""
    notes = {}
    for what, call in _CALLS.items():
        with tempfile.TemporaryDirectory() as folder:
            for state in ("compiling", "compiled"):
                seconds = subprocess.run(
                    [sys.executable, "-c", _FIRST_CALL.format(call=call)],
                    env={**os.environ, "NUMBA_CACHE_DIR": folder},
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
                notes[f"{what}, {state}, s"] = round(float(seconds), 2)
    return Row(what="first call of a process", size="float32", notes=notes)


def _repeat(times: int, function: Callable[..., Any], *arguments: Any, **settings: Any) -> None:
    for _ in range(times):
        function(*arguments, **settings)


def _milliseconds(timings: dict[str, Timing], count: int) -> dict[str, float]:
    return {name: round(1000 * timing.cpu_seconds / count, 4) for name, timing in timings.items()}


if __name__ == "__main__":
    main()
