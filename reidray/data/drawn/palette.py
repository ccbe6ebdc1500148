"""The colours that people, their hair and their clothes may have, and how often.

Colours are (red, green, blue) from 0 to 255.
"""

from __future__ import annotations

import numpy as np

Colour = tuple[float, float, float]

# name: (colour, weight as a top, weight as a bottom, weight as shoes or a bag)
CLOTH: dict[str, tuple[Colour, float, float, float]] = {
    "black": ((30, 30, 34), 13, 18, 20),
    "charcoal": ((66, 68, 74), 7, 10, 8),
    "grey": ((124, 126, 130), 8, 8, 8),
    "silver": ((182, 184, 188), 4, 3, 4),
    "white": ((236, 236, 232), 14, 5, 16),
    "cream": ((232, 218, 184), 3, 4, 3),
    "khaki": ((188, 164, 118), 3, 8, 4),
    "brown": ((112, 74, 46), 3, 5, 9),
    "maroon": ((112, 24, 38), 3, 2, 2),
    "red": ((200, 36, 40), 7, 2, 4),
    "coral": ((232, 112, 96), 2, 0.7, 1),
    "orange": ((228, 126, 36), 3, 0.7, 1.5),
    "mustard": ((200, 154, 40), 3, 1.5, 1),
    "yellow": ((238, 212, 72), 3, 0.5, 1.5),
    "lime": ((150, 196, 64), 1.5, 0.5, 1),
    "green": ((44, 130, 66), 4, 1, 2),
    "forest": ((30, 72, 48), 3, 2.5, 2),
    "olive": ((104, 106, 56), 3, 4, 3),
    "teal": ((30, 132, 136), 3, 1, 2),
    "turquoise": ((92, 200, 200), 2, 0.5, 1),
    "sky": ((146, 190, 232), 6, 4, 2),
    "blue": ((44, 92, 190), 7, 6, 4),
    "denim": ((76, 104, 148), 4, 15, 2),
    "navy": ((34, 42, 88), 8, 13, 5),
    "lavender": ((176, 156, 214), 1.5, 0.7, 1),
    "purple": ((108, 56, 146), 3, 1, 2),
    "magenta": ((196, 50, 124), 2, 0.5, 1.5),
    "pink": ((236, 162, 184), 4, 1.5, 2),
}
HAIR: dict[str, tuple[Colour, float]] = {
    "black": ((26, 22, 22), 42),
    "brown": ((58, 38, 28), 24),
    "chestnut": ((104, 62, 36), 12),
    "blond": ((186, 150, 92), 10),
    "grey": ((160, 158, 156), 7),
    "red": ((138, 62, 30), 5),
}
SKIN: dict[str, tuple[Colour, float]] = {
    "pale": ((240, 206, 184), 16),
    "light": ((226, 184, 154), 34),
    "tan": ((198, 150, 116), 26),
    "brown": ((152, 106, 76), 14),
    "dark": ((98, 68, 50), 10),
}
_NAMES = tuple(CLOTH)
TOP, BOTTOM, SHOE = 1, 2, 3


def draw_colour(rng: np.random.Generator, use: int) -> tuple[str, Colour]:
    """The name and the very shade of a garment for a use: TOP, BOTTOM or SHOE (bags too)."""
    weights = np.array([CLOTH[name][use] for name in _NAMES], float)
    name = _NAMES[int(rng.choice(len(_NAMES), p=weights / weights.sum()))]
    shade = rng.normal(0, 0.06) + rng.normal(0, 0.025, 3)
    return name, _rgb(np.array(CLOTH[name][0]) * (1 + shade) + rng.normal(0, 3))


def draw_named(rng: np.random.Generator, table: dict[str, tuple[Colour, float]]) -> tuple[str, Colour]:
    """The name and the shade of a colour from a table of names, colours and weights."""
    weights = np.array([weight for _, weight in table.values()], float)
    name = list(table)[int(rng.choice(len(table), p=weights / weights.sum()))]
    return name, _rgb(np.array(table[name][0]) * rng.uniform(0.92, 1.08))


def _rgb(values: np.ndarray) -> Colour:
    red, green, blue = (round(float(value), 2) for value in np.clip(values, 8, 248))
    return red, green, blue


def pick(rng: np.random.Generator, **weights: float) -> str:
    """One of the names, as likely as their weights say."""
    p = np.array(list(weights.values()), float)
    return list(weights)[int(rng.choice(len(p), p=p / p.sum()))]


def colour_distance(a: Colour, b: Colour) -> float:
    """Sum of the absolute differences of red, green and blue, 0..765."""
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))
