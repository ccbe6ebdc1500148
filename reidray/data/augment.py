"""Flip, pad and crop, random erasing: one table of draws for the whole global batch, applied to any rows of it.

The table depends on (seed, epoch, step) and the slot in the batch alone, so the workers that share a batch, however
many they are, each take their rows of the same table.
"""

# B = batch, H, W = height and width in pixels, T = attempts at an erased box

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reidray.arrays import Bytes, Doubles, Ints

_PIXEL = np.dtype("V3")
_STREAM = 2
_ATTEMPTS = 20  # the reference code tries 100 times; 3 in 4 attempts fit at 256 x 128, so 20 all fail 1 time in 10^12


@dataclass(frozen=True)
class AugmentSettings:
    """How much of what.

    Attributes:
      flip: probability of a mirror image, in [0, 1].
      pad: pixels added on each side before the crop back to size, at least 0.
      erase: probability of an erased box, in [0, 1].
      erase_area: least and greatest share of the image's area, in (0, 1].
      erase_ratio: least and greatest height over width of the box, above 0.
    """

    flip: float
    pad: int
    erase: float
    erase_area: tuple[float, float]
    erase_ratio: tuple[float, float]

    def __post_init__(self) -> None:
        if not (0 <= self.flip <= 1 and 0 <= self.erase <= 1):
            raise ValueError(f"flip and erase must be probabilities, got {self.flip} and {self.erase}; give 0 to 1.")
        if self.pad < 0:
            raise ValueError(f"pad must be at least 0 pixels, got {self.pad}; give 0 to leave padding out.")
        if not 0 < self.erase_area[0] <= self.erase_area[1] <= 1:
            raise ValueError(f"erase_area must be two rising shares in (0, 1], got {self.erase_area}; e.g. 0.02, 0.4.")
        if not 0 < self.erase_ratio[0] <= self.erase_ratio[1]:
            raise ValueError(f"erase_ratio must be two rising numbers above 0, got {self.erase_ratio}; e.g. 0.3, 3.33.")


@dataclass(frozen=True, eq=False)
class Augmentation:
    """What happens to each image.

    Attributes:
      flips_B: bool.
      dy_B: int64 in [0, 2 pad], first row of the crop in the padded image; pad means unmoved.
      dx_B: int64 in [0, 2 pad], its first column.
      boxes_B4: int64, erased rows y0 <= y < y1 and columns x0 <= x < x1 of the final image; all 0 for no box.
    """

    flips_B: NDArray[np.bool_]
    dy_B: Ints
    dx_B: Ints
    boxes_B4: Ints

    def rows(self, which: slice | NDArray[np.integer]) -> Augmentation:
        """The same draws for some slots of the batch, given as a slice or as indices."""
        return Augmentation(self.flips_B[which], self.dy_B[which], self.dx_B[which], self.boxes_B4[which])


def draw(
    settings: AugmentSettings, *, seed: int, epoch: int, step: int, batch_size: int, height: int, width: int
) -> Augmentation:
    """Draws the augmentation of a global batch.

    The box is that of Random Erasing (Zhong et al., AAAI 2020, Algorithm 1): an area and a ratio drawn uniformly until
    the box is smaller than the image in both directions. A slot's draws do not change with batch_size, nor one kind of
    draw with the settings of another.

    Args:
      settings: see AugmentSettings.
      seed, epoch, step: the key of the draws, none negative.
      batch_size: B, slots of the global batch.
      height, width: of the final images, in pixels.

    Returns:
      One row per slot.
    """
    key = np.random.SeedSequence([_STREAM, seed, epoch, step])
    uniform = np.random.Generator(np.random.Philox(key)).random((batch_size, 6 + 2 * _ATTEMPTS))
    flip_B, dy_B, dx_B, erase_B, top_B, left_B = uniform[:, :6].T
    boxes_B4 = _boxes(settings, uniform[:, 6:], top_B, left_B, height=height, width=width)
    boxes_B4[erase_B >= settings.erase] = 0
    places = 2 * settings.pad + 1
    return Augmentation(
        flips_B=flip_B < settings.flip,
        dy_B=(dy_B * places).astype(np.int64),
        dx_B=(dx_B * places).astype(np.int64),
        boxes_B4=boxes_B4,
    )


