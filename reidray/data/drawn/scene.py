"""What is around a pedestrian: the panorama of a camera, and things that stand in front."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from .canvas import BACKGROUND, HEIGHT, WIDTH, Canvas

_WALLS = (
    (158, 134, 118),
    (186, 182, 172),
    (104, 118, 98),
    (112, 116, 124),
    (146, 138, 124),
    (92, 106, 88),
    (134, 118, 104),
    (170, 160, 140),
)
_GROUNDS = (
    (128, 126, 120),
    (150, 146, 136),
    (102, 104, 106),
    (164, 154, 142),
    (118, 120, 110),
    (176, 172, 164),
    (140, 130, 124),
)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """Noise (height, width) float32 of about unit size that varies over `cell` pixels."""
    rows, columns = max(2, round(height / cell) + 2), max(2, round(width / cell) + 2)
    coarse = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def folds(rng: np.random.Generator) -> np.ndarray:
    """Creases of cloth: a factor (128, 64) float32 about 1."""
    return 1 + 0.05 * smooth_noise(rng, HEIGHT, WIDTH, 6) + 0.025 * smooth_noise(rng, HEIGHT, WIDTH, 2)


def draw_panorama(rng: np.random.Generator, *, height: int, width: int) -> np.ndarray:
    """A street: wall above, ground below, and what stands there; (height, width, 3) uint8."""
    horizon = int(rng.uniform(0.2, 0.5) * height)
    image_HW3 = np.empty((height, width, 3), np.float32)
    wall, ground = (
        np.array(table[rng.integers(len(table))], np.float32) * rng.uniform(0.75, 1.2) for table in (_WALLS, _GROUNDS)
    )
    image_HW3[:horizon] = wall + rng.normal(0, 8, 3)
    image_HW3[horizon:] = ground + rng.normal(0, 5, 3)
    image_HW3[:horizon] += (smooth_noise(rng, horizon, width, 11) * 12 + smooth_noise(rng, horizon, width, 3) * 7)[
        ..., None
    ]
    below = height - horizon
    image_HW3[horizon:] += (smooth_noise(rng, below, width, 15) * 7 + smooth_noise(rng, below, width, 2.5) * 4)[
        ..., None
    ]
    image_HW3[horizon:] *= np.linspace(0.86, 1.08, below, dtype=np.float32)[:, None, None]
    (_tiles, _road, _grass, _bare)[rng.integers(4)](rng, image_HW3, horizon)
    if rng.random() < 0.6:
        _windows(rng, image_HW3, horizon)
    for _ in range(rng.integers(2, 8)):
        (_pole, _tree, _crate)[rng.integers(3)](rng, image_HW3, horizon)
    image = Image.fromarray(np.clip(image_HW3, 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)))


def _tiles(rng: np.random.Generator, image_HW3: np.ndarray, horizon: int) -> None:
    height, width = image_HW3.shape[:2]
    away_h1 = np.arange(8, height - horizon + 8)[:, None]
    image_HW3[horizon:] *= np.where((840.0 / away_h1) % 1 < 0.12, 0.87, 1)[..., None]
    columns = (np.arange(width)[None, :] - width / 2) / away_h1 * rng.uniform(6, 11)
    image_HW3[horizon:] *= np.where(columns % 1 < 0.09, 0.9, 1)[..., None]


def _road(rng: np.random.Generator, image_HW3: np.ndarray, horizon: int) -> None:
    height, width = image_HW3.shape[:2]
    kerb = horizon + int(rng.uniform(0.2, 0.5) * (height - horizon))
    image_HW3[kerb : kerb + 4] *= 1.25
    image_HW3[kerb + 4 :] *= 0.82
    dashes = (np.arange(width) // 26) % 2 == 0
    image_HW3[kerb + 25 : kerb + 30, dashes] = (206, 204, 198)


def _grass(rng: np.random.Generator, image_HW3: np.ndarray, horizon: int) -> None:
    height, width = image_HW3.shape[:2]
    start = horizon + int(rng.uniform(0, 0.25) * (height - horizon))
    depth = min(int(rng.integers(14, 34)), height - start)
    blades = smooth_noise(rng, depth, width, 2)[..., None] * 13
    image_HW3[start : start + depth] = np.array((98, 116, 78), np.float32) + blades


def _bare(rng: np.random.Generator, image_HW3: np.ndarray, horizon: int) -> None:
    image_HW3[horizon:] *= rng.uniform(0.9, 1.1)


def _windows(rng: np.random.Generator, image_HW3: np.ndarray, horizon: int) -> None:
    period, dark = int(rng.integers(26, 54)), rng.uniform(0.5, 0.78)
    columns = (np.arange(image_HW3.shape[1]) + rng.integers(period)) % period > period * 0.4
    image_HW3[int(horizon * 0.12) : int(horizon * 0.82), columns] *= dark


def _pole(rng: np.random.Generator, image_HW3: np.ndarray, horizon: int) -> None:
    x = int(rng.integers(0, image_HW3.shape[1]))
    image_HW3[: horizon + int(rng.integers(5, 40)), x : x + int(rng.integers(2, 6))] = rng.uniform(
        60, 140
    ) + rng.normal(0, 8, 3)


def _tree(rng: np.random.Generator, image_HW3: np.ndarray, horizon: int) -> None:
    height, width = image_HW3.shape[:2]
    x, y, radius = rng.integers(0, width), horizon * rng.uniform(0.3, 1), rng.uniform(12, 30)
    crown = (np.arange(width)[None, :] - x) ** 2 + (np.arange(height)[:, None] - y) ** 2 * 1.4 < radius * radius
    leaves = np.array((78, 98, 66), np.float32) * rng.uniform(0.7, 1.15)
    image_HW3[crown] = leaves + rng.normal(0, 11, (int(crown.sum()), 1))


def _crate(rng: np.random.Generator, image_HW3: np.ndarray, horizon: int) -> None:
    x, wide, high = int(rng.integers(0, image_HW3.shape[1])), int(rng.integers(10, 40)), int(rng.integers(12, 34))
    y = max(0, horizon - high // 2 + int(rng.integers(0, 14)))
    image_HW3[y : y + high, x : x + wide] = rng.uniform(60, 170) + rng.normal(0, 22, 3)
    image_HW3[y + high - 3 : y + high, x : x + wide] *= 0.6


def cut_background(panorama_HW3: np.ndarray, *, zoom: float, across: float, down: float, flip: bool) -> np.ndarray:
    """A piece of a panorama as a picture (128, 64, 3) uint8; `across` and `down` say where, each 0..1."""
    height, width = panorama_HW3.shape[:2]
    rows, columns = int(HEIGHT / zoom), int(1.4 * WIDTH / zoom)
    x, y = int(across * (width - columns)), int(down * (height - rows))
    piece = panorama_HW3[y : y + rows, x : x + columns]
    return np.asarray(
        Image.fromarray(piece[:, ::-1] if flip else piece).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    )


def draw_obstacle(canvas: Canvas, rng: np.random.Generator) -> None:
    """Something in front of the person: a pole, a bin or car, a bicycle or a hedge. It counts as background."""
    rgb = (rng.uniform(50, 190) + rng.normal(0, 28, 3)).clip(15, 235).astype(np.float32)
    (_front_pole, _front_bin, _front_bicycle, _front_hedge)[rng.integers(4)](canvas, rng, rgb)


def _front_pole(canvas: Canvas, rng: np.random.Generator, rgb: np.ndarray) -> None:
    canvas.box((rng.uniform(0, WIDTH), HEIGHT / 2), rng.uniform(2, 5), HEIGHT, 1, rgb, BACKGROUND, 0.1)


def _front_bin(canvas: Canvas, rng: np.random.Generator, rgb: np.ndarray) -> None:
    canvas.box(
        (rng.uniform(-10, WIDTH + 10), HEIGHT + 4),
        rng.uniform(20, 46),
        rng.uniform(0.12, 0.34) * HEIGHT,
        4,
        rgb,
        BACKGROUND,
        0.1,
    )


def _front_bicycle(canvas: Canvas, rng: np.random.Generator, rgb: np.ndarray) -> None:
    x, y = rng.uniform(0.15, 0.85) * WIDTH, rng.uniform(0.84, 0.93) * HEIGHT
    for side in (-20, 20):
        canvas.ring((x + side, y), 14, 1.2, np.array((30, 30, 32), np.float32), BACKGROUND)
    for (ax, ay), (bx, by) in (
        ((-20, 0), (-4, -23)),
        ((-4, -23), (16, -25)),
        ((16, -25), (20, 0)),
        ((0, 0), (-6, -27)),
        ((0, 0), (16, -23)),
        ((-20, 0), (0, 0)),
    ):
        canvas.capsule((x + ax, y + ay), (x + bx, y + by), 1.2, 1.2, rgb, BACKGROUND)


def _front_hedge(canvas: Canvas, rng: np.random.Generator, rgb: np.ndarray) -> None:
    leaves = 0.35 * rgb + np.array((56, 70, 44), np.float32)
    x, y = (0 if rng.random() < 0.5 else WIDTH), rng.uniform(0.5, 1.05) * HEIGHT
    reach = rng.uniform(8, 20)
    for k in range(7):
        turn = k * 2.4
        canvas.ellipse(
            (x + reach * 0.6 * math.cos(turn), y + 2.2 * reach * math.sin(turn)),
            reach,
            reach * 1.2,
            leaves * rng.uniform(0.8, 1.15),
            BACKGROUND,
        )
