"""A traced epoch as a picture: the whole epoch, its labelling, and three of its steps.

A row is a thread. A block has the colour of what was done; it is hatched where the thread waited for another one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reidray.report.timeline import WAITS

_LABELLING = ("read", "neighbours", "jaccard", "dbscan", "difficulty", "centroids", "write", "criteria", "label")
_BLOCK_TASKS = ("find", "cluster", "centroids")
_COLOURS = {  # Okabe and Ito's, told apart by colour-blind readers
    "forward": "#0072B2",
    "backward": "#D55E00",
    "optimise, memory": "#CC79A7",
    "decode, prepare": "#56B4E9",
    "parse": "#009E73",
    "label": "#E69F00",
    "bank": "#555555",
    "other": "#BBBBBB",
}
_WORK = {
    **dict.fromkeys(("forward", "backward", "parse"), None),
    **dict.fromkeys(("optimise", "memory"), "optimise, memory"),
    **dict.fromkeys(("decode", "prepare"), "decode, prepare"),
    **dict.fromkeys((*_LABELLING, *_BLOCK_TASKS), "label"),
}
_STAGES = ("extract", "label", "train", "evaluate", "keep")
_STEPS = 3


@dataclass(frozen=True)
class _Block:
    """One activity of a thread, without other spans inside it; in seconds from the beginning of the trace."""

    name: str
    start: float
    stop: float


@dataclass(frozen=True)
class _Row:
    label: str
    blocks: list[_Block]


def draw_timeline(trace: Path, picture: Path) -> None:
    """Draws `picture` from a trace file that `write_trace` wrote."""
    events = json.loads(trace.read_text("utf-8"))["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    rows = _rows(events)
    worker = [event for event in complete if event["pid"] == _pid(events, "worker 0")]
    stages = sorted((_block(event) for event in worker if event["name"] in _STAGES), key=lambda block: block.start)
    steps = sorted((_block(event) for event in worker if event["name"] == "step"), key=lambda block: block.start)
    panels = [("One epoch", min(block.start for block in stages), max(block.stop for block in stages))]
    panels += [("Labelling", block.start, block.stop) for block in stages if block.name == "label"][:1]
    if steps:
        middle = min(len(steps) // 2, max(0, len(steps) - _STEPS))
        chosen = steps[middle : middle + _STEPS]
        panels.append((f"{len(chosen)} steps", chosen[0].start, chosen[-1].stop))
    shown = [[row for row in rows if _busy(row, first, last)] for _, first, last in panels]
    heights = [len(visible) + 1.5 for visible in shown]
    figure = Figure(figsize=(12, 1.2 + 0.36 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, first, last), visible in zip(grid, panels, shown, strict=True):
        _draw(axes, visible, first, last)
        if title == "One epoch":
            _name_stages(axes, stages, first, last)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=18 if title == "One epoch" else 6)
    patches = [Patch(color=colour, label=name) for name, colour in _COLOURS.items()]
    patches.append(Patch(facecolor="white", edgecolor="#999999", hatch="////", label="waits for ..."))
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8.5, frameon=False)
    FigureCanvasAgg(figure)
    figure.savefig(picture, dpi=110)


def _pid(events: Sequence[dict[str, Any]], process: str) -> int | None:
    return next((e["pid"] for e in events if e["name"] == "process_name" and e["args"]["name"] == process), None)


def _rows(events: Sequence[dict[str, Any]]) -> list[_Row]:
    """A row for every thread, by process; threads of one name (a pool begun anew) share one."""
    processes = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    found: dict[tuple[int, str], _Row] = {}
    for (pid, tid), thread in sorted(threads.items()):
        label = processes[pid] if tid == 1 else _beside(processes[pid], thread)
        row = found.setdefault((pid, label), _Row(label, []))
        row.blocks.extend(_innermost([e for e in events if e["ph"] == "X" and (e["pid"], e["tid"]) == (pid, tid)]))
    return list(found.values())


def _beside(process: str, thread: str) -> str:
    """What a thread beside a process's first is called."""
    if process.startswith("bank"):
        return f"{process}, files"
    return "its loader" if thread.startswith("ahead") else thread


