"""Things that hide a third to a half of a person: what they cover is measured on the person's own mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .canvas import BACKGROUND, HEIGHT, WIDTH, Canvas

SHARE = (1 / 3, 1 / 2)
"""of the person's pixels in the box that are hidden"""

Passer = Callable[[Canvas, float], None]
"""paints another person in front, so many pixels beside the middle of the box"""

_TRIES = 9


def hide(canvas: Canvas, rng: np.random.Generator, passer: Passer) -> None:
    """Paint something in front of a person that hides a third to a half; it counts as background.

    Args:
        canvas: with the person, in place; left alone where there is no person.
        rng: what it is, how much it hides, and its colours.
        passer: paints another person, who hides as near to the wanted share as a walker can.
    """
    share, kind = rng.uniform(*SHARE), int(rng.choice(6, p=(0.2, 0.16, 0.14, 0.16, 0.12, 0.22)))
    rgb = (rng.uniform(60, 190) + rng.normal(0, 26, 3)).clip(20, 235).astype(np.float32)
    person_HW = canvas.parts_HW > BACKGROUND
    if not person_HW.any():
        return
    if kind == 5:
        _person(canvas, person_HW, share, passer, 1 if rng.random() < 0.5 else -1)
    elif kind == 4:
        _sign(canvas, rng, rgb, _quantile(person_HW.sum(1), share))
    elif kind == 3:
        start = rng.uniform(0, 1 - share)
        columns = person_HW.sum(0)
        _pillar(canvas, rgb, _quantile(columns, start), _quantile(columns, start + share))
    else:
        (_wall, _car, _hedge)[kind](canvas, rng, rgb, _quantile(person_HW.sum(1), 1 - share))


def _quantile(counts: np.ndarray, share: float) -> float:
    """The edge, in pixels, before which this share of the person lies."""
    upto = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    first = int(np.searchsorted(upto, share, side="right")) - 1
    first = min(first, len(counts) - 1)
    step = upto[first + 1] - upto[first]
    return first + (float((share - upto[first]) / step) if step > 0 else 0.0)


def _block(canvas: Canvas, left: float, right: float, top: float, bottom: float, rgb: np.ndarray) -> None:
    middle = (0.5 * (left + right), 0.5 * (top + bottom))
    canvas.box(middle, 0.5 * (right - left), 0.5 * (bottom - top), 1.5, rgb, BACKGROUND, 0.08)


def _wall(canvas: Canvas, rng: np.random.Generator, rgb: np.ndarray, edge: float) -> None:
    """A wall of bricks or concrete up to the lower edge of the box, with a coping."""
    _block(canvas, -8, WIDTH + 8, edge, HEIGHT + 20, rgb)
    if rng.random() < 0.6:
        course = rng.uniform(5, 9)
        rows = np.arange(edge + 6, HEIGHT, course)
        for number, row in enumerate(rows):
            _block(canvas, -8, WIDTH + 8, row, row + 1.0, rgb * 0.82)
            for column in np.arange(-8 + (number % 2) * course, WIDTH, 2 * course):
                _block(canvas, column, column + 1.0, row, row + course, rgb * 0.82)
    _block(canvas, -8, WIDTH + 8, edge, edge + 4, rgb * 1.15)


def _car(canvas: Canvas, rng: np.random.Generator, rgb: np.ndarray, edge: float) -> None:
    """The bonnet and the side of a parked car, up to the lower edge of the box."""
    canvas.box((WIDTH / 2, 0.5 * (edge + HEIGHT + 30)), WIDTH, 0.5 * (HEIGHT + 30 - edge), 3, rgb, BACKGROUND, 0.12)
    _block(canvas, -8, WIDTH + 8, edge, edge + 2.5, (rgb * 1.3).clip(0, 250))
    _block(canvas, -8, WIDTH + 8, edge + 12, edge + 13.2, rgb * 0.7)
    seam, wheel = rng.uniform(4, WIDTH - 4), rng.uniform(-4, WIDTH + 4)
    _block(canvas, seam, seam + 1.2, edge + 3, HEIGHT + 8, rgb * 0.68)
    dark, rim = np.array((28, 28, 30), np.float32), np.array((150, 152, 156), np.float32)
    canvas.ellipse((wheel, HEIGHT + 3), 17, 19, dark, BACKGROUND)
    canvas.ellipse((wheel, HEIGHT + 3), 9, 11, rim, BACKGROUND)


def _hedge(canvas: Canvas, rng: np.random.Generator, rgb: np.ndarray, edge: float) -> None:
    """A hedge up to the lower edge of the box, with a ragged top about the edge."""
    leaves = 0.25 * rgb + np.array((50, 72, 38), np.float32)
    _block(canvas, -8, WIDTH + 8, edge + 2, HEIGHT + 20, leaves * 0.9)
    for _ in range(70):
        x, y = rng.uniform(-4, WIDTH + 4), edge + 4 + rng.uniform(0, 1) ** 1.5 * (HEIGHT - edge)
        canvas.ellipse((x, y), rng.uniform(3, 6), rng.uniform(2.5, 5), leaves * rng.uniform(0.7, 1.25), BACKGROUND)


def _pillar(canvas: Canvas, rgb: np.ndarray, left: float, right: float) -> None:
    """A pillar or the trunk of a tree, as high as the box."""
    middle, half = 0.5 * (left + right), 0.5 * (right - left)
    reach = HEIGHT + 40.0
    canvas.profile([-40.0, reach], [middle, middle], [half, half], rgb, BACKGROUND, 0.08)


def _sign(canvas: Canvas, rng: np.random.Generator, rgb: np.ndarray, edge: float) -> None:
    """A board or an awning that hides what is above its lower edge."""
    _block(canvas, -8, WIDTH + 8, -20, edge, rgb)
    stripe = (255 - rgb) * 0.55 + 60
    if rng.random() < 0.5:
        width = rng.uniform(6, 11)
        for left in np.arange(-4, WIDTH, 2 * width):
            _block(canvas, left, left + width, -20, edge, stripe)
    else:
        _block(canvas, 10, WIDTH - 10, 0.35 * edge, 0.55 * edge, stripe)
    _block(canvas, -8, WIDTH + 8, edge - 2.5, edge, rgb * 0.6)


def _person(canvas: Canvas, person_HW: np.ndarray, share: float, passer: Passer, side: int) -> None:
    """Another person, at the distance beside this one at which they hide most nearly the share."""
    off, total = 0.0, person_HW.sum()
    best = np.inf
    for tried in np.linspace(0.02, 0.5, _TRIES) * WIDTH * side:
        scratch = Canvas(np.zeros((HEIGHT, WIDTH, 3), np.float32))
        scratch.parts_HW[:] = person_HW
        passer(scratch, float(tried))
        hidden = 1 - (scratch.parts_HW[person_HW] > BACKGROUND).sum() / total
        if abs(hidden - share) < best:
            best, off = abs(hidden - share), float(tried)
    passer(canvas, off)
