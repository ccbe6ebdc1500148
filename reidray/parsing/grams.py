"""All that part clustering needs of a feature map."""

import torch
from torch import Tensor

# B = images, D = feature width, H, W = cells of the map, P = H W


def gram_matrices(map_BDHW: Tensor) -> Tensor:
    """Inner products of the cells of each map: far smaller than the map, and all that `parse_grams` takes.

    Returns: float32 [B, P, P], cells in row-major order.
    """
    cells_BDP = map_BDHW.float().flatten(2)
    return torch.bmm(cells_BDP.transpose(1, 2), cells_BDP)