def _block(event: dict[str, Any]) -> _Block:
    return _Block(event["name"], event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6)


def _innermost(events: Sequence[dict[str, Any]]) -> list[_Block]:
    """A thread's time, each moment under the name of the innermost span that it lies in."""
    blocks: list[_Block] = []
    open_: list[_Block] = []
    at = -math.inf

    def reach(moment: float) -> None:
        nonlocal at
        if open_ and moment > at:
            blocks.append(_Block(open_[-1].name, at, moment))
        at = max(at, moment)

    for block in sorted((_block(event) for event in events), key=lambda block: (block.start, -block.stop)):
        while open_ and open_[-1].stop <= block.start:
            _close(open_, reach)
        reach(block.start)
        open_.append(block)
    while open_:
        _close(open_, reach)
    return blocks


def _close(open_: list[_Block], reach: Any) -> None:
    reach(open_[-1].stop)
    open_.pop()


def _busy(row: _Row, first: float, last: float) -> bool:
    return any(block.start < last and block.stop > first for block in row.blocks)


def _draw(axes: Axes, rows: Sequence[_Row], first: float, last: float) -> None:
    scale, unit = (1000, "ms") if last - first < 2 else (1, "s")
    for place, row in enumerate(rows):
        for block in row.blocks:
            left, right = max(block.start, first), min(block.stop, last)
            if right > left:
                _draw_block(
                    axes,
                    block.name,
                    row.label,
                    place,
                    scale * (left - first),
                    scale * (right - first),
                    scale * (last - first),
                )
    axes.set(xlim=(0, scale * (last - first)), ylim=(len(rows) - 0.4, -0.6), xlabel=unit)
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=9)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _draw_block(axes: Axes, name: str, label: str, place: int, left: float, right: float, whole: float) -> None:
    """One block, with its name where there is room for it; a very short one is a line of its own colour."""
    waits = name in WAITS and not label.startswith(("labeller", "bank"))
    kind, share = _kind(name, label), (right - left) / whole
    look: dict[str, Any] = {"facecolor": _COLOURS[kind], "edgecolor": "white", "linewidth": 0.5}
    if waits:
        look = {"facecolor": "white", "edgecolor": "#999999", "hatch": "////", "linewidth": 0.4}
    elif share < 0.003:
        look = {"facecolor": _COLOURS[kind], "edgecolor": _COLOURS[kind], "linewidth": 0.8}
    axes.broken_barh([(left, right - left)], (place - 0.36, 0.72), **look)
    name = name.removeprefix("on ")
    words = next((text for text in ([f"waits: {name}"] if waits else []) + [name] if share > 0.0075 * len(text)), "")
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8} if waits else None
    colour = "white" if not waits and kind in ("forward", "backward", "parse", "bank") else "black"
    middle = (left + right) / 2
    axes.text(middle, place, words, ha="center", va="center_baseline", fontsize=7.5, color=colour, bbox=box)


def _kind(name: str, label: str) -> str:
    if label.startswith("bank"):
        return "bank"
    if name in _WORK and not (name == "label" and not label.startswith("labeller")):
        return _WORK[name] or name
    return "other"


def _name_stages(axes: Axes, stages: Sequence[_Block], first: float, last: float) -> None:
    """The stages' names above the panel, and a line where each begins."""
    scale = 1000 if last - first < 2 else 1
    for block in stages:
        axes.axvline(scale * (block.start - first), color="black", linewidth=0.6)
        if (block.stop - block.start) / (last - first) > 0.008 * len(block.name):
            middle = scale * ((block.start + block.stop) / 2 - first)
            axes.text(
                middle, 1.02, block.name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=9
            )
