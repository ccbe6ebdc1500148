"""What training changes: the network, the layers beside it, their optimisers, and the history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from reidray.arrays import Array, Ints
from reidray.features import Network, convert
from reidray.methods.method import Method
from reidray.methods.step import Beginning, Moments, WholeMemory
from reidray.storage.checkpoints import optimiser_tensors, restore_optimiser
from reidray.training.history import History
from reidray.training.mean_weights import MeanWeights

_HEADS_STREAM = 6  # keeps these random numbers apart from those of other rooms with the same seed and epoch


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

    model: the network that is trained. mean: follows it, where train.ema wants that and training has begun. modules:
    layers beside it that see the whole batch, if the method has any. heads: of the labels in use. selected: tensors of
    the network that is reported, where the method chooses one. kept_heads: what the checkpoint that the run goes on
    from says of heads, until there are any.
    """

    method: Method
    model: Network
    modules: nn.Module | None
    history: History
    optimiser: torch.optim.Optimizer = field(init=False)
    heads: Heads | None = None
    mean: MeanWeights | None = None
    selected: dict[str, Tensor] = field(default_factory=dict)
    kept_heads: tuple[dict[str, Tensor], Moments] = field(default_factory=lambda: ({}, {}))
    _rate: float = 1.0

    def __post_init__(self) -> None:
        self.new_optimiser()

    @property
    def network(self) -> Network:
        """The network that extracts, labels and is evaluated."""
        return self.model if self.mean is None else self.mean.network

    def begin_mean(self) -> None:
        """From now on the mean follows the network, where train.ema wants that; it goes on where it did already."""
        decay = self.method.settings.train.ema
        if decay and self.mean is None:
            self.mean = MeanWeights(self.model, decay=decay)

    def new_optimiser(self) -> None:
        """A fresh optimiser, as the method wants it."""
        self.optimiser = _started(self.method.optimiser(list(self._trained())))

    def set_rate(self, factor: float) -> None:
        """Learning rates of an epoch, of heads too: those that the optimisers began with, times a factor."""
        self._rate = factor
        for optimiser in (self.optimiser, None if self.heads is None else self.heads.optimiser):
            for group in () if optimiser is None else optimiser.param_groups:
                group["lr"] = group["start_lr"] * factor

    def new_heads(
        self, memories: Mapping[str, WholeMemory], labels_N: Ints, cameras_N: Array, *, goes_on: bool
    ) -> None:
        """Heads for the labels in use, at the learning rate of the epoch.

        Args:
          memories, labels_N, cameras_N: see `Beginning`.
          goes_on: they are those of the checkpoint, not new ones.
        """
        layers_before, moments_before = self.saved_heads()
        carried = moments_before if self.method.keeps_moments else {}
        with drawn_from(_HEADS_STREAM, self.method.settings.train.seed, self.history.labelled):
            layers = self.method.heads(Beginning(memories, labels_N, cameras_N, carried))
        self.heads, self.kept_heads = None, ({}, {})
        if layers is None:
            return
        layers = layers.to(next(self.model.parameters()).device)
        trained = [(name, parameter) for name, parameter in layers.named_parameters() if parameter.requires_grad]
        self.heads = Heads(layers, _started(self.method.heads_optimiser(trained)) if trained else None)
        if goes_on and layers_before:
            self.heads.load(layers_before, moments_before)
        elif carried and self.heads.optimiser is not None:
            restore_optimiser(self.heads.optimiser, self.method.carried_moments(layers, carried))
        self.set_rate(self._rate)

    def select(self, epoch: int, judged: float | None) -> bool:
        """The network as it is after an epoch is the one to report, and this is True, unless one before was better."""
        if judged is None or (self.history.selected is not None and judged < self.history.selected[1]):
            return False
        self.history.selected = epoch, judged
        self.selected = {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}
        return True

    def saved_heads(self) -> tuple[dict[str, Tensor], Moments]:
        """Layers and moments of the heads, for a checkpoint: those of the one before where there are none yet."""
        return self.kept_heads if self.heads is None else self.heads.state()

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        for prefix, module in (("network.", self.model), ("modules.", self.modules)):
            for name, parameter in module.named_parameters() if module is not None else ():
                if parameter.requires_grad:
                    yield prefix + name, parameter


def new_modules(method: Method) -> nn.Module | None:
    """The method's modules beside the network, drawn from train.seed, their batch norms ready for the engine."""
    with drawn_from(method.settings.train.seed):
        modules = method.modules()
    return None if modules is None else convert(modules)


@contextmanager
def drawn_from(*key: int) -> Iterator[None]:
    """PyTorch's generator begins from a key, and goes on afterwards as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        yield


def _started(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """With the learning rates noted that it begins with."""
    for group in optimiser.param_groups:
        group["start_lr"] = group["lr"]
    return optimiser
