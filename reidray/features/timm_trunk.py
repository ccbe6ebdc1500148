"""Any model of the package timm that makes a feature map, as a trunk; `pip install 'reidray[timm]'`.

timm's models differ in what their images look like, in the order of their map's axes and in where its cells lie. The
first is read in the model's own settings; the others are measured on the model. Names in the state dict are timm's
behind "model.", so that its checkpoints fit. Nothing is downloaded here.
"""

# B = batch, D = channels, H, W = rows and columns

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from reidray.features.grid import CellGrid
from reidray.features.group_norm import GroupBatchNorm2d
from reidray.features.measured_grid import measured_grid
from reidray.features.normalisation import MEAN, STD, Renormalised

PREFIX = "timm:"
_GRIDS: dict[str, CellGrid] = {}
_PROBE = (256, 192)  # an image whose height and width cannot be mixed up


class _NormThenActivation(GroupBatchNorm2d):
    """timm's batch norm with an activation inside, over BN groups."""

    drop: nn.Module
    act: nn.Module

    @classmethod
    def taking_over(cls, layer: nn.BatchNorm2d) -> Self:
        """The layer that takes the place of timm's, with its very tensors."""
        norm = cls(layer.num_features, layer.eps, layer.momentum, layer.affine, True)
        norm._parameters.update(layer._parameters)
        norm._buffers.update(layer._buffers)
        norm.drop, norm.act = layer.get_submodule("drop"), layer.get_submodule("act")
        return norm

    def forward(self, input: Tensor) -> Tensor:
        activated: Tensor = self.act(self.drop(super().forward(input)))
        return activated


class TimmTrunk(nn.Module):
    """images_B3HW, normalised as ImageNet's, -> map_BDHW.

    Args:
      name: "timm:" and a name that timm knows.
      seed: of the start weights, timm's own; PyTorch's generator is as before.

    Attributes:
      width: D, measured.
      stage_widths: empty; there is nothing to stand behind a stage.
      grid: where the cells lie in the image, measured.

    Raises:
      ValueError: timm is not installed or does not know the name, or the model makes no map of an image of any size.
    """

    stage_widths: tuple[int, ...] = ()

    def __init__(self, name: str, *, seed: int) -> None:
        super().__init__()
        self.name = name
        self.model = _created(name, seed)
        for path, layer in list(self.model.named_modules()):
            if isinstance(layer, nn.BatchNorm2d) and hasattr(layer, "act") and hasattr(layer, "drop"):
                self.model.set_submodule(path, _NormThenActivation.taking_over(layer))
        settings: Mapping[str, Any] = getattr(self.model, "pretrained_cfg", None) or {}
        self.normalised = Renormalised(settings.get("mean") or MEAN, settings.get("std") or STD)
        self.channels_last = False
        self.width = self._measured_width()
        self.grid = _grid_of(self)

    def forward(self, images_B3HW: Tensor, after: Mapping[int, nn.Module] | None = None) -> Tensor:
        """after: must be empty."""
        assert not after, "timm's models have no stages that layers could be put behind"
        map_BDHW: Tensor = cast(Any, self.model).forward_features(self.normalised(images_B3HW))
        return map_BDHW.permute(0, 3, 1, 2) if self.channels_last else map_BDHW

    def _measured_width(self) -> int:
        """D; notes the order of the axes and removes the layers that the map does not pass."""
        self.eval()
        try:
            found = self(torch.zeros(1, 3, *_PROBE))
        except (AssertionError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"model.backbone={self.name} does not take images of {_PROBE[0]}x{_PROBE[1]} pixels "
                f"({str(error).splitlines()[0] if str(error) else type(error).__name__}): take a convolutional network"
            ) from error
        shape = tuple(found.shape) if isinstance(found, Tensor) else ()
        if len(shape) == 4 and shape[2] * _PROBE[1] == shape[3] * _PROBE[0]:
            width = shape[1]
        elif len(shape) == 4 and shape[1] * _PROBE[1] == shape[2] * _PROBE[0]:
            self.channels_last, width = True, shape[3]
        else:
            raise ValueError(
                f"model.backbone={self.name} makes {shape} of an image of {_PROBE[0]}x{_PROBE[1]} pixels, which is no "
                f"feature map: take a convolutional network"
            )
        found.sum().backward()
        unused = [path for path, layer in self.model.named_modules() if path and _never_reached(layer)]
        for path in unused:
            if not any(path.startswith(f"{other}.") for other in unused):
                self.model.set_submodule(path, nn.Identity())
        self.zero_grad(set_to_none=True)
        self.train()
        return width


def _grid_of(trunk: TimmTrunk) -> CellGrid:
    """Measured once for each name: a run builds its network more than once."""
    if trunk.name not in _GRIDS:
        try:
            _GRIDS[trunk.name] = measured_grid(trunk)
        except ValueError as error:
            raise ValueError(f"the cells of model.backbone={trunk.name} could not be measured: {error}") from error
    return _GRIDS[trunk.name]


def _never_reached(layer: nn.Module) -> bool:
    parameters = list(layer.parameters())
    return bool(parameters) and all(parameter.grad is None for parameter in parameters)


def _created(name: str, seed: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"model.backbone={name} needs the package timm: pip install 'reidray[timm]'") from error
    known = name.removeprefix(PREFIX)
    if not timm.is_model(known):
        near = difflib.get_close_matches(known, timm.list_models(), 3)
        raise ValueError(f"timm has no model {known}" + (f": did you mean {' or '.join(near)}?" if near else ""))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: nn.Module = timm.create_model(known, pretrained=False, num_classes=0, global_pool="")
    if not hasattr(model, "forward_features"):
        raise ValueError(f"model.backbone={name} makes no feature map by itself: take another model of timm")
    return model
