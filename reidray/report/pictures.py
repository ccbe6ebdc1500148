"""Pictures of what a model sees: part masks over images, and ranked lists with right and wrong answers framed."""

# B = images, Q = queries, R = ranks shown

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's colours, ordered so that neighbouring parts differ most; then lighter ones
_PARTS = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66),
    (128, 128, 255), (255, 190, 160), (160, 230, 190),
)  # fmt: skip
_RIGHT, _WRONG, _QUERY = (0, 114, 178), (213, 94, 0), (70, 70, 70)
_INK, _PAPER = (30, 30, 30), (255, 255, 255)
_CELL = 192  # pixels: the height of an image in a picture
_GAP = 10
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
    rows = [("image", [_scaled(image) for image in images_BHW3])]
    coloured = [
        _coloured(image, np.where(parts == num_parts - 1, -1, parts.astype(int)))
        for image, parts in zip(images_BHW3, parts_BHW, strict=True)
    ]
    rows.append(("found", coloured))
    if truth_BHW is not None:
        true = [_coloured(image, parts.astype(int) - 1) for image, parts in zip(images_BHW3, truth_BHW, strict=True)]
        rows.append(("true", true))
    font = _font(13)
    across, left, top = rows[0][1][0].width, 56, 26
    legends = [("found, top to bottom:", [f"part {part + 1}" for part in range(num_parts - 1)])]
    if truth_BHW is not None:
        legends.append(("true:", list(truth_names[1:])))
    widest = max(_legend(None, (0, 0), title, labels, font) for title, labels in legends)
    size = (
        max(left + count * (across + _GAP), left + widest + _GAP),
        top + len(rows) * (_CELL + _GAP) + len(legends) * 22 + _GAP,
    )
    page = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(page)
    for place, name in enumerate(names):
        at = left + place * (across + _GAP)
        pen.text((at, 7), _cut(name, across, font), fill=_INK, font=font)
    for row, (title, pictures) in enumerate(rows):
        down = top + row * (_CELL + _GAP)
        pen.text((8, down + _CELL // 2 - 8), title, fill=_INK, font=font)
        for place, picture in enumerate(pictures):
            page.paste(picture, (left + place * (across + _GAP), down))
    for row, (title, labels) in enumerate(legends):
        _legend(pen, (left, top + len(rows) * (_CELL + _GAP) + row * 22), title, labels, font)
    _save(page, path)


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
    cell, frame, gap, apart = 128, 5, 8, 26
    font = _font(13)
    every = [*queries_QHW3, *(image for row in galleries_QR for image in row)]
    across = max(max(1, round(cell * image.shape[1] / image.shape[0])) for image in every)
    outer = (across + 2 * frame, cell + 2 * frame)
    top, label = 28, 18
    down = outer[1] + gap + label
    row_width = 12 + outer[0] + apart + max(lengths) * (outer[0] + gap)
    page = Image.new("RGB", (max(row_width + 4, 420), top + len(names) * down + 30), _PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((12, 7), "query", fill=_INK, font=font)
    for rank in range(max(lengths)):
        at = 12 + outer[0] + apart + rank * (outer[0] + gap)
        pen.text((at + outer[0] // 2, 7), str(rank + 1), fill=_INK, font=font, anchor="ma")
    for row, (query, gallery, right) in enumerate(zip(queries_QHW3, galleries_QR, right_QR, strict=True)):
        y = top + row * down
        _paste(page, query, (12, y), outer, frame)
        pen.rectangle((12, y, 12 + outer[0] - 1, y + outer[1] - 1), outline=_QUERY, width=2)
        found = sum(bool(flag) for flag in right)
        text = f"{names[row]}   {found} of {len(right)} right"
        pen.text((12, y + outer[1] + 1), _cut(text, page.width - 24, font), fill=_INK, font=font)
        for rank, (image, flag) in enumerate(zip(gallery, right, strict=True)):
            x = 12 + outer[0] + apart + rank * (outer[0] + gap)
            _paste(page, image, (x, y), outer, frame)
            _frame(pen, (x, y, x + outer[0] - 1, y + outer[1] - 1), right=bool(flag), width=frame - 1)
    y = top + len(names) * down
    for x, flag, word in ((12, True, "right: same person"), (200, False, "wrong: somebody else")):
        _frame(pen, (x, y + 2, x + 34, y + 20), right=flag, width=4)
        pen.text((x + 42, y + 3), word, fill=_INK, font=font)
    _save(page, path)


# --- pieces -----------------------------------------------------------------------------------------------------------


def _scaled(image_HW3: np.ndarray, *, nearest: bool = False) -> Image.Image:
    """The image at the height of a cell."""
    height, width = image_HW3.shape[:2]
    size = (max(1, round(_CELL * width / height)), _CELL)
    return Image.fromarray(image_HW3).resize(size, Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC)


def _coloured(image_HW3: np.ndarray, parts_HW: np.ndarray) -> Image.Image:
    """The image in grey, every part (>= 0) in its colour with a white outline; -1 is the background, darkened."""
    grey = np.asarray(_scaled(image_HW3).convert("L"), dtype=np.float32)[..., None].repeat(3, axis=2)
    size = (grey.shape[1], grey.shape[0])
    part = np.asarray(Image.fromarray(parts_HW.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    palette = np.array(_PARTS, dtype=np.float32)
    tint = palette[np.maximum(part, 0) % len(_PARTS)]
    mixed = np.where((part >= 0)[..., None], 0.4 * grey + 0.6 * tint, 0.45 * grey)
    edge = np.zeros(part.shape, dtype=bool)
    edge[:, 1:] |= part[:, 1:] != part[:, :-1]
    edge[1:] |= part[1:] != part[:-1]
    mixed[edge] = 255.0
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def _legend(
    pen: ImageDraw.ImageDraw | None,
    at: tuple[int, int],
    title: str,
    labels: Sequence[str],
    font: ImageFont.FreeTypeFont,
) -> int:
    """Draws a title and coloured boxes with their labels (only measures them where there is no pen); the width."""
    x, y = at
    if pen:
        pen.text((x, y), title, fill=_INK, font=font)
    x += round(font.getlength(title)) + 12
    for place, label in enumerate([*labels, "background"]):
        colour = _PARTS[place % len(_PARTS)] if place < len(labels) else (60, 60, 60)
        if pen:
            pen.rectangle((x, y + 1, x + 14, y + 14), fill=colour, outline=_INK)
            pen.text((x + 20, y), label, fill=_INK, font=font)
        x += 20 + round(font.getlength(label)) + 16
    return x - at[0]


def _paste(page: Image.Image, image_HW3: np.ndarray, at: tuple[int, int], outer: tuple[int, int], frame: int) -> None:
    inner = (outer[0] - 2 * frame, outer[1] - 2 * frame)
    height, width = image_HW3.shape[:2]
    scale = min(inner[0] / width, inner[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(image_HW3).resize(size, Image.Resampling.BICUBIC)
    page.paste(picture, (at[0] + (outer[0] - size[0]) // 2, at[1] + (outer[1] - size[1]) // 2))


def _frame(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], *, right: bool, width: int) -> None:
    """A solid frame for right, a dashed one for wrong."""
    x0, y0, x1, y1 = box
    if right:
        pen.rectangle(box, outline=_RIGHT, width=width)
        return
    dash, space = 9, 6
    for x in range(x0, x1 + 1, dash + space):
        end = min(x + dash - 1, x1)
        pen.rectangle((x, y0, end, y0 + width - 1), fill=_WRONG)
        pen.rectangle((x, y1 - width + 1, end, y1), fill=_WRONG)
    for y in range(y0, y1 + 1, dash + space):
        end = min(y + dash - 1, y1)
        pen.rectangle((x0, y, x0 + width - 1, end), fill=_WRONG)
        pen.rectangle((x1 - width + 1, y, x1, end), fill=_WRONG)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The text, or its end behind dots where it is wider than `width` pixels (the end tells files apart)."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"..{text}") > width:
        text = text[1:]
    return f"..{text}"


def _save(page: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, format="PNG")
