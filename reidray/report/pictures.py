"""Pictures of what a model sees: part masks over images, and ranked lists with right and wrong answers framed."""

# B = images, Q = queries, R = ranks shown

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from reidray.report.pieces import (
    CELL,
    GAP,
    INK,
    PAPER,
    QUERY,
    coloured,
    cut,
    font_of,
    frame,
    legend,
    paste,
    save,
    scaled,
)

_TRUTH = ("background", "head", "torso", "legs", "shoes")


def draw_masks(
    path: Path,
    images_BHW3: np.ndarray,
    parts_BHW: np.ndarray,
    names: Sequence[str],
    *,
    num_parts: int,
    truth_BHW: np.ndarray | None = None,
    truth_names: Sequence[str] = _TRUTH,
) -> None:
    """Draws each image, its predicted parts in colour over it, and the true ones below where they are known.

    Args:
      path: of the PNG; folders are made.
      images_BHW3: uint8, RGB, B >= 1.
      parts_BHW: int in [0, num_parts), at the images' resolution; num_parts - 1 is the background.
      names: of the images, B of them; long ones are cut.
      num_parts: parts, the background counted.
      truth_BHW: int in [0, len(truth_names)), 0 the background, or None.
      truth_names: of the true parts.

    Raises:
      ValueError: shapes that do not go together.
    """
    count, height, width = parts_BHW.shape
    if images_BHW3.shape != (count, height, width, 3) or len(names) != count or count < 1:
        raise ValueError(
            f"images, parts and names must go together; got images {images_BHW3.shape}, parts {parts_BHW.shape} and "
            f"{len(names)} names"
        )
    if truth_BHW is not None and truth_BHW.shape != parts_BHW.shape:
        raise ValueError(f"true and predicted parts must have one shape; got {truth_BHW.shape} and {parts_BHW.shape}")
    rows = [("image", [scaled(image) for image in images_BHW3])]
    found = [
        coloured(image, np.where(parts == num_parts - 1, -1, parts.astype(int)))
        for image, parts in zip(images_BHW3, parts_BHW, strict=True)
    ]
    rows.append(("found", found))
    if truth_BHW is not None:
        true = [coloured(image, parts.astype(int) - 1) for image, parts in zip(images_BHW3, truth_BHW, strict=True)]
        rows.append(("true", true))
    font = font_of(13)
    across, left, top = rows[0][1][0].width, 56, 26
    legends = [("found, top to bottom:", [f"part {part + 1}" for part in range(num_parts - 1)])]
    if truth_BHW is not None:
        legends.append(("true:", list(truth_names[1:])))
    widest = max(legend(None, (0, 0), title, labels, font) for title, labels in legends)
    size = (
        max(left + count * (across + GAP), left + widest + GAP),
        top + len(rows) * (CELL + GAP) + len(legends) * 22 + GAP,
    )
    page = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(page)
    for place, name in enumerate(names):
        at = left + place * (across + GAP)
        pen.text((at, 7), cut(name, across, font), fill=INK, font=font)
    for row, (title, pictures) in enumerate(rows):
        down = top + row * (CELL + GAP)
        pen.text((8, down + CELL // 2 - 8), title, fill=INK, font=font)
        for place, picture in enumerate(pictures):
            page.paste(picture, (left + place * (across + GAP), down))
    for row, (title, labels) in enumerate(legends):
        legend(pen, (left, top + len(rows) * (CELL + GAP) + row * 22), title, labels, font)
    save(page, path)


def draw_ranked_lists(
    path: Path,
    queries_QHW3: Sequence[np.ndarray],
    galleries_QR: Sequence[Sequence[np.ndarray]],
    right_QR: Sequence[Sequence[bool]],
    names: Sequence[str],
) -> None:
    """Draws a row a query: the query at the left, then its gallery images by rank.

    Right ones have a solid blue frame, wrong ones a dashed orange one: told apart without colours too.

    Args:
      path: of the PNG; folders are made.
      queries_QHW3: uint8 images, Q >= 1.
      galleries_QR: the ranked gallery images of each query, best first; rows may differ in length.
      right_QR: whether each shows the query's person, like galleries_QR.
      names: of the queries, Q of them; long ones are cut.

    Raises:
      ValueError: numbers that do not go together.
    """
    lengths = [len(row) for row in galleries_QR]
    if not len(queries_QHW3) == len(lengths) == len(names) >= 1 or lengths != [len(row) for row in right_QR]:
        raise ValueError(
            f"queries, galleries, flags and names must go together; got {len(queries_QHW3)} queries, galleries of "
            f"{lengths}, flags of {[len(row) for row in right_QR]} and {len(names)} names"
        )
    cell, border, gap, apart = 128, 5, 8, 26
    font = font_of(13)
    every = [*queries_QHW3, *(image for row in galleries_QR for image in row)]
    across = max(max(1, round(cell * image.shape[1] / image.shape[0])) for image in every)
    outer = (across + 2 * border, cell + 2 * border)
    top, label = 28, 18
    down = outer[1] + gap + label
    row_width = 12 + outer[0] + apart + max(lengths) * (outer[0] + gap)
    page = Image.new("RGB", (max(row_width + 4, 420), top + len(names) * down + 30), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((12, 7), "query", fill=INK, font=font)
    for rank in range(max(lengths)):
        at = 12 + outer[0] + apart + rank * (outer[0] + gap)
        pen.text((at + outer[0] // 2, 7), str(rank + 1), fill=INK, font=font, anchor="ma")
    for row, (query, gallery, right) in enumerate(zip(queries_QHW3, galleries_QR, right_QR, strict=True)):
        y = top + row * down
        paste(page, query, (12, y), outer, border)
        pen.rectangle((12, y, 12 + outer[0] - 1, y + outer[1] - 1), outline=QUERY, width=2)
        found = sum(bool(flag) for flag in right)
        text = f"{names[row]}   {found} of {len(right)} right"
        pen.text((12, y + outer[1] + 1), cut(text, page.width - 24, font), fill=INK, font=font)
        for rank, (image, flag) in enumerate(zip(gallery, right, strict=True)):
            x = 12 + outer[0] + apart + rank * (outer[0] + gap)
            paste(page, image, (x, y), outer, border)
            frame(pen, (x, y, x + outer[0] - 1, y + outer[1] - 1), right=bool(flag), width=border - 1)
    y = top + len(names) * down
    for x, flag, word in ((12, True, "right: same person"), (200, False, "wrong: somebody else")):
        frame(pen, (x, y + 2, x + 34, y + 20), right=flag, width=4)
        pen.text((x + 42, y + 3), word, fill=INK, font=font)
    save(page, path)
