"""Moving averages over epochs of tables of class numbers.

B = images, L = classes, H, W = cells.
"""

from __future__ import annotations

import numpy as np

from reidray.arrays import Array


def smoothed_masks(previous_BLHW: Array | None, parts_BHW: Array, *, num_classes: int, momentum: float) -> Array:
    """gamma M~ + (1 - gamma) M, of soft masks M~ and hard ones M.

    Args:
      previous_BLHW: soft masks of the epoch before; None in the first epoch, which takes M.
      parts_BHW: class of each cell, in [0, num_classes).
      momentum: gamma, in [0, 1].

    Returns: float16 [B, L, H, W]; sums to 1 over the classes (to float16's rounding).
    """
    masks_BLHW = (parts_BHW[:, None] == np.arange(num_classes)[None, :, None, None]).astype(np.float32)
    if previous_BLHW is not None and momentum > 0:
        masks_BLHW = momentum * previous_BLHW.astype(np.float32) + (1 - momentum) * masks_BLHW
    return masks_BLHW.astype(np.float16)
