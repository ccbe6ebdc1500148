"""A second network whose weights are a running mean of the trained one's.

One update moves the trained network in the direction of one batch, and where an epoch ends is luck. The mean over many
updates has less of it. It extracts, labels and is reported; training itself goes on with the network that it follows.
A. Tarvainen, H. Valpola, "Mean teachers are better role models", 2017 (arXiv:1703.01780), eq. 1; for re-identification
without labels Y. Ge et al., "Mutual Mean-Teaching", 2020 (arXiv:2001.01526).
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from reidray.features import Network


class MeanWeights:
    """mean <- d * mean + (1 - d) * trained, after every update, with d = min(decay, 1 - 1 / (updates + 1)).

    While there are few updates it is therefore the plain mean of all of them and of the start. Running statistics of
    batch norms are averaged like weights; whole numbers are copied.

    Args:
      model: the trained network as it is in the beginning; copied.
      decay: in (0, 1).
    """

    def __init__(self, model: Network, *, decay: float) -> None:
        assert 0 < decay < 1, decay
        self._decay = decay
        self.network: Network = deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def follow(self, model: Network, updates: int) -> None:
        """One update further.

        Args:
          model: the trained network after the update.
          updates: that the run has done, this one counted.
        """
        share = max(1.0 - self._decay, 1.0 / (updates + 1))
        own, trained = self.network.state_dict(), model.state_dict()
        floats = [name for name, tensor in own.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([own[name] for name in floats], [trained[name] for name in floats], share)
        for name in own.keys() - set(floats):
            own[name].copy_(trained[name])

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return self.network.state_dict()
