"""What training changes: the network, the layers beside it, their optimisers, and the history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from reidray.arrays import Array, Ints
from reidray.config import Settings
from reidray.features import Network, convert
from reidray.methods.method import Beginning, Method, Moments, WholeMemory
from reidray.storage.checkpoints import optimiser_tensors, restore_optimiser
from reidray.training.history import History


@dataclass
class Heads:
    """Layers that begin with the labels, and their optimiser."""

    layers: nn.Module
    optimiser: torch.optim.Optimizer | None  # None where nothing in the layers is trained

    def state(self) -> tuple[dict[str, Tensor], Moments]:
        """Layers and moments, for a checkpoint."""
        return self.layers.state_dict(), self.moments()

    def moments(self) -> Moments:
        """Of the optimiser."""
        return {} if self.optimiser is None else optimiser_tensors(self.optimiser)

    def load(self, layers: dict[str, Tensor], moments: Moments) -> None:
        """Put back what `state` gave."""
        self.layers.load_state_dict(layers)
        if self.optimiser is not None:
            restore_optimiser(self.optimiser, moments)


@dataclass
class RunState:
    """Of one worker; equal on all of them.

    model: the network. modules: layers beside it that see the whole batch, if the method has any. heads: of the labels
    in use. head_moments: of the heads before, where the method keeps them.
    """

    method: Method
    model: Network
    modules: nn.Module | None
    history: History
    optimiser: torch.optim.Optimizer = field(init=False)
    heads: Heads | None = None
    head_moments: Moments = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.new_optimiser()

    def new_optimiser(self) -> None:
        """A fresh optimiser, as the method wants it."""
        self.optimiser = self.method.optimiser(list(self._trained()))
        for group in self.optimiser.param_groups:
            group["start_lr"] = group["lr"]

    def set_rate(self, factor: float) -> None:
        """Learning rates of an epoch: those that the optimiser began with, times a factor; heads that go on follow."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["start_lr"] * factor
        if self.heads is not None and self.heads.optimiser is not None:
            for group in self.heads.optimiser.param_groups:
                group["lr"] = self._heads_rate

    def new_heads(
        self, memories: Mapping[str, WholeMemory], labels_N: Ints, cameras_N: Array, settings: Settings
    ) -> None:
        """Heads for new labels, at the learning rate of the epoch."""
        if self.heads is not None and self.method.keeps_moments:
            self.head_moments = self.heads.moments()
        layers = self.method.heads(Beginning(memories, labels_N, cameras_N, self.head_moments))
        self.heads = None
        if layers is None:
            return
        layers = layers.to(next(self.model.parameters()).device)
        self.heads = Heads(layers, None)
        trained = [parameter for parameter in layers.parameters() if parameter.requires_grad]
        if trained:
            decay = settings.train.weight_decay
            self.heads.optimiser = torch.optim.Adam(trained, lr=self._heads_rate, weight_decay=decay)
        if self.head_moments and self.heads.optimiser is not None:
            restore_optimiser(self.heads.optimiser, self.method.carried_moments(layers, self.head_moments))

    @property
    def _heads_rate(self) -> float:
        rate: float = self.optimiser.param_groups[0]["lr"]
        return rate

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        for prefix, module in (("network.", self.model), ("modules.", self.modules)):
            for name, parameter in module.named_parameters() if module is not None else ():
                if parameter.requires_grad:
                    yield prefix + name, parameter


def new_modules(method: Method) -> nn.Module | None:
    """The method's modules beside the network, their batch norms ready for the engine."""
    modules = method.modules()
    return None if modules is None else convert(modules)