def _boxes(
    settings: AugmentSettings,
    uniform: Doubles,
    top_B: Doubles,
    left_B: Doubles,
    *,
    height: int,
    width: int,
) -> Ints:
    (low_area, high_area), (low_ratio, high_ratio) = settings.erase_area, settings.erase_ratio
    areas_BT = (low_area + uniform[:, 0::2] * (high_area - low_area)) * height * width
    ratios_BT = low_ratio + uniform[:, 1::2] * (high_ratio - low_ratio)
    heights_BT = np.maximum(np.rint(np.sqrt(areas_BT * ratios_BT)), 1).astype(np.int64)
    widths_BT = np.maximum(np.rint(np.sqrt(areas_BT / ratios_BT)), 1).astype(np.int64)
    fits_BT = (heights_BT < height) & (widths_BT < width)
    slots, attempt_B = np.arange(len(uniform)), fits_BT.argmax(axis=1)
    fits_B = fits_BT[slots, attempt_B]
    height_B, width_B = heights_BT[slots, attempt_B] * fits_B, widths_BT[slots, attempt_B] * fits_B
    y0_B = (top_B * (height - height_B + 1)).astype(np.int64) * fits_B
    x0_B = (left_B * (width - width_B + 1)).astype(np.int64) * fits_B
    return np.stack([y0_B, x0_B, y0_B + height_B, x0_B + width_B], axis=1)


def apply(images_BHW3: Bytes, augmentation: Augmentation, *, pad: int, fill: Bytes) -> Bytes:
    """Pads with the fill colour, crops back to size, mirrors, and paints the erased box with the fill colour.

    Args:
      images_BHW3: uint8; not changed.
      augmentation: B rows, drawn for images of this size and with this padding.
      pad: pixels, the settings' value.
      fill: uint8 [3], usually the mean colour.

    Returns:
      uint8 [B, H, W, 3].

    Raises:
      ValueError: the number of rows or the padding does not fit.
    """
    batch_size, height, width, _ = images_BHW3.shape
    offsets = np.concatenate([augmentation.dy_B, augmentation.dx_B])
    if len(augmentation.flips_B) != batch_size:
        raise ValueError(
            f"expected one row of augmentation per image, got {len(augmentation.flips_B)} rows for {batch_size} "
            f"images; take a worker's rows with Augmentation.rows."
        )
    if batch_size == 0:
        return images_BHW3.copy()
    if offsets.min() < 0 or offsets.max() > 2 * pad:
        raise ValueError(
            f"expected crop offsets in 0 to {2 * pad} for padding {pad}, got up to {offsets.max()}; pass the padding "
            f"that the augmentation was drawn with."
        )
    # A pixel is one item of three bytes: NumPy then copies, mirrors and paints pixels, several times faster than bytes.
    colour = np.array(fill, dtype=np.uint8).view(_PIXEL)
    padded = np.empty((batch_size, height + 2 * pad, width + 2 * pad), dtype=_PIXEL)
    padded[:] = colour
    padded[:, pad : pad + height, pad : pad + width] = np.ascontiguousarray(images_BHW3).view(_PIXEL)[..., 0]
    crops = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    out_BHW = crops[np.arange(batch_size), augmentation.dy_B, augmentation.dx_B]
    out_BHW[augmentation.flips_B] = out_BHW[augmentation.flips_B, :, ::-1]
    y0_B1, x0_B1, y1_B1, x1_B1 = augmentation.boxes_B4.T[:, :, None]
    rows_BH = (np.arange(height) >= y0_B1) & (np.arange(height) < y1_B1)
    columns_BW = (np.arange(width) >= x0_B1) & (np.arange(width) < x1_B1)
    out_BHW[rows_BH[:, :, None] & columns_BW[:, None, :]] = colour
    return out_BHW[..., None].view(np.uint8)
