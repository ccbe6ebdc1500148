"""Several runs beside each other on one page: the settings in which they differ, figures, curves over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reidray.disk import write_whole
from reidray.report.figure_names import FIGURES
from reidray.report.page import words
from reidray.report.page.contents import RunContents
from reidray.report.page.write import charts, rendered
from reidray.version import __version__

_RESULTS = {
    "clusters": "clusters",
    "outliers": "outliers",
    "ARI": "ARI",
    "AMI": "AMI",
    "purity": "purity",
    "images_per_second": "images a second in training",
}


@dataclass(frozen=True)
class ComparedRun:
    """name: told apart from the others. page: address of its own page from the place of this one, None: it has none."""

    name: str
    run: RunContents
    page: str | None = None


def write_comparison(path: Path, runs: Sequence[ComparedRun]) -> None:
    """Writes the page; it needs nothing beside it."""
    by_name = {one.name: one.run for one in runs}
    page = rendered(
        "compare.html.j2",
        runs=runs,
        differing=words.differing([one.run.settings for one in runs]),
        figures=_figures([one.run for one in runs]),
        charts=charts(by_name),
        cautions=[(one.name, words.cautions(one.run)) for one in runs],
        version=__version__,
    )
    write_whole(path, page)


def _figures(runs: Sequence[RunContents]) -> list[tuple[str, list[str]]]:
    """A row a figure, a column a run; what no run has is left out."""
    rows: list[tuple[str, list[float | None]]] = []
    for when in ("before", "after"):
        moments = [{line["when"]: line for line in run.evaluations}.get(when, {}) for run in runs]
        rows += [
            (f"{word} {when}, percent", [moment.get(name) for moment in moments]) for name, word in FIGURES.items()
        ]
    for name, word in _RESULTS.items():
        rows.append((word, [(run.result or {}).get(name) for run in runs]))
    rows.append(("seconds in all", [(run.result or {}).get("seconds", {}).get("total") for run in runs]))
    return [
        (word, [_word(value) for value in values])
        for word, values in rows
        if any(value is not None for value in values)
    ]


def _word(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
