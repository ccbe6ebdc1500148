"""Resizing and augmentation of one image, pixel by pixel, from their definitions."""

import math

import numpy as np


def bicubic(x):
    """Keys' cubic convolution kernel (1981, equation 4) with a = -1/2."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x < 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def resized_line(line, size):
    """A line [size before, 3] at another size: the kernel, as wide as a new pixel where the line shrinks."""
    scale = len(line) / size
    wide = max(1.0, scale)
    out = np.empty((size, 3))
    for i in range(size):
        centre = (i + 0.5) * scale - 0.5
        weights = [bicubic((j - centre) / wide) for j in range(len(line))]
        out[i] = sum(weight * line[j].astype(float) for j, weight in enumerate(weights)) / math.fsum(weights)
    return np.clip(np.floor(out + 0.5), 0, 255)


def resized(image, height, width):
    """Columns first, then rows, each rounded to whole grey levels."""
    columns = np.stack([resized_line(line, width) for line in image])
    return np.stack([resized_line(columns[:, x], height) for x in range(width)], axis=1).astype(np.uint8)


def augmented(
    image: np.ndarray, flip: bool, dy: int, dx: int, box: np.ndarray, pad: int, fill: np.ndarray
) -> np.ndarray:
    """Pads, crops, mirrors and paints an image of the right size."""
    height, width, _ = image.shape
    out = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            row, column = y + dy - pad, (width - 1 - x if flip else x) + dx - pad
            inside = 0 <= row < height and 0 <= column < width
            erased = box[0] <= y < box[2] and box[1] <= x < box[3]
            out[y, x] = image[row, column] if inside and not erased else fill
    return out
