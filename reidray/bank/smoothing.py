"""The momentum of pseudo masks from one epoch to the next.

B = images, L = parts, H, W = cells.
"""

from __future__ import annotations

import numpy as np

from reidray.arrays import Array


def smoothed_masks(previous_BLHW: Array | None, parts_BHW: Array, *, num_parts: int, momentum: float) -> Array:
    """gamma M~ + (1 - gamma) M: SCWM eq. 3.

    Args:
      previous_BLHW: soft masks of the epoch before; None in the first epoch, which takes M.
      parts_BHW: part of each cell, in [0, num_parts).
      momentum: gamma, in [0, 1].

    Returns: float16 [B, L, H, W]; sums to 1 over the parts (to float16's rounding).
    """
    masks_BLHW = (parts_BHW[:, None] == np.arange(num_parts)[None, :, None, None]).astype(np.float32)
    if previous_BLHW is not None and momentum > 0:
        masks_BLHW = momentum * previous_BLHW.astype(np.float32) + (1 - momentum) * masks_BLHW
    return masks_BLHW.astype(np.float16)


def mask_momentum(epoch: int, *, first: float, epochs: int) -> float:
    """gamma of an epoch: from `first` linearly to 0 at epoch `epochs` (Sec. 4.2)."""
    return first * max(0.0, 1 - epoch / epochs)
