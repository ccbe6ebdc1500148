"""Losses of the predicted part masks.

B = images, L = parts (the background last), H, W = cells of the map. One loss an image.
"""

from __future__ import annotations

import torch
from torch import Tensor


def parsing_loss(logits_BLHW: Tensor, targets_BLHW: Tensor, visible_BHW: Tensor) -> Tensor:
    """-sum_l M_l log P_l, mean over the visible cells: SCWM eq. 4.

    Args:
      logits_BLHW: the part classifier's output before the softmax.
      targets_BLHW: soft pseudo masks, moved as the image was; they sum to 1 over the parts.
      visible_BHW: 1 where the cell was not erased; an image without a visible cell has loss 0.

    Returns: [B].
    """
    losses_BHW = -(targets_BLHW * logits_BLHW.log_softmax(1)).sum(1)
    return (losses_BHW * visible_BHW).sum((1, 2)) / visible_BHW.sum((1, 2)).clamp_min(1.0)


def diversity_loss(masks_BLHW: Tensor, *, cells: str) -> Tensor:
    """2 / (l (l - 1)) sum_{i<j} sum over cells of P_i P_j: SCWM eq. 5.

    Since the masks of a cell sum to 1, sum_{i<j} P_i P_j = (1 - sum_i P_i^2) / 2.

    Args:
      cells: "sum", as printed; "mean": 1 / (H W) of that, the same at any resolution.

    Returns: [B], in [0, 1 / l^2] for each cell.
    """
    num_parts = masks_BLHW.shape[1]
    overlap_BHW = (1 - masks_BLHW.square().sum(1)) / 2
    over_cells = torch.sum if cells == "sum" else torch.mean
    return 2 / (num_parts * (num_parts - 1)) * over_cells(overlap_BHW, dim=(1, 2))
