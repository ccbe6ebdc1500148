"""Non-local blocks: every cell of a map looks at all others (Wang et al., 2018, arXiv:1711.07971; IHC eq. 7 to 9)."""

# B = batch, D = channels, H, W = rows and columns, P = H W cells

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class NonLocalBlock(nn.Module):
    """z_i = W_z y_i + x_i with y_i = (1 / P) sum_j (theta(x_i) . phi(x_j)) g(x_j).

    What a new block adds is 0, so that it changes nothing. y_i is of the third degree in x: without a batch norm behind
    W_z a small step of W_z can change the map by more than the map itself.

    Args:
      width: D; theta, phi and g have half of it.
      generator: draws theta, phi and g.
      norm: a batch norm behind W_z, whose scale begins at 0, as in Wang et al., "Non-local Neural Networks" (CVPR
        2018), section 4; False: W_z itself begins at 0.
    """

    def __init__(self, width: int, generator: torch.Generator, *, norm: bool) -> None:
        super().__init__()
        inner = max(width // 2, 1)
        with torch.random.fork_rng(devices=[]):  # the layers' own start values are drawn, then replaced
            self.theta, self.phi, self.g = (nn.Conv2d(width, inner, 1) for _ in range(3))
            self.output = nn.Conv2d(inner, width, 1)
        self.norm: nn.Module = nn.BatchNorm2d(width) if norm else nn.Identity()
        drawn = (self.theta, self.phi, self.g, self.output) if norm else (self.theta, self.phi, self.g)
        for layer in drawn:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        zero = [self.theta.bias, self.phi.bias, self.g.bias, self.output.bias]
        for parameter in [*zero, self.norm.weight if norm else self.output.weight]:
            nn.init.zeros_(cast(Tensor, parameter))

    def forward(self, map_BDHW: Tensor) -> Tensor:
        theta_BDP, phi_BDP, g_BDP = (layer(map_BDHW).flatten(2) for layer in (self.theta, self.phi, self.g))
        # (theta phi^T) g = theta (phi^T g): no P x P array
        relations_BDD = phi_BDP @ g_BDP.transpose(1, 2) / phi_BDP.shape[2]
        seen_BDP = relations_BDD.transpose(1, 2) @ theta_BDP
        return map_BDHW + self.norm(self.output(seen_BDP.view(*seen_BDP.shape[:2], *map_BDHW.shape[2:])))
