"""How the benchmarks measure: candidates in turn, medians, memory of a fresh process, one JSON a benchmark.

What is compared runs in turn in one process, so that other work on the machine hurts all candidates alike; what is
reported is the ratio. Compilation happens in the first call, is timed apart and is in no median. Memory is that of a
process started for one call: its highest resident set, less what was resident before the call.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

_PACKAGES = ("numpy", "scipy", "scikit-learn", "numba", "torch", "torchvision", "pillow", "faiss-cpu", "cupy-cuda13x")
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Timing:
    """Medians over the rounds, and what the first call took: it compiles what is not in the cache on disk yet.

    seconds: wall; cpu_seconds: of all threads.
    """

    seconds: float
    cpu_seconds: float
    first_seconds: float


@dataclass(frozen=True)
class Row:
    """One line of a benchmark.

    Attributes:
      what, size: of the thing measured, e.g. "neighbours, Jaccard, DBSCAN", "N = 12,936, D = 2048".
      bar: what it is meant to reach, in words; empty where nothing was promised.
      ours: the timing of reidray.
      floor, library: name and timing of the arithmetic below which nothing can go, and of the plain library version.
      times_floor: ours / floor, wall seconds. times_faster: library / ours.
      peak_mb: highest resident memory over the input, of a fresh process.
      reached: whether the bar was reached in this run; None where there is none, or where it cannot be told here.
      notes: other figures of this row.
    """

    what: str
    size: str
    bar: str = ""
    ours: Timing | None = None
    floor: tuple[str, Timing] | None = None
    library: tuple[str, Timing] | None = None
    peak_mb: float | None = None
    reached: bool | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def times_floor(self) -> float | None:
        return self.ours.seconds / self.floor[1].seconds if self.ours and self.floor else None

    @property
    def times_faster(self) -> float | None:
        return self.library[1].seconds / self.ours.seconds if self.ours and self.library else None


def in_turn(
    candidates: dict[str, Callable[[], Any]], *, rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, Timing]:
    """Times each candidate once a round, in the order given, after one call of each that is not counted.

    clock: CPU-seconds so far of whoever works.
    """
    first = {name: _timed(candidate, clock)[0] for name, candidate in candidates.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            times[name].append(_timed(candidate, clock))
    return {
        name: Timing(
            seconds=median(wall for wall, _ in measured),
            cpu_seconds=median(cpu for _, cpu in measured),
            first_seconds=first[name],
        )
        for name, measured in times.items()
    }


def _timed(candidate: Callable[[], Any], clock: Callable[[], float]) -> tuple[float, float]:
    cpu, wall = clock(), time.perf_counter()
    candidate()
    return time.perf_counter() - wall, clock() - cpu


def peak_mb(prepare: Callable[..., Any], call: Callable[[Any], Any], *arguments: Any, threads: int) -> float:
    """Megabytes (10^6 bytes) that `call(prepare(*arguments))` needs over what `prepare` left, in a fresh process.

    Both are functions of a module (they are sent by name). `prepare` makes the input and calls `call` on a small one,
    so that imported libraries and compiled code are not counted.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_watched, args=(send, prepare, call, arguments, threads))
    process.start()
    send.close()
    try:
        return float(receive.recv())
    except EOFError:
        process.join()
        raise RuntimeError(f"the process that measured memory ended with exit code {process.exitcode}") from None
    finally:
        process.join()


def _watched(send: Any, prepare: Any, call: Any, arguments: tuple[Any, ...], threads: int) -> None:
    set_threads(threads)
    given = prepare(*arguments)
    ctypes.CDLL(None).malloc_trim(0)  # what drawing left on the heap would hide what the call takes
    before = _resident_mb()
    _forget_peak()
    call(given)
    send.send(_peak_mb() - before)
    send.close()


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: resets the peak resident set


def _peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return kilobytes * 1024 / 1e6


def set_threads(count: int) -> None:
    """reidray's own setting, so that what is measured is what a run does."""
    from reidray.threads import set_threads

    set_threads(count)


def machine(threads: int) -> dict[str, Any]:
    """What the figures depend on."""
    text = Path("/proc/cpuinfo").read_text()
    lines = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    values = {name.strip(): value.strip() for name, value in lines.items()}
    flags = values.get("flags", "").split()
    return {
        "cpu": " ".join(values.get(name, "") for name in ("model name",)).strip() or platform.processor(),
        "cpu_family_model": f"{values.get('cpu family', '?')}/{values.get('model', '?')}",
        "instructions": [flag for flag in _CPU_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def report(name: str, rows: list[Row], *, threads: int, output: Path | None) -> None:
    """Prints the JSON of a benchmark; `output` gets it too, for `benchmarks/table.py`."""
    arguments = " ".join([f"benchmarks/{name}.py", *sys.argv[1:]])
    document = {
        "benchmark": name,
        "command": f"python {arguments}",
        "machine": machine(threads),
        "rows": [
            {
                key: value
                for key, value in {
                    **asdict(row),
                    "times_floor": row.times_floor,
                    "times_faster": row.times_faster,
                }.items()
                if value not in (None, {}, "")
            }
            for row in rows
        ],
        "highest_resident_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
    }
    text = json.dumps(document, indent=2)
    print(text)
    if output is not None:
        output.write_text(text + "\n")
