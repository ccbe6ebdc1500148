"""The difficulty score of SCWM on a GPU: `reidray.memory.difficulty` for lists of neighbours that live there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from reidray.cuda.device import Device

# N = images, L = parts, K = columns of a neighbour list (the lists may differ in length)

_THREADS = 128


def difficulty(global_NK: torch.Tensor, part_neighbours_LNK: Iterable[torch.Tensor], *, device: Device) -> torch.Tensor:
    """Share of common neighbours in the global space and in each part's space: |R_g ∩ R_p| / |R_g ∪ R_p|.

    Eq. 7 of SCWM, with the definitions of `reidray.memory.difficulty`. One thread an image compares its lists entry by
    entry, K^2 comparisons, which is right for lists of tens.

    Args:
      global_NK: indices in [0, N) of the neighbours, -1 where a list is shorter; on the device.
      part_neighbours_LNK: the same for each part: one tensor, a sequence of matrices, or an iterator that searches part
        after part; only one part's lists are held at a time.
      device: runs the kernel.

    Errors:
      ValueError for lists of different images, no integers, or indices outside [-1, N).

    Returns:
      alpha_NL float32 in [0, 1] on the device; 0 where both lists are empty.
    """
    global_NK = _checked(global_NK, "global")
    count = len(global_NK)
    alphas_LN = []
    for part, part_NK in enumerate(part_neighbours_LNK):
        part_NK = _checked(part_NK, f"part {part}", like=global_NK)
        alpha_N = torch.empty(count, dtype=torch.float32, device=global_NK.device)
        device.launch(
            "difficulty.cu",
            "difficulty",
            blocks=-(-count // _THREADS),
            threads=_THREADS,
            shared_bytes=0,
            arguments=(
                *(global_NK, np.int32(global_NK.shape[1])),
                *(part_NK, np.int32(part_NK.shape[1])),
                *(np.int64(count), alpha_N),
            ),
        )
        alphas_LN.append(alpha_N)
    if not alphas_LN:
        return torch.empty((count, 0), dtype=torch.float32, device=global_NK.device)
    return torch.stack(alphas_LN, dim=1)


def _checked(neighbours_NK: torch.Tensor, name: str, *, like: torch.Tensor | None = None) -> torch.Tensor:
    no_integers = neighbours_NK.is_floating_point() or neighbours_NK.is_complex() or neighbours_NK.dtype == torch.bool
    if neighbours_NK.ndim != 2 or no_integers:
        raise ValueError(
            f"{name} neighbours must be a matrix of integers; got {neighbours_NK.dtype} of shape "
            f"{tuple(neighbours_NK.shape)}."
        )
    count = len(neighbours_NK)
    if like is not None and len(like) != count:
        raise ValueError(
            f"global and part neighbours must be those of the same images; got {len(like)} rows, and {count} in {name}."
        )
    if neighbours_NK.numel() and bool((neighbours_NK.min() < -1) | (neighbours_NK.max() >= count)):
        raise ValueError(f"{name} neighbours must be indices in [0, {count}), or -1 for none; got others.")
    return neighbours_NK.to(torch.int64).contiguous()
