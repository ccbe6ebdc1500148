"""Curves as numbers that a template draws: places of lines and ticks in a picture of fixed size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 36
_MOST = 400  # points of a line


@dataclass(frozen=True)
class Line:
    """name: of the curve. points: x and y of each; y None where it is not known."""

    name: str
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Chart:
    """What the template draws: see `chart`."""

    title: str
    across: str
    up: str
    lines: list[dict[str, object]] = field(default_factory=list)
    xs: list[tuple[float, str]] = field(default_factory=list)
    ys: list[tuple[float, str]] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def chart(
    title: str, lines: Sequence[Line], *, across: str, up: str, zero: bool = False, whole: bool = False
) -> Chart | None:
    """A chart of some curves; None where none has a point.

    Args:
      across, up: what the axes are.
      zero: the upward axis begins at 0.
      whole: ticks across are whole numbers.
    """
    known = [Line(line.name, [(x, y) for x, y in line.points if y is not None and math.isfinite(y)]) for line in lines]
    known = [line for line in known if line.points]
    if not known:
        return None
    every = [(x, float(y)) for line in known for x, y in line.points if y is not None]
    xs = _ticks(min(x for x, _ in every), max(x for x, _ in every), whole=whole)
    low = min(y for _, y in every)
    ys = _ticks(min(0.0, low) if zero else low, max(y for _, y in every))
    x_range = (min(x for x, _ in every), max(x for x, _ in every))
    y_range = (min(ys[0], low), max(ys[-1], max(y for _, y in every)))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            round(_scaled(x, x_range, _LEFT + 6, WIDTH - _RIGHT - 6), 1),
            round(_scaled(y, y_range, HEIGHT - _BOTTOM, _TOP), 1),
        )

    drawn: list[dict[str, object]] = []
    for line in known:
        step = max(1, -(-len(line.points) // _MOST))
        kept = list(line.points[::step])
        if kept[-1] != line.points[-1]:
            kept.append(line.points[-1])
        places = [place(x, float(y)) for x, y in kept if y is not None]
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
        last = line.points[-1][1]
        drawn.append(
            {
                "name": line.name,
                "path": path,
                "dots": places if len(places) <= 30 else [],
                "last": _word(float(last or 0)),
            }
        )
    inside_x = [(place(x, y_range[0])[0], _word(x)) for x in xs if x_range[0] <= x <= x_range[1]]
    inside_y = [(place(x_range[0], y)[1], _word(y)) for y in ys if y_range[0] <= y <= y_range[1]]
    return Chart(title, across, up, drawn, inside_x, inside_y)


def _scaled(value: float, given: tuple[float, float], start: float, end: float) -> float:
    low, high = given
    return (start + end) / 2 if high <= low else start + (end - start) * (value - low) / (high - low)


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Some four round numbers that span a range."""
    if high <= low:
        return [low]
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough - 1e-12)
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first = math.floor(low / step)
    return [round(step * place, 10) for place in range(first, math.ceil(high / step) + 1)]


def _word(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
