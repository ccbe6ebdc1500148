"""Non-local blocks: every cell of a map looks at all others (Wang et al., 2018, arXiv:1711.07971; IHC eq. 7 to 9)."""

# B = batch, D = channels, H, W = rows and columns, P = H W cells

from __future__ import annotations

import torch
from torch import Tensor, nn


class NonLocalBlock(nn.Module):
    """z_i = W_z y_i + x_i with y_i = (1 / P) sum_j (theta(x_i) . phi(x_j)) g(x_j).

    W_z begins at 0, so that a new block changes nothing.

    Args:
      width: D; theta, phi and g have half of it.
      generator: draws theta, phi and g.
    """

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        inner = max(width // 2, 1)
        with torch.random.fork_rng(devices=[]):  # the layers' own start values are drawn, then replaced
            self.theta, self.phi, self.g = (nn.Conv2d(width, inner, 1) for _ in range(3))
            self.output = nn.Conv2d(inner, width, 1)
        for layer in (self.theta, self.phi, self.g):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        for parameter in (self.theta.bias, self.phi.bias, self.g.bias, *self.output.parameters()):
            if parameter is not None:
                nn.init.zeros_(parameter)

    def forward(self, map_BDHW: Tensor) -> Tensor:
        theta_BDP, phi_BDP, g_BDP = (layer(map_BDHW).flatten(2) for layer in (self.theta, self.phi, self.g))
        # (theta phi^T) g = theta (phi^T g): no P x P array
        relations_BDD = phi_BDP @ g_BDP.transpose(1, 2) / phi_BDP.shape[2]
        seen_BDP = relations_BDD.transpose(1, 2) @ theta_BDP
        return map_BDHW + self.output(seen_BDP.view(*seen_BDP.shape[:2], *map_BDHW.shape[2:]))
