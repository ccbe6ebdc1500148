"""A gallery of 1,000,000 embeddings: building, size, seconds of a search, memory; beside a plain product in memory.

The plain way holds all rows as an array of NumPy, multiplies them with the query and takes the ten largest products by
argpartition. A gallery is a Parquet file that is read through its memory map, compares exactly, and gives names. The
first search of a process finds the file in the machine's memory or not: both are timed, the latter after the file's
pages were given back (posix_fadvise). Memory is that of a fresh process: what is its own, and what it maps of the file,
which all processes share.

    python benchmarks/gallery.py [--threads 2] [--rows 1000000] [--output benchmarks/results/gallery.json]

Needs 2.1 GB below $TMPDIR for a million rows, and removes them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from measure import Row, Timing, in_turn, report, set_threads

from reidray.arrays import Array, Floats
from reidray.gallery import Gallery
from reidray.gallery.file import Made, Rows, append

_WIDTH, _K, _CAMERAS = 512, 10, 6
_BAR_SECONDS = 1.0


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    set_threads(options.threads)
    with TemporaryDirectory() as place:
        rows = measured(Path(place) / "people.parquet", options.rows, options.threads, options.rounds)
    report("gallery", rows, threads=options.threads, output=options.output)


def measured(path: Path, count: int, threads: int, rounds: int) -> list[Row]:
    """Builds the gallery and searches it."""
    features_ND = _drawn(count)
    started = time.perf_counter()
    names = [f"camera{number % _CAMERAS}/{number:07d}.jpg" for number in range(count)]
    cameras = np.arange(count) % _CAMERAS
    append(
        path,
        Made("m" * 64, _WIDTH, "benchmark", "benchmark"),
        Rows(names, ["crops"] * count, [f"camera{camera}" for camera in cameras.tolist()], features_ND),
    )
    built = time.perf_counter() - started
    queries_QD = _queries(16)
    size = f"N = {count:,}, D = {_WIDTH}"
    notes = {
        "built in s": round(built, 1),
        "file in bytes a row": round(path.stat().st_size / count, 1),
        **_of_a_fresh_process(path, threads, cold=True),
        **_of_a_fresh_process(path, threads, cold=False),
    }
    gallery = Gallery(path)
    for query_D in queries_QD[:2]:
        found = [match.row for match in gallery.search(query_D, _K)]
        assert found == _plain(features_ND, query_D).tolist(), "another result"
    calls = {"query": iter(np.tile(queries_QD, (99, 1))), "plain": iter(np.tile(queries_QD, (99, 1)))}
    times = in_turn(
        {
            "one": lambda: gallery.search(next(calls["query"]), _K),
            "camera": lambda: gallery.search(queries_QD[0], _K, cameras=["camera1"]),
            "sixteen": lambda: gallery.search_features(queries_QD, _K),
            "plain": lambda: _plain(features_ND, next(calls["plain"])),
            "plain sixteen": lambda: [_plain(features_ND, query_D) for query_D in queries_QD],
        },
        rounds=rounds,
    )
    bar = f"a query in less than {_BAR_SECONDS:g} s"
    return [
        _row("a search", size, times["one"], times["plain"], bar, notes),
        _row("a search in one of six cameras", size, times["camera"], times["plain"], "", {}),
        _row("16 searches at once", size, times["sixteen"], times["plain sixteen"], "", {}),
    ]


def _row(what: str, size: str, ours: Timing, plain: Timing, bar: str, notes: dict[str, Any]) -> Row:
    reached = ours.seconds < _BAR_SECONDS if bar else None
    row = Row(
        what, size, bar, ours=ours, floor=("product and argpartition of an array", plain), reached=reached, notes=notes
    )
    print(
        f"{what}: {ours.seconds:.3f} s ({ours.cpu_seconds:.3f} CPU), plain {plain.seconds:.3f} s "
        f"({plain.cpu_seconds:.3f} CPU): ratio {ours.seconds / plain.seconds:.2f} "
        f"({ours.cpu_seconds / plain.cpu_seconds:.2f} CPU) {notes}",
        flush=True,
    )
    return row


def _plain(features_ND: Floats, query_D: Floats) -> Array:
    products_N = features_ND @ query_D
    best = np.argpartition(products_N, -_K)[-_K:]
    found: Array = best[np.argsort(-products_N[best])]
    return found


def _drawn(count: int) -> Floats:
    rng = np.random.default_rng(0)
    features_ND = np.empty((count, _WIDTH), np.float32)
    for start in range(0, count, 50_000):
        rows_BD = rng.standard_normal((min(50_000, count - start), _WIDTH), np.float32)
        features_ND[start : start + len(rows_BD)] = rows_BD / np.linalg.norm(rows_BD, axis=1, keepdims=True)
    return features_ND


def _queries(count: int) -> Floats:
    rows_QD = np.random.default_rng(1).standard_normal((count, _WIDTH), np.float32)
    unit_QD: Floats = rows_QD / np.linalg.norm(rows_QD, axis=1, keepdims=True)
    return unit_QD


def _of_a_fresh_process(path: Path, threads: int, *, cold: bool) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_searched, args=(send, path, threads, cold))
    process.start()
    send.close()
    found: dict[str, float] = receive.recv()
    process.join()
    return found


def _searched(send: Any, path: Path, threads: int, cold: bool) -> None:
    """Seconds of opening and of the first search of a process that has compiled what it calls; memory afterwards."""
    set_threads(threads)
    small = path.with_name(f"small-{os.getpid()}.parquet")
    append(small, Made("m" * 64, _WIDTH, "benchmark", "benchmark"), Rows(["a"], ["b"], [None], _queries(1)))
    Gallery(small).search(_queries(1)[0], 1)
    if cold:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    before = _memory_mb()
    started = time.perf_counter()
    gallery = Gallery(path)
    gallery.search(_queries(1)[0], _K)
    seconds = time.perf_counter() - started
    after = _memory_mb()
    if cold:
        send.send({"first search in s, file not in memory": round(seconds, 3)})
        return
    send.send(
        {
            "first search in s, file in memory": round(seconds, 3),
            "MB of its own": round(after["RssAnon"] - before["RssAnon"]),
            "MB mapped": round(after["RssFile"] - before["RssFile"]),
        }
    )


def _memory_mb() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Rss")}


if __name__ == "__main__":
    main()
