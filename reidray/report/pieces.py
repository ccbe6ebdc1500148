"""What pictures are made of: images over which parts are coloured, frames, legends, text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's colours, ordered so that neighbouring parts differ most; then lighter ones
PARTS = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66),
    (128, 128, 255), (255, 190, 160), (160, 230, 190),
)  # fmt: skip
RIGHT, WRONG, QUERY = (0, 114, 178), (213, 94, 0), (70, 70, 70)
INK, PAPER = (30, 30, 30), (255, 255, 255)
CELL = 192  # pixels: the height of an image in a picture
GAP = 10


def scaled(image_HW3: np.ndarray) -> Image.Image:
    """The image at the height of a cell."""
    height, width = image_HW3.shape[:2]
    size = (max(1, round(CELL * width / height)), CELL)
    return Image.fromarray(image_HW3).resize(size, Image.Resampling.BICUBIC)


def coloured(image_HW3: np.ndarray, parts_HW: np.ndarray) -> Image.Image:
    """The image in grey, every part (>= 0) in its colour with a white outline; -1 is the background, darkened."""
    grey = np.asarray(scaled(image_HW3).convert("L"), dtype=np.float32)[..., None].repeat(3, axis=2)
    size = (grey.shape[1], grey.shape[0])
    part = np.asarray(Image.fromarray(parts_HW.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    palette = np.array(PARTS, dtype=np.float32)
    tint = palette[np.maximum(part, 0) % len(PARTS)]
    mixed = np.where((part >= 0)[..., None], 0.4 * grey + 0.6 * tint, 0.45 * grey)
    edge = np.zeros(part.shape, dtype=bool)
    edge[:, 1:] |= part[:, 1:] != part[:, :-1]
    edge[1:] |= part[1:] != part[:-1]
    mixed[edge] = 255.0
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def legend(
    pen: ImageDraw.ImageDraw | None,
    at: tuple[int, int],
    title: str,
    labels: Sequence[str],
    font: ImageFont.FreeTypeFont,
) -> int:
    """Draws a title and coloured boxes with their labels (only measures them where there is no pen); the width."""
    x, y = at
    if pen:
        pen.text((x, y), title, fill=INK, font=font)
    x += round(font.getlength(title)) + 12
    for place, label in enumerate([*labels, "background"]):
        colour = PARTS[place % len(PARTS)] if place < len(labels) else (60, 60, 60)
        if pen:
            pen.rectangle((x, y + 1, x + 14, y + 14), fill=colour, outline=INK)
            pen.text((x + 20, y), label, fill=INK, font=font)
        x += 20 + round(font.getlength(label)) + 16
    return x - at[0]


def paste(page: Image.Image, image_HW3: np.ndarray, at: tuple[int, int], outer: tuple[int, int], frame: int) -> None:
    inner = (outer[0] - 2 * frame, outer[1] - 2 * frame)
    height, width = image_HW3.shape[:2]
    scale = min(inner[0] / width, inner[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(image_HW3).resize(size, Image.Resampling.BICUBIC)
    page.paste(picture, (at[0] + (outer[0] - size[0]) // 2, at[1] + (outer[1] - size[1]) // 2))


def frame(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], *, right: bool, width: int) -> None:
    """A solid frame for right, a dashed one for wrong."""
    x0, y0, x1, y1 = box
    if right:
        pen.rectangle(box, outline=RIGHT, width=width)
        return
    dash, space = 9, 6
    for x in range(x0, x1 + 1, dash + space):
        end = min(x + dash - 1, x1)
        pen.rectangle((x, y0, end, y0 + width - 1), fill=WRONG)
        pen.rectangle((x, y1 - width + 1, end, y1), fill=WRONG)
    for y in range(y0, y1 + 1, dash + space):
        end = min(y + dash - 1, y1)
        pen.rectangle((x0, y, x0 + width - 1, end), fill=WRONG)
        pen.rectangle((x1 - width + 1, y, x1, end), fill=WRONG)


def font_of(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def cut(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The text, or its end behind dots where it is wider than `width` pixels (the end tells files apart)."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"..{text}") > width:
        text = text[1:]
    return f"..{text}"


def save(page: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, format="PNG")
