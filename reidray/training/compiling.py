"""The trunk of the network through torch.compile, where train.compile asks for it."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from reidray.features import Network


def compile_trunk(network: Network, device: torch.device) -> None:
    """From now on the trunk runs as compiled code, forward and backward, in training and in extraction.

    Its first pass in either compiles, for a minute or so. Names of tensors, checkpoints and copies stay as they are; a
    copy (`train.ema`) runs uncompiled.

    Args:
      network: changed in place.
      device: where it lies.

    Raises:
      ValueError: PyTorch cannot compile on this machine, or the network has no trunk of that name.
    """
    trunk = getattr(network, "backbone", None)
    if not isinstance(trunk, nn.Module):
        raise ValueError(
            f"train.compile=true compiles the trunk of a network, its attribute backbone, and {type(network).__name__} "
            "has none: set train.compile=false"
        )
    try:
        cast(Any, torch.compile(_plus_one))(torch.zeros(8, device=device))
    except Exception as error:  # whatever compilers raise: it has the cause, and the setting is the cure
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(
            f"train.compile=true, but PyTorch cannot compile on this machine ({said.strip()}): install a C++ compiler "
            "(g++) and Python's headers (python3-dev), or set train.compile=false"
        ) from error
    trunk.compile()


def _plus_one(rows: torch.Tensor) -> torch.Tensor:
    return rows + 1
