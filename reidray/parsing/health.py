"""Whether the space constraint of the part clustering fits the maps.

B = images, H, W = cells.
"""

from __future__ import annotations

import numpy as np

from reidray.arrays import Array, Doubles


def far_pair_share(parts_BHW: Array, *, num_parts: int, max_distance: float) -> Doubles:
    """Share of the pairs of cells within a part that eq. 2 of SCWM forbids: more than 5 % means eta is too small.

    Args:
      parts_BHW: part of each cell in [0, num_parts); num_parts - 1 is the background and does not count.
      num_parts: parts, the background counted.
      max_distance: eta in cells; pairs this far apart or further are forbidden.

    Returns: float64 [B], in [0, 1]; 0 where no part has two cells.
    """
    batch, height, width = parts_BHW.shape
    pairs_B, far_B = np.zeros(batch), np.zeros(batch)
    for down in range(height):
        for right in range(-(width - 1) if down else 1, width):
            upper = parts_BHW[:, : height - down, max(0, -right) : width - max(0, right)]
            lower = parts_BHW[:, down:, max(0, right) : width - max(0, -right)]
            same_B = ((upper == lower) & (upper != num_parts - 1)).sum((1, 2))
            pairs_B += same_B
            if down**2 + right**2 >= max_distance**2:
                far_B += same_B
    return np.divide(far_B, pairs_B, out=np.zeros(batch), where=pairs_B > 0)
