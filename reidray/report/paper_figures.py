"""Figures of papers, from several runs: parsings of the same images, maps of persons, a grid of two settings."""

# B = images, N = points, R = runs, X, Y = values of two settings

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from reidray.report.pieces import CELL, GAP, INK, PAPER, coloured, font_of, save, scaled
from reidray.report.plots import COLOURS

_MARKERS = "os^DvP*X<>"
_LEFT, _TOP = 150, 10


def draw_part_rows(path: Path, images_BHW3: np.ndarray, rows: Sequence[tuple[str, np.ndarray, int]]) -> None:
    """The images, and below them a row for each run: its parts in colour over the same images.

    Args:
      path: of the PNG; folders are made.
      images_BHW3: uint8, RGB, B >= 1.
      rows: title, parts [B, H, W] at the images' resolution, and how many parts there are, the last the background.

    Raises:
      ValueError: shapes that do not go together.
    """
    for title, parts_BHW, _ in rows:
        if parts_BHW.shape != images_BHW3.shape[:3]:
            raise ValueError(f"{title}: parts {parts_BHW.shape} do not fit images {images_BHW3.shape}")
    pictures = [("image", [scaled(image) for image in images_BHW3])]
    for title, parts_BHW, num_parts in rows:
        shown = [
            coloured(image, np.where(parts == num_parts - 1, -1, parts.astype(int)))
            for image, parts in zip(images_BHW3, parts_BHW, strict=True)
        ]
        pictures.append((title, shown))
    across = pictures[0][1][0].width
    size = (_LEFT + len(images_BHW3) * (across + GAP), _TOP + len(pictures) * (CELL + GAP))
    page, font = Image.new("RGB", size, PAPER), font_of(14)
    pen = ImageDraw.Draw(page)
    for row, (title, shown) in enumerate(pictures):
        down = _TOP + row * (CELL + GAP)
        pen.multiline_text((GAP, down + CELL // 2 - 10), _lines(title), fill=INK, font=font)
        for place, picture in enumerate(shown):
            page.paste(picture, (_LEFT + place * (across + GAP), down))
    save(page, path)


def draw_person_maps(
    path: Path, maps: Sequence[tuple[str, np.ndarray]], persons_N: np.ndarray, cameras_N: np.ndarray
) -> None:
    """A panel for each run: the same images as points, a colour a person, a marker a camera.

    Args:
      path: of the PNG; folders are made.
      maps: title and points [N, 2].
      persons_N, cameras_N: of the points.
    """
    figure = Figure(figsize=(5.2 * len(maps), 5.0), layout="constrained")
    people, cameras = np.unique(persons_N).tolist(), np.unique(cameras_N).tolist()
    for axes, (title, points_N2) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
        for place, person in enumerate(people):
            for number, camera in enumerate(cameras):
                own = (persons_N == person) & (cameras_N == camera)
                shade = 1.0 if place < len(COLOURS) else 0.45
                axes.scatter(
                    *points_N2[own].T,
                    s=28,
                    color=COLOURS[place % len(COLOURS)],
                    alpha=shade,
                    marker=_MARKERS[number % len(_MARKERS)],
                    linewidths=0,
                )
        axes.set(title=title, xticks=[], yticks=[])
    figure.supxlabel(f"{len(people)} persons (colours), {len(cameras)} cameras (markers)", fontsize=10)
    _write(figure, path)


def draw_setting_grid(
    path: Path,
    names: tuple[str, str],
    values: tuple[Sequence[float], Sequence[float]],
    scores_YX: np.ndarray,
    label: str,
) -> None:
    """The score of each pair of values of two settings; pairs that were not run (NaN) stay empty.

    Args:
      path: of the PNG; folders are made.
      names, values: of the settings, across and up.
      scores_YX: their scores.
      label: what the score is.
    """
    figure = Figure(figsize=(1.2 + 1.0 * len(values[0]), 1.4 + 0.8 * len(values[1])), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(scores_YX, cmap="viridis", origin="lower", aspect="auto")
    middle = (np.nanmin(scores_YX) + np.nanmax(scores_YX)) / 2
    for (y, x), score in np.ndenumerate(scores_YX):
        if np.isfinite(score):
            ink = "black" if score > middle else "white"
            axes.text(x, y, f"{score:.1f}", ha="center", va="center", color=ink, fontsize=9)
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.set_xticks(range(len(values[0])), [f"{value:g}" for value in values[0]])
    axes.set_yticks(range(len(values[1])), [f"{value:g}" for value in values[1]])
    figure.colorbar(shown, ax=axes, label=label)
    _write(figure, path)


def _lines(title: str) -> str:
    """A title in short lines."""
    lines = [""]
    for word in title.split():
        if len(lines[-1]) + len(word) > 16:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _write(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))  # type: ignore[no-untyped-call]
