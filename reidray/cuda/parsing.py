"""Spatial cascaded clustering on a GPU: the pseudo parsing masks of SCWM (Sec. 3.2, eq. 2) where the maps were made.

The same parts as `reidray.parsing.parse_grams` cell by cell, by the two kernels of sources/parsing.cu: the foreground
of every image, then, with memory for as many cells as that has, its division. Images with a large foreground keep their
distances in the GPU's main memory, all others in the shared memory of the multiprocessor that works on them.

Letters: B images, H x W cells of a map, P = H * W cells row-major.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from reidray.cuda.device import Device
from reidray.parsing.agglomeration import linkage_code
from reidray.parsing.cascade import Parsing, far_offsets, refuse_broken, refuse_wrong_settings
from reidray.parsing.division import SPACES

MOST_CELLS = 1024  # whose scores fit _SHARED_BYTES

_ELEMENTS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_SHARED_BYTES = 64 * 1024  # of a block: every GPU of compute capability 7.0 or above has them
_SCRATCH_BYTES = 64 * 1024 * 1024  # about what second-level caches hold
_WARP = 32
_BYTES_A_SCORE = 6 * 8 + 3 * 4  # these two as in sources/parsing.cu
_BYTES_A_POINT = 8 + 7 * 4


def parse_grams(
    grams_BPP: Tensor,
    *,
    height: int,
    width: int,
    num_parts: int,
    max_distance: float,
    linkage: str,
    classes: int,
    log_magnitude: bool,
    centre_prior: float,
    space: str,
    device: Device,
) -> Parsing:
    """Body parts from the inner products of each map's cells: `reidray.parsing.parse_grams`, which has the definitions.

    The results are equal, also in the order of ties. With log_magnitude they are so up to the last bit of a GPU's
    logarithm, which shows only in maps with two equally good divisions.

    Args:
        grams_BPP: inner products [B, P, P], P = height * width <= 1024 row-major: float32, bfloat16 or float16, where
            `device` has its arrays. Not modified.
        height, width, num_parts, max_distance, linkage, classes, log_magnitude, centre_prior, space: as on the CPU.
        device: what launches the kernels.

    Returns:
        A `Parsing` of tensors that lie where grams_BPP does: int64 [B, H, W], int64 [B] and float64 [B].

    Raises:
        ValueError: as on the CPU; more than 1024 cells, or inner products of another type.
    """
    _refuse_wrong_products(grams_BPP, height, width)
    refuse_wrong_settings(classes, centre_prior, space)
    far_HW = far_offsets(height, width, num_parts, max_distance)
    batch, cells = len(grams_BPP), height * width
    grams, element = grams_BPP.detach().contiguous().view(torch.uint8), np.int32(_ELEMENTS[grams_BPP.dtype])
    sizes = (np.int32(cells), np.int32(width))
    joining = (np.int32(num_parts), np.int32(linkage_code(linkage)), np.int32(SPACES[space]))

    cells_BP = grams.new_empty((batch, cells), dtype=torch.int32)
    foreground_B = grams.new_empty(batch, dtype=torch.int64)
    scoring = (np.int32(classes), np.int32(log_magnitude), np.float64(centre_prior))
    device.launch(
        "parsing.cu",
        "find_foreground",
        blocks=batch,
        threads=_WARP,
        shared_bytes=(cells + 1) * _BYTES_A_SCORE,
        arguments=(grams, element, *sizes, *scoring, cells_BP, foreground_B),
    )
    points_B = foreground_B.cpu()
    refuse_broken((points_B < 0).numpy())

    far_P = torch.from_numpy(far_HW.astype(np.uint8).ravel()).to(grams.device)
    parts_BP = grams.new_empty((batch, cells), dtype=torch.int64)
    far_share_B = grams.new_empty(batch, dtype=torch.float64)
    clusters = num_parts - 1 if space == "kmeans" else 0
    fitting = max(points for points in range(cells + 1) if _bytes(points, clusters, cells) <= _SHARED_BYTES)
    for chosen_B in (points_B <= fitting, points_B > fitting):
        images_N = chosen_B.nonzero()[:, 0]
        if len(images_N) == 0:
            continue
        points = int(points_B[images_N].max())
        scratch = _doubles(points, clusters) if points > fitting else 0
        blocks = len(images_N) if scratch == 0 else min(len(images_N), max(1, _SCRATCH_BYTES // (8 * scratch)))
        scratch_S = grams.new_empty(max(1, blocks * scratch), dtype=torch.float64)
        images = (images_N.to(grams.device), np.int32(len(images_N)))
        memory = (np.int32(points), scratch_S, np.int64(scratch))
        device.launch(
            "parsing.cu",
            "divide_foreground",
            blocks=blocks,
            threads=_WARP,
            shared_bytes=_bytes(points, clusters, cells) - 8 * scratch,
            arguments=(
                *(grams, element, *images, far_P, *sizes, *joining),
                *(cells_BP, foreground_B, *memory, parts_BP, far_share_B),
            ),
        )
    return Parsing(cast(Any, parts_BP.view(batch, height, width)), cast(Any, foreground_B), cast(Any, far_share_B))


def _doubles(points: int, clusters: int) -> int:
    """Distances of an image with so many foreground cells: the triangle and, in k-means, those to the centres."""
    return points * (points + 1) // 2 + points * min(clusters, points)


def _bytes(points: int, clusters: int, cells: int) -> int:
    """All that the division of an image keeps."""
    return 8 * _doubles(points, clusters) + _BYTES_A_POINT * points + cells


def _refuse_wrong_products(grams_BPP: Tensor, height: int, width: int) -> None:
    cells = height * width
    if height < 1 or width < 1 or grams_BPP.ndim != 3 or grams_BPP.shape[1:] != (cells, cells):
        raise ValueError(
            f"expected inner products [B, {cells}, {cells}] of {height} x {width} cells, got shape "
            f"{tuple(grams_BPP.shape)}; pass the height and width of the maps they were computed from."
        )
    if cells > MOST_CELLS:
        raise ValueError(
            f"expected maps of at most {MOST_CELLS} cells on a GPU, got {height} x {width}; "
            "parse these with reidray.parsing.parse_grams, on the CPU."
        )
    if grams_BPP.dtype not in _ELEMENTS:
        raise ValueError(
            f"expected float32, bfloat16 or float16 inner products on a GPU, got {grams_BPP.dtype}; convert them or "
            "use reidray.parsing.parse_grams, on the CPU."
        )
