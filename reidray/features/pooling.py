"""Global poolings: a feature map becomes one vector.

They are chosen by name from POOLINGS. All of them weigh every cell alike, so they do not depend on the grid's centres.
"""

# B = batch, D = feature width, H, W = cells of the map

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class AveragePooling(nn.Module):
    """Mean over the cells; the global feature f^g of SCWM (GAP of F)."""

    def forward(self, map_BDHW: Tensor) -> Tensor:
        return map_BDHW.mean(dim=(2, 3))


class MaximumPooling(nn.Module):
    """Largest value over the cells."""

    def forward(self, map_BDHW: Tensor) -> Tensor:
        return map_BDHW.amax(dim=(2, 3))


class GeneralizedMeanPooling(nn.Module):
    """GeM: (mean over cells of max(x, eps)^p)^(1/p). Radenovic et al., 2018, arXiv:1711.02512, eq. 3.

    p = 1 is the mean of positive maps; large p approaches the maximum.

    Args:
      power: start value of p, > 0; the re-ID papers take 3.
      learnable: True makes p a parameter, as in Cluster Contrast's code; False a constant of the state dict.
      eps: lower bound of the cells, which keeps the gradient of the root finite.
    """

    p: Tensor

    def __init__(self, *, power: float = 3.0, learnable: bool = True, eps: float = 1e-6) -> None:
        super().__init__()
        if power <= 0:
            raise ValueError(f"the power of generalized-mean pooling must be > 0; got {power}; 3 is usual")
        p = torch.full((1,), float(power))
        if learnable:
            self.p = nn.Parameter(p)
        else:
            self.register_buffer("p", p)
        self.eps = eps

    def forward(self, map_BDHW: Tensor) -> Tensor:
        return map_BDHW.clamp(min=self.eps).pow(self.p).mean(dim=(2, 3)).pow(1.0 / self.p)


class AverageAndMaximumPooling(nn.Module):
    """Mean plus maximum over the cells."""

    def forward(self, map_BDHW: Tensor) -> Tensor:
        return map_BDHW.mean(dim=(2, 3)) + map_BDHW.amax(dim=(2, 3))


POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "avg": AveragePooling,
    "max": MaximumPooling,
    "gem": GeneralizedMeanPooling,
    "avg+max": AverageAndMaximumPooling,
}


def build_pooling(name: str) -> nn.Module:
    """The pooling of that name, map_BDHW -> pooled_BD.

    Args:
      name: a key of POOLINGS.

    Raises:
      ValueError: unknown name.
    """
    if name not in POOLINGS:
        raise ValueError(f"model.pooling must be one of {', '.join(POOLINGS)}; got {name!r}")
    return POOLINGS[name]()
