"""The cloth of a person as functions of the place on the body, so that a print or an open jacket turns with the view.

Each function returns a paint: (u, v) -> colours (h, w, 3), u across the visible side (-1..1), v along the part (0..1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .canvas import colour
from .identity import Identity

Texture = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _blend(under: np.ndarray, over: np.ndarray, where_hw: np.ndarray) -> np.ndarray:
    return under + where_hw[..., None].astype(np.float32) * (over - under)


def _azimuth(u_hw: np.ndarray, view: float) -> np.ndarray:
    """The side of the body one looks at, -pi..pi from the middle of the chest."""
    around = np.arcsin(u_hw) + view
    return around - 2 * math.pi * np.round(around / (2 * math.pi))


def top_texture(identity: Identity, view: float) -> Texture:
    """The front, sides and back of what is worn on the trunk; v from the neck to the hem."""
    pattern, cut, bags = identity.pattern, identity.top_cut, identity.bags
    main, second = colour(identity.top_colour.rgb), colour(pattern.rgb)
    open_front = cut.kind in ("jacket", "coat")
    straps = bags.backpack != "none"

    def paint(u_hw: np.ndarray, v_hw: np.ndarray) -> np.ndarray:
        plain = pattern.kind in ("plain", "sleeves", "stripes", "block")
        around = np.zeros_like(u_hw) if plain and not open_front and not straps else _azimuth(u_hw, view)
        rgb = _blend(main, second, np.broadcast_to(_figure(identity, around, v_hw), u_hw.shape))
        if open_front:
            rgb = _blend(rgb, second, (np.abs(around) < cut.opening) & (v_hw > 0.02))
            rgb = _blend(rgb, main * np.float32(0.6), np.abs(np.abs(around) - cut.opening) < 0.06)
        elif cut.kind == "hoodie":
            rgb = _blend(rgb, main * np.float32(0.75), (np.abs(around) < 0.5) & (v_hw > 0.6) & (v_hw < 0.8))
        if straps:
            rgb = _blend(rgb, colour(bags.backpack_rgb, 0.85), (np.abs(np.abs(around) - 0.6) < 0.14) & (v_hw < 0.55))
        return rgb

    return paint


def _figure(identity: Identity, around: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where the second colour of the pattern lies on the trunk: 0..1."""
    pattern = identity.pattern
    f, phase, duty = pattern.frequency, pattern.phase, pattern.duty
    if pattern.kind == "stripes":
        return ((v * f + phase) % 1) < duty
    if pattern.kind == "pinstripes":
        return ((around * f / 3 + phase) % 1) < duty * 0.8
    if pattern.kind == "checks":
        rows, columns = ((v * f + phase) % 1) < 0.48, ((around * f / 3.5 + phase) % 1) < 0.48
        return 0.5 * rows + 0.5 * columns
    if pattern.kind == "block":
        return v > 0.22 + 0.4 * phase
    if pattern.kind == "print":
        chest = (np.abs(around) < 0.4 + 0.4 * duty) & (v > 0.2) & (v < 0.38 + 0.24 * phase)
        back = (np.abs(np.abs(around) - math.pi) < 0.7) & (v > 0.14) & (v < 0.3 + 0.24 * phase) & (f > 4.5)
        return chest | back
    if pattern.kind == "dots":
        return (np.sin(around * f * 1.4) * np.sin(v * f * 4 + phase * 6)) > 0.3
    return np.zeros((1, 1), np.float32)


def sleeve_texture(identity: Identity, start: float, end: float, factor: float) -> Texture:
    """A sleeve whose v runs over start..end of the trunk's length, darkened by `factor`."""
    pattern = identity.pattern
    main, second = colour(identity.top_colour.rgb, factor), colour(pattern.rgb, factor)

    def paint(_: np.ndarray, v_hw: np.ndarray) -> np.ndarray:
        if pattern.kind == "sleeves":
            return np.broadcast_to(second, (1, 1, 3))
        if pattern.kind not in ("stripes", "checks"):
            return np.broadcast_to(main, (1, 1, 3))
        rows = (((start + v_hw * (end - start)) * pattern.frequency + pattern.phase) % 1) < pattern.duty
        return _blend(main, second, rows * (1.0 if pattern.kind == "stripes" else 0.5))

    return paint


def leg_texture(identity: Identity, part: str, factor: float) -> Texture:
    """The hips, the thigh or the shin ("hips", "thigh", "shin"): cloth, tights, socks or skin."""
    cut = identity.bottom_cut
    cloth, skin = colour(identity.bottom_colour.rgb, factor), colour(identity.body.skin_rgb, 0.97 * factor)
    inside = colour((38, 36, 40), factor) if cut.tights and cut.kind == "skirt" else skin
    hem = {"shorts": 0.62 + 0.36 * cut.length, "trousers": 2.0, "leggings": 2.0}.get(cut.kind, -1.0)
    if part == "hips" and cut.kind in ("shorts", "skirt"):
        hem = 2.0
    if part == "shin" and cut.kind == "shorts":
        hem = -1.0
    stripe = np.clip(240 - cloth, 40, 235) if part != "hips" else cloth

    def paint(u_hw: np.ndarray, v_hw: np.ndarray) -> np.ndarray:
        rgb = np.broadcast_to(cloth if hem > 0 else inside, (1, 1, 3))
        if hem > 0 and cut.detail == "stripe":
            rgb = _blend(cloth, stripe, np.abs(u_hw) > 0.66)
        elif hem > 0 and cut.detail == "faded":
            rgb = cloth * (1 + 0.4 * np.exp(-(((v_hw - 0.5) / 0.3) ** 2)))[..., None] * np.float32(0.92)
        if 0 < hem < 1:
            rgb = _blend(rgb, inside, v_hw > hem)
        if part == "shin" and identity.shoes.socks and cut.kind in ("shorts", "skirt", "bare"):
            rgb = _blend(rgb, colour((228, 228, 224), factor), v_hw > 0.62)
        return rgb

    return paint


def head_texture(identity: Identity, view: float) -> Texture:
    """Face and hair of a head drawn as a ball: here u and v are -1..1."""
    head = identity.head
    skin, hair = colour(identity.body.skin_rgb), colour(head.hair_rgb)
    framed = head.hair in ("long", "bob")

    def paint(u_1w: np.ndarray, v_h1: np.ndarray) -> np.ndarray:
        if head.hair == "bald":
            return np.broadcast_to(skin, (1, 1, 3))
        around = np.abs(_azimuth(np.clip(u_1w / np.sqrt(np.maximum(1 - v_h1 * v_h1, 0.05)), -1, 1), view))
        limit = np.where(v_h1 < -0.4, 0.0, 0.95 if framed else 1.3 - 0.25 * v_h1)
        eyes = (np.abs(v_h1 + 0.02) < 0.12) & (around < 0.8) & (around > 0.2)
        rgb = _blend(skin, skin * np.float32(0.62), eyes)
        return _blend(rgb, hair, around > limit)

    return paint
