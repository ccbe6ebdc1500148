"""Flip, pad and crop, random erasing: one table of draws for the whole global batch, applied to any rows of it.

The table depends on (seed, epoch, step) and the slot in the batch alone, so the workers that share a batch, however
many they are, each take their rows of the same table.
"""

# B = batch, H, W = height and width in pixels, T = attempts at an erased box

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reidray.arrays import Bytes, Doubles, Ints
from reidray.data.resize import cut

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


def augmented(
    images: Sequence[Bytes], augmentation: Augmentation, *, height: int, width: int, pad: int, fill: Bytes
) -> Bytes:
    """Resizes images, pads with the fill colour, crops back to size, mirrors, and paints the erased box in that colour.

    Only what the crops show of the resized and padded images is ever made (`reidray.data.resize.cut`).

    Args:
      images: B times uint8, any sizes; not changed.
      augmentation: B rows, drawn for this height and width and with this padding.
      height: H of the result, at least 1.
      width: W of the result, at least 1.
      pad: pixels, the settings' value.
      fill: uint8 [3], usually the mean colour.

    Returns:
      uint8 [B, H, W, 3].

    Raises:
      ValueError: the number of rows, the padding or the size does not fit.
    """
    flips, dys, dxs = augmentation.flips_B.tolist(), augmentation.dy_B.tolist(), augmentation.dx_B.tolist()
    if len(flips) != len(images):
        raise ValueError(
            f"expected one row of augmentation per image, got {len(flips)} rows for {len(images)} images; take a "
            f"worker's rows with Augmentation.rows."
        )
    if any(not 0 <= offset <= 2 * pad for offset in [*dys, *dxs]):
        raise ValueError(
            f"expected crop offsets in 0 to {2 * pad} for padding {pad}, got {min(dys + dxs)} to {max(dys + dxs)}; "
            f"pass the padding that the augmentation was drawn with."
        )
    boxes_B4 = np.ascontiguousarray(augmentation.boxes_B4)
    if (boxes_B4 < 0).any() or (boxes_B4 > [height, width, height, width]).any():
        raise ValueError(
            f"expected erased boxes inside of {height} x {width} pixels, got one outside; pass the size that the "
            f"augmentation was drawn for."
        )
    out_BHW3 = np.empty((len(images), height, width, 3), np.uint8)
    for image, out, flip, dy, dx, box in zip(images, out_BHW3, flips, dys, dxs, boxes_B4, strict=True):
        cut(image, out, flip=flip, top=dy - pad, left=dx - pad, box_4=box, fill_3=fill)
    return out_BHW3
