"""The trace file as Perfetto and chrome://tracing read it, and the picture drawn from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from reidray.report.timeline import chrome_trace, write_trace
from reidray.report.timeline_picture import _innermost, draw_timeline
from reidray.spans import Recording, Span

MS = 1_000_000
START = 1_700_000_000 * 10**9


def span(name: str, start: float, stop: float, *, thread: int = 7, step: int | None = None) -> Span:
    """A span from and to in milliseconds after START."""
    return Span(name, START + round(start * MS), round((stop - start) * MS), thread, 1, step)


RECORDINGS = [
    Recording("bank shard 0", [span("put", 4, 5)], {7: "MainThread"}),
    Recording("labeller 0", [span("neighbours", 31, 34), span("label", 30, 40)], {7: "MainThread"}),
    Recording("worker 10", [span("extract", 2, 30)], {7: "MainThread"}),
    Recording(
        "worker 0",
        [
            span("decode", 1, 3, thread=8),
            span("data", 1, 3),
            span("forward", 3, 9),
            span("extract", 1, 10),
            span("labeller", 30, 41),
            span("label", 29.5, 42),
            span("data", 42, 43, step=0),
            span("forward", 43, 60, step=0),
            span("step", 42, 61, step=0),
            span("train", 42, 62),
        ],
        {7: "Thread-2", 8: "ahead_0"},
    ),
    Recording("driver", [span("on stage", 0, 0.5)], {7: "events"}),
]


def check_trace(trace: dict[str, Any]) -> None:
    """What every reader of the format relies on."""
    events = trace["traceEvents"]
    for event in events:
        assert {"name", "ph", "ts", "pid", "tid"} <= event.keys()
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["ph"] in ("X", "M")
        assert event["ts"] >= 0
    complete = [event for event in events if event["ph"] == "X"]
    assert all(event["dur"] >= 0 for event in complete)
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {event["pid"] for event in complete} <= processes.keys()
    assert len(set(processes.values())) == len(processes)
    assert {(event["pid"], event["tid"]) for event in complete} == threads
    for thread in threads:
        open_: list[float] = []
        for event in (e for e in complete if (e["pid"], e["tid"]) == thread):  # in the order of the file
            while open_ and open_[-1] <= event["ts"] + 1e-3:
                open_.pop()
            stop = event["ts"] + event["dur"]
            assert not open_ or stop <= open_[-1] + 1e-3, f"{event} ends after the block that it lies in"
            open_.append(stop)


def test_a_trace_has_what_its_readers_rely_on():
    check_trace(json.loads(json.dumps(chrome_trace(RECORDINGS, 1))))


def test_processes_come_in_the_order_of_the_work_and_the_first_span_begins_at_0():
    trace = chrome_trace(RECORDINGS, 1)
    names = [event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "process_name"]
    assert names == ["driver", "worker 0", "worker 10", "labeller 0", "bank shard 0"]
    assert min(event["ts"] for event in trace["traceEvents"] if event["ph"] == "X") == 0
    assert trace["otherData"] == {"epoch": 1, "start_ns_since_1970": START}


def test_instants_and_durations_are_microseconds_on_one_clock():
    events = chrome_trace(RECORDINGS, 1)["traceEvents"]
    (neighbours,) = [event for event in events if event["name"] == "neighbours"]
    assert (neighbours["ts"], neighbours["dur"], neighbours["cat"]) == (31_000, 3_000, "work")
    (first,) = [event for event in events if event["name"] == "forward" and "step" in event["args"]]
    assert (first["ts"], first["dur"], first["args"]) == (43_000, 17_000, {"epoch": 1, "step": 0})
    assert {event["cat"] for event in events if event["name"] == "labeller"} == {"wait"}


def test_the_thread_that_does_the_work_is_the_first_of_its_process():
    events = chrome_trace(RECORDINGS, 1)["traceEvents"]
    (pid,) = [e["pid"] for e in events if e["name"] == "process_name" and e["args"]["name"] == "worker 0"]
    threads = [e["args"]["name"] for e in events if e["name"] == "thread_name" and e["pid"] == pid]
    assert threads == ["Thread-2", "ahead_0"]


def test_a_trace_of_nothing_is_a_trace():
    check_trace(chrome_trace([], 0))
    check_trace(chrome_trace([Recording("worker 0", [])], 0))


def test_each_moment_belongs_to_the_innermost_span():
    events = [
        e for e in chrome_trace(RECORDINGS, 1)["traceEvents"] if e["ph"] == "X" and e["pid"] == 2 and e["tid"] == 1
    ]
    blocks = [(block.name, round(1000 * block.start, 6), round(1000 * block.stop, 6)) for block in _innermost(events)]
    assert blocks == [
        ("data", 1, 3),
        ("forward", 3, 9),
        ("extract", 9, 10),
        ("label", 29.5, 30),
        ("labeller", 30, 41),
        ("label", 41, 42),
        ("data", 42, 43),
        ("forward", 43, 60),
        ("step", 60, 61),
        ("train", 61, 62),
    ]


def test_the_picture_is_drawn_from_the_file(tmp_path: Path):
    write_trace(tmp_path / "trace.json", RECORDINGS, 1)
    check_trace(json.loads((tmp_path / "trace.json").read_text()))
    draw_timeline(tmp_path / "trace.json", tmp_path / "timeline.png")
    with Image.open(tmp_path / "timeline.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
