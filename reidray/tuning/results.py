"""What a search found: a table for the console, results.csv and results.json, and a picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from rich.console import Console as Terminal
from rich.table import Table

from reidray.evaluation.criteria import rank_correlation
from reidray.report.plots import COLOURS
from reidray.tuning.ledger import Entry
from reidray.tuning.search_file import CRITERIA

MEASURES = (*CRITERIA, "mAP", "rank1", "ARI", "clusters")
_SHOWN = 10  # trials in the table of the console
_STYLES = {"finished": (COLOURS[0], "o"), "stopped": (COLOURS[4], "v")}


def ranked_trials(entries: Sequence[Entry]) -> list[Entry]:
    """The best first: finished trials by the objective, then stopped ones by how far they came and by the objective."""
    order = {"finished": 0, "stopped": 1}
    with_score = [entry for entry in entries if entry.state in order and entry.score is not None]
    rest = [entry for entry in entries if entry not in with_score]
    return [
        *sorted(
            with_score,
            key=lambda entry: (
                order[entry.state or ""],
                -entry.epochs if entry.state == "stopped" else 0,
                -(entry.score or 0.0),
                entry.trial,
            ),
        ),
        *rest,
    ]


def table(entries: Sequence[Entry], objective: str) -> list[str]:
    """Lines of a table: the best trials, with what was tried and found."""
    ranked = ranked_trials(entries)
    names = list(ranked[0].values) if ranked else []
    measures = [name for name in MEASURES if any(name in entry.measures for entry in ranked)]
    measures.sort(key=lambda name: name != objective)
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("trial", "state", "epochs", *measures, *(name.rpartition(".")[2] for name in names)):
        drawn.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    for entry in ranked[:_SHOWN]:
        cells = [_short(entry.measures.get(name)) for name in measures]
        values = [_short(entry.values[name]) for name in names]
        drawn.add_row(f"{entry.trial:03}", entry.state or "unfinished", str(entry.epochs), *cells, *values)
    text = io.StringIO()
    Terminal(file=text, width=200).print(drawn)
    counts = {
        state: sum(entry.state == state for entry in entries) for state in dict.fromkeys(e.state for e in entries)
    }
    told = ", ".join(f"{count} {state or 'unfinished'}" for state, count in counts.items())
    more = f"; the {_SHOWN} best are shown" if len(ranked) > _SHOWN else ""
    return [f"{len(entries)} trials: {told}{more}", *(line.rstrip() for line in text.getvalue().splitlines())]


def write_results(entries: Sequence[Entry], objective: str, folder: Path) -> None:
    """results.csv and results.json: a row a trial, the best first."""
    rows = [
        {
            "trial": entry.trial,
            "state": entry.state or "unfinished",
            "epochs": entry.epochs,
            "objective": entry.score,
            **{name: entry.measures.get(name) for name in MEASURES},
            "seconds": entry.seconds,
            **entry.values,
            "folder": str(entry.folder.relative_to(folder)),
            "sentence": entry.sentence,
        }
        for entry in ranked_trials(entries)
    ]
    tree = {"objective": objective, "trials": rows, "rho_with_mAP": correlations(entries)}
    (folder / "results.json").write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n", "utf-8")
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def correlations(entries: Sequence[Entry]) -> dict[str, float | None]:
    """Spearman's rho of each criterion with mAP over the finished trials where both are known."""
    return {name: rank_correlation(*_pairs(entries, name)) for name in CRITERIA if len(_pairs(entries, name)[0])}


def draw_search(entries: Sequence[Entry], objective: str, log_scale: Mapping[str, bool], path: Path) -> None:
    """Draws the objective by trial, the objective by each setting, and each criterion against mAP where it is known.

    log_scale: the searched settings, and whether their axis is logarithmic. Nothing is drawn where there is no score.
    """
    scored = [entry for entry in entries if entry.score is not None and entry.state in _STYLES]
    if not scored:
        return
    known = [name for name in CRITERIA if len(_pairs(entries, name)[0]) > 2]
    count = 1 + len(log_scale) + len(known)
    columns = min(4, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    _by_trial(panels[0], scored, objective)
    for axes, (name, log) in zip(panels[1:], log_scale.items(), strict=False):
        _by_setting(axes, scored, name, log, objective)
    for axes, name in zip(panels[1 + len(log_scale) :], known, strict=False):
        values, mAPs = _pairs(entries, name)
        rho = rank_correlation(values, mAPs)
        axes.scatter(values, mAPs, color=COLOURS[2], marker="s", s=22)
        axes.set(xlabel=name, ylabel="mAP, validation (%)", title=f"rho = {'-' if rho is None else f'{rho:.2f}'}")
    for axes in panels[count:]:
        axes.set_visible(False)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")


def _by_trial(axes: Axes, entries: Sequence[Entry], objective: str) -> None:
    for state, (colour, marker) in _STYLES.items():
        own = [entry for entry in entries if entry.state == state]
        if own:
            axes.scatter([e.trial for e in own], _scores(own), color=colour, marker=marker, label=state, s=22)
    finished = [entry for entry in entries if entry.state == "finished"]
    if finished:
        best = np.maximum.accumulate(_scores(finished))
        axes.step([e.trial for e in finished], best, where="post", color="0.5", linewidth=1, label="best so far")
    axes.set(title="Objective by trial", xlabel="trial", ylabel=objective)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)


def _by_setting(axes: Axes, entries: Sequence[Entry], name: str, log: bool, objective: str) -> None:
    values = [entry.values[name] for entry in entries]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    words = sorted({str(value) for value in values})
    for state, (colour, marker) in _STYLES.items():
        own = [entry for entry in entries if entry.state == state]
        xs = [e.values[name] if numbers else words.index(str(e.values[name])) for e in own]
        axes.scatter(xs, _scores(own), color=colour, marker=marker, s=22)
    if not numbers:
        axes.set_xticks(range(len(words)), words)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=name, ylabel=objective)


def _scores(entries: Sequence[Entry]) -> list[float]:
    return [entry.score for entry in entries if entry.score is not None]


def _pairs(entries: Sequence[Entry], name: str) -> tuple[list[float], list[float]]:
    both = [
        (entry.measures[name], entry.measures["mAP"])
        for entry in entries
        if entry.state == "finished" and entry.measures.get(name) is not None and entry.measures.get("mAP") is not None
    ]
    return [value for value, _ in both], [mAP for _, mAP in both]


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
