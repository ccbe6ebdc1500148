"""The timeline of an epoch: Chrome's trace event format for Perfetto and chrome://tracing.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (complete events "X" and
metadata "M"; instants and durations in microseconds).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reidray.spans import Recording, Span

# Spans in which a thread waits for another process, by what it waits for.
WAITS = ("data", "gather", "workers", "labeller", "bank")
_ORDER = ("driver", "worker", "labeller", "bank shard")


def chrome_trace(recordings: Sequence[Recording], epoch: int) -> dict[str, Any]:
    """The recordings as a trace: a process each, in the order driver, workers, labellers, bank shards.

    The first span begins at 0; `otherData` says when that was. A process's first thread is the one with the most
    spans.
    """
    start = min((span.start for recording in recordings for span in recording.spans), default=0)
    events: list[dict[str, Any]] = []
    for pid, recording in enumerate(sorted(recordings, key=_place), 1):
        events.append(_named("process_name", pid, 0, name=recording.process))
        events.append(_named("process_sort_index", pid, 0, sort_index=pid))
        for tid, thread in enumerate(_threads(recording.spans), 1):
            events.append(_named("thread_name", pid, tid, name=recording.threads.get(thread, str(thread))))
            events.append(_named("thread_sort_index", pid, tid, sort_index=tid))
            own = [span for span in recording.spans if span.thread == thread]
            events += [_complete(span, pid, tid, start) for span in sorted(own, key=lambda s: (s.start, -s.duration))]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"epoch": epoch, "start_ns_since_1970": start},
    }


def write_trace(path: Path, recordings: Sequence[Recording], epoch: int) -> None:
    """The trace as a file that Perfetto and chrome://tracing open."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(chrome_trace(recordings, epoch), allow_nan=False) + "\n", "utf-8")
    beside.replace(path)


def _place(recording: Recording) -> tuple[int, str]:
    kind = next((place for place, word in enumerate(_ORDER) if recording.process.startswith(word)), len(_ORDER))
    number = recording.process.rpartition(" ")[2]
    return kind, number.zfill(9) if number.isdigit() else recording.process


def _threads(spans: Iterable[Span]) -> list[int]:
    return [thread for thread, _ in Counter(span.thread for span in spans).most_common()]


def _named(what: str, pid: int, tid: int, **arguments: Any) -> dict[str, Any]:
    return {"name": what, "ph": "M", "ts": 0, "pid": pid, "tid": tid, "args": arguments}


def _complete(span: Span, pid: int, tid: int, start: int) -> dict[str, Any]:
    arguments = {"epoch": span.epoch, "step": span.step}
    return {
        "name": span.name,
        "cat": "wait" if span.name in WAITS else "work",
        "ph": "X",
        "ts": (span.start - start) / 1000,
        "dur": span.duration / 1000,
        "pid": pid,
        "tid": tid,
        "args": {name: value for name, value in arguments.items() if value is not None},
    }
