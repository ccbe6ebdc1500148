"""A measure over two settings, from the trials of a search."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reidray.report.paper_figures import draw_setting_grid
from reidray.tuning.ledger import Ledger


def draw_search(path: Path, search: Path, names: tuple[str, str], measure: str) -> None:
    """A measure of the last epoch of each trial; the mean where several trials have the same two values.

    Raises:
      ValueError: no search, one that did not vary the two settings, or no trial with the measure.
    """
    if not (search / "trials.jsonl").is_file():
        raise ValueError(f"{search} is no search folder: it has no trials.jsonl")
    found: dict[tuple[float, float], list[float]] = {}
    for entry in Ledger(search, measure).entries():
        if not set(names) <= entry.values.keys():
            raise ValueError(f"{search} did not vary {names[0]} and {names[1]}, but {', '.join(sorted(entry.values))}")
        if entry.measures.get(measure) is not None:
            pair = _number(entry.values[names[0]], names[0]), _number(entry.values[names[1]], names[1])
            found.setdefault(pair, []).append(float(entry.measures[measure]))
    if not found:
        raise ValueError(f"no trial of {search} has {measure}")
    across, up = (sorted({pair[axis] for pair in found}) for axis in (0, 1))
    scores_YX = np.array([[np.mean(found.get((x, y), [np.nan])) for x in across] for y in up])
    draw_setting_grid(path, names, (across, up), scores_YX, measure)


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a grid needs settings with numbers as values, and {name} has {value!r}")
    return float(value)
