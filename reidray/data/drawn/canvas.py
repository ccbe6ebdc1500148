"""A small picture to paint on, with anti-aliased shapes, cylinder shading and a map of body parts.

Shapes are given in pixels (x to the right, y downwards, pixel centres at .5), painted from back to front. Every shape
knows at each pixel how much of it is covered; a pixel belongs to the last shape that covers more than half of it.
Letters: h, w rows and columns of the window that a shape touches; u across a shape (-1..1), v along it (0..1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

HEIGHT, WIDTH = 128, 64
BACKGROUND, HEAD, TORSO, LEGS, SHOES = range(5)
PART_NAMES = ("background", "head", "torso", "legs", "shoes")

Point = tuple[float, float]
Paint = np.ndarray | Callable[[np.ndarray, np.ndarray], np.ndarray]
"""a colour (3,), or a function of (u, v), each (h, w) or broadcastable to it, giving colours (h, w, 3)"""

_X = np.arange(WIDTH, dtype=np.float32)[None, :] + np.float32(0.5)
_Y = np.arange(HEIGHT, dtype=np.float32)[:, None] + np.float32(0.5)


def colour(rgb: tuple[float, float, float], factor: float = 1.0) -> np.ndarray:
    """A colour (3,) float32 from a tuple, times a factor."""
    return np.array(rgb, np.float32) * np.float32(factor)


class Canvas:
    """An image (128, 64, 3) float32 in 0..255 and the part at each pixel (128, 64) uint8."""

    def __init__(self, background_HW3: np.ndarray, folds_HW: np.ndarray | None = None) -> None:
        self.image_HW3 = background_HW3.astype(np.float32)
        self.parts_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
        self._folds_HW = folds_HW

    def _window(self, left: float, right: float, top: float, bottom: float) -> tuple[slice, slice] | None:
        x0, y0 = max(0, math.floor(left)), max(0, math.floor(top))
        x1, y1 = min(WIDTH, math.ceil(right)), min(HEIGHT, math.ceil(bottom))
        return None if x0 >= x1 or y0 >= y1 else (slice(y0, y1), slice(x0, x1))

    def _lay(self, window: tuple[slice, slice], cover_hw: np.ndarray, paint: np.ndarray, part: int | None) -> None:
        under = self.image_HW3[window]
        under += cover_hw[..., None] * (paint - under)
        if part is not None:
            self.parts_HW[window][cover_hw > 0.5] = part

    def _shade(self, window: tuple[slice, slice], u_hw: np.ndarray, light: float, depth: float) -> np.ndarray:
        shade_hw = (1 - depth) + depth * np.sqrt(np.maximum(0, 1 - u_hw * u_hw)) + light * u_hw
        return shade_hw if self._folds_HW is None else shade_hw * self._folds_HW[window]

    def capsule(
        self,
        start: Point,
        end: Point,
        radius: float,
        end_radius: float,
        paint: Paint,
        part: int | None,
        light: float = 0.0,
    ) -> None:
        """A limb: a line from start (v = 0) to end (v = 1) as thick as the radii say, rounded at both ends."""
        reach = max(radius, end_radius) + 1
        (px, py), (qx, qy) = start, end
        window = self._window(min(px, qx) - reach, max(px, qx) + reach, min(py, qy) - reach, max(py, qy) + reach)
        if window is None:
            return
        x_1w, y_h1 = _X[:, window[1]] - px, _Y[window[0]] - py
        dx, dy = qx - px, qy - py
        length2 = dx * dx + dy * dy + 1e-6
        v_hw = np.clip(x_1w * (dx / length2) + y_h1 * (dy / length2), 0, 1)
        away_x, away_y = x_1w - v_hw * dx, y_h1 - v_hw * dy
        thick_hw = radius + (end_radius - radius) * v_hw
        cover_hw = np.clip(thick_hw - np.sqrt(away_x * away_x + away_y * away_y) + 0.5, 0, 1)
        across = math.copysign(1.0, dy) / math.sqrt(length2)
        u_hw = np.clip((x_1w * (dy * across) - y_h1 * (dx * across)) / np.maximum(thick_hw, 0.5), -1, 1)
        shade_hw1 = self._shade(window, u_hw, light, 0.34)[..., None]
        self._lay(window, cover_hw, (paint(u_hw, v_hw) if callable(paint) else paint) * shade_hw1, part)

    def profile(
        self,
        knots: list[float],
        centres: list[float],
        halves: list[float],
        paint: Paint,
        part: int | None,
        light: float = 0.0,
    ) -> None:
        """An upright body: its centre and half width at each knot (increasing rows); v from first knot to last."""
        reach = max(halves) + 1
        window = self._window(min(centres) - reach, max(centres) + reach, knots[0] - 1, knots[-1] + 1)
        if window is None:
            return
        x_1w, y_h1 = _X[:, window[1]], _Y[window[0]]
        centre_h1 = np.interp(y_h1, knots, centres).astype(np.float32)
        half_h1 = np.interp(y_h1, knots, halves).astype(np.float32)
        off_hw = x_1w - centre_h1
        ends_h1 = np.clip(np.minimum(y_h1 - knots[0], knots[-1] - y_h1) + 0.5, 0, 1)
        cover_hw = np.clip(half_h1 - np.abs(off_hw) + 0.5, 0, 1) * ends_h1
        u_hw = np.clip(off_hw / np.maximum(half_h1, 0.5), -1, 1)
        v_h1 = np.clip((y_h1 - knots[0]) * np.float32(1 / (knots[-1] - knots[0])), 0, 1)
        shade_hw1 = self._shade(window, u_hw, light, 0.34)[..., None]
        self._lay(window, cover_hw, (paint(u_hw, v_h1) if callable(paint) else paint) * shade_hw1, part)

    def tube(
        self,
        start: Point,
        end: Point,
        knots: list[float],
        halves: list[float],
        paint: Paint,
        part: int | None,
        light: float = 0.0,
    ) -> None:
        """A leaning body: a line from start (v = 0) to end (v = 1), half widths at knots of v, cut at both ends."""
        reach = max(halves) + 1
        (px, py), (qx, qy) = start, end
        window = self._window(min(px, qx) - reach, max(px, qx) + reach, min(py, qy) - reach, max(py, qy) + reach)
        if window is None:
            return
        x_1w, y_h1 = _X[:, window[1]] - px, _Y[window[0]] - py
        length = math.hypot(qx - px, qy - py) + 1e-6
        dx, dy = (qx - px) / length, (qy - py) / length
        along_hw, off_hw = x_1w * dx + y_h1 * dy, math.copysign(1.0, dy) * (x_1w * dy - y_h1 * dx)
        v_hw = np.clip(along_hw * np.float32(1 / length), 0, 1).astype(np.float32)
        half_hw = np.interp(v_hw, knots, halves).astype(np.float32)
        ends_hw = np.clip(np.minimum(along_hw, length - along_hw) + 0.5, 0, 1)
        cover_hw = np.clip(half_hw - np.abs(off_hw) + 0.5, 0, 1) * ends_hw
        u_hw = np.clip(off_hw / np.maximum(half_hw, 0.5), -1, 1)
        shade_hw1 = self._shade(window, u_hw, light, 0.34)[..., None]
        self._lay(window, cover_hw, (paint(u_hw, v_hw) if callable(paint) else paint) * shade_hw1, part)

    def ellipse(
        self,
        centre: Point,
        rx: float,
        ry: float,
        paint: Paint,
        part: int | None,
        light: float = 0.0,
        below: float | None = None,
    ) -> None:
        """An ellipse, a ball in shade; cut off under the row `below`. Here v runs from -1 to 1 too."""
        window = self._window(centre[0] - rx - 1, centre[0] + rx + 1, centre[1] - ry - 1, centre[1] + ry + 1)
        if window is None:
            return
        u_1w, v_h1 = (_X[:, window[1]] - centre[0]) / rx, (_Y[window[0]] - centre[1]) / ry
        r2_hw = u_1w * u_1w + v_h1 * v_h1
        cover_hw = np.clip((1 - np.sqrt(r2_hw)) * min(rx, ry) + 0.5, 0, 1)
        if below is not None:
            cover_hw = cover_hw * np.clip(below - _Y[window[0]] + 0.5, 0, 1)
        shade_hw = 0.74 + 0.26 * np.sqrt(np.maximum(0, 1 - r2_hw)) + light * np.clip(u_1w, -1, 1)
        self._lay(window, cover_hw, (paint(u_1w, v_h1) if callable(paint) else paint) * shade_hw[..., None], part)

    def box(
        self,
        centre: Point,
        hx: float,
        hy: float,
        radius: float,
        paint: np.ndarray,
        part: int | None,
        light: float = 0.0,
    ) -> None:
        """A rectangle of half sizes hx, hy with rounded corners."""
        window = self._window(centre[0] - hx - 1, centre[0] + hx + 1, centre[1] - hy - 1, centre[1] + hy + 1)
        if window is None:
            return
        radius = min(radius, hx, hy)
        off_1w = _X[:, window[1]] - centre[0]
        dx_1w = np.abs(off_1w) - (hx - radius)
        dy_h1 = np.abs(_Y[window[0]] - centre[1]) - (hy - radius)
        outside = np.hypot(np.maximum(dx_1w, 0), np.maximum(dy_h1, 0))
        cover_hw = np.clip(0.5 + radius - outside - np.minimum(np.maximum(dx_1w, dy_h1), 0), 0, 1)
        u_1w = np.clip(off_1w / max(hx, 0.5), -1, 1)
        shade_1w1 = (0.94 + light * u_1w - 0.14 * np.abs(u_1w))[..., None]
        self._lay(window, cover_hw, paint * shade_1w1, part)

    def ring(self, centre: Point, radius: float, thick: float, paint: np.ndarray, part: int | None) -> None:
        """A circle drawn with a line, such as a wheel."""
        reach = radius + thick + 1
        window = self._window(centre[0] - reach, centre[0] + reach, centre[1] - reach, centre[1] + reach)
        if window is None:
            return
        away_hw = np.hypot(_X[:, window[1]] - centre[0], _Y[window[0]] - centre[1])
        self._lay(window, np.clip(thick - np.abs(away_hw - radius) + 0.5, 0, 1), paint, part)

    def darken(self, centre: Point, rx: float, ry: float, factor: float) -> None:
        """A soft shadow on what is painted so far: full at the centre, none at the rim of the ellipse."""
        window = self._window(centre[0] - rx, centre[0] + rx, centre[1] - ry, centre[1] + ry)
        if window is None:
            return
        u_1w, v_h1 = (_X[:, window[1]] - centre[0]) / rx, (_Y[window[0]] - centre[1]) / ry
        soft_hw = np.clip(1.25 - u_1w * u_1w - v_h1 * v_h1, 0, 1)
        self.image_HW3[window] *= (1 - (1 - factor) * soft_hw)[..., None]
