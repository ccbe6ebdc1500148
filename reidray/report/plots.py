"""Curves of a run from its folder: losses by update, retrieval by epoch, clusters by epoch.

Colours are Okabe and Ito's, told apart by colour-blind readers, and every curve has a marker or line style of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reidray.report.timeline_picture import draw_timeline
from reidray.storage.runfolder import RunFolder

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 1)))


def draw_plots(folder: RunFolder) -> list[Path]:
    """Draws curves.png, clusters.png and timeline.png into the folder's pictures, from what the run recorded so far.

    Returns:
      The pictures drawn; a picture with nothing to show is left out.
    """
    epochs, steps = folder.epochs(), folder.steps()
    evaluations = _evaluations(folder.evaluations(), max((measures["epoch"] for measures in epochs), default=-1))
    drawn = []
    if steps or evaluations:
        drawn.append(folder.pictures / "curves.png")
        _draw_curves(drawn[-1], steps, evaluations)
    if any("clusters" in measures for measures in epochs):
        drawn.append(folder.pictures / "clusters.png")
        _draw_clusters(drawn[-1], [measures for measures in epochs if "clusters" in measures])
    for trace in folder.traces()[-1:]:
        drawn.append(folder.pictures / "timeline.png")
        draw_timeline(trace, drawn[-1])
    return drawn


def _evaluations(evaluations: Sequence[Mapping[str, Any]], last: int) -> dict[int, Any]:
    """Figures by the number of epochs finished: 0 before training, all (up to `last`) where the epoch is not given."""
    points: dict[int, Any] = {}
    for figures in evaluations:
        epoch = figures.get("epoch")
        points[0 if figures["when"] == "before" else (last if epoch is None else epoch) + 1] = figures
    return dict(sorted(points.items()))


def _draw_curves(path: Path, steps: Sequence[Mapping[str, Any]], evaluations: Mapping[int, Any]) -> None:
    panels = [name for name, there in (("loss", steps), ("retrieval", evaluations)) if there]
    figure = Figure(figsize=(6.4 * len(panels), 4.4), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        if panel == "loss":
            _plot_losses(axes, steps)
        else:
            _plot_retrieval(axes, evaluations)
    _save(figure, path)


def _plot_losses(axes: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    terms = list(dict.fromkeys(term for step in steps for term in step["terms"]))
    terms.sort(key=lambda term: term != "total")
    values = np.array([[step["terms"].get(term, np.nan) for term in terms] for step in steps])
    window = max(1, len(steps) // 60)
    styles = zip(cycle(COLOURS[:6]), cycle(_LINES), strict=False)  # 6 and 7: no pair comes twice among 42 terms
    for place, (term, (colour, line)) in enumerate(zip(terms, styles, strict=False)):
        faint, strong = (0.2, 2.0) if term == "total" else (0.12, 1.4)
        colour = COLOURS[6] if term == "total" else colour
        at = np.arange(1, len(steps) + 1)
        if window > 1:
            axes.plot(at, values[:, place], color=colour, linewidth=0.6, alpha=faint)
        smooth, where = _running_mean(values[:, place], window)
        axes.plot(where, smooth, color=colour, linestyle=line, linewidth=strong, label=term)
    starts = [at + 1 for at, step in enumerate(steps) if at and step["epoch"] != steps[at - 1]["epoch"]]
    if len(starts) <= 30:
        for start in starts:
            axes.axvline(start - 0.5, color="0.85", linewidth=0.6, zorder=0)
    lines = ", grey lines: new labels" if 0 < len(starts) <= 30 else ""
    mean = f"mean of {window} updates" if window > 1 else "every update"
    axes.set(title=f"Loss ({mean}{lines})", xlabel="updates (steps)", ylabel="loss")
    _finish(axes, legend=len(terms) < 12)


def _running_mean(values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over `window` neighbouring values, and the middle place of each, counted from 1."""
    means = np.convolve(values, np.ones(window) / window, mode="valid")
    return means, np.arange(len(means)) + (window + 1) / 2


def _plot_retrieval(axes: Axes, evaluations: Mapping[int, Any]) -> None:
    at = list(evaluations)
    for name, word, colour, line, marker in (
        ("mAP", "mAP", COLOURS[0], "-", "o"),
        ("rank1", "rank-1", COLOURS[1], "--", "s"),
    ):
        values = [evaluations[epoch].get(name) for epoch in at]
        there = [(epoch, value) for epoch, value in zip(at, values, strict=True) if value is not None]
        if not there:
            continue
        xs, ys = zip(*there, strict=True)
        axes.plot(xs, ys, color=colour, linestyle=line, marker=marker, markersize=5, label=word)
        for x, y in {there[0], there[-1]}:
            above = name == "rank1"
            axes.annotate(
                f"{y:.1f}",
                (x, y),
                xytext=(0, 7 if above else -14),
                textcoords="offset points",
                ha="center",
                color=colour,
            )
    axes.set(title="Retrieval before, during and after training", xlabel="epochs finished", ylabel="percent")
    axes.set_ylim(*_percent_limits(evaluations))
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes)


def _percent_limits(evaluations: Mapping[int, Any]) -> tuple[float, float]:
    values = [
        figures[name] for figures in evaluations.values() for name in ("mAP", "rank1") if figures.get(name) is not None
    ]
    if not values:
        return 0.0, 100.0
    return max(0.0, 10 * np.floor(min(values) / 10) - 10), min(103.0, 10 * np.ceil(max(values) / 10) + 10)


def _draw_clusters(path: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
    agreement = [measures for measures in epochs if measures.get("ARI") is not None]
    figure = Figure(figsize=(12.8 if agreement else 6.4, 4.4), layout="constrained")
    panels = figure.subplots(1, 2 if agreement else 1, squeeze=False)[0]
    at = [measures["epoch"] + 1 for measures in epochs]
    panels[0].plot(at, [measures["clusters"] for measures in epochs], color=COLOURS[0], marker="o", label="clusters")
    outliers = [measures.get("outliers", np.nan) for measures in epochs]
    panels[0].plot(at, outliers, color=COLOURS[1], linestyle="--", marker="s", label="outliers")
    panels[0].set(title="Clusters, and images left out", xlabel="epoch", ylabel="number of clusters, of images")
    panels[0].set_ylim(bottom=0)
    if agreement:
        curves = (("ARI", COLOURS[2], "-", "o"), ("AMI", COLOURS[3], "--", "s"), ("purity", COLOURS[4], ":", "^"))
        for name, colour, line, marker in curves:
            there = [
                (measures["epoch"] + 1, measures[name]) for measures in agreement if measures.get(name) is not None
            ]
            if there:
                xs, ys = zip(*there, strict=True)
                panels[1].plot(xs, ys, color=colour, linestyle=line, marker=marker, label=name)
        panels[1].set(
            title="Agreement of clusters and true identities", xlabel="epoch", ylabel="agreement (1: perfect)"
        )
        panels[1].set_ylim(bottom=min(0.0, *(measures["ARI"] for measures in agreement)), top=1.03)
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _finish(axes)
    _save(figure, path)


def _finish(axes: Axes, *, legend: bool = True) -> None:
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, handlelength=3)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")
