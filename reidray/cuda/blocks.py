"""Neighbour lists from pairs of blocks on a GPU: `reidray.neighbours.blocks` for rows on a device.

Each direction of a pair is searched by itself: on a GPU a second product costs less than filling the lists of both
sides at once. Known similarities and results are arrays of the host, as the lists are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from reidray.arrays import Floats
from reidray.cuda.device import Device
from reidray.cuda.neighbours import checked_rows, nearest
from reidray.neighbours.blocks import Found, Lists, begun, merged, news

# R, S = rows of a block, D = feature width, K = neighbours


class DeviceBlock(NamedTuple):
    """Rows on a device that are ready to be searched; made by `ready_block`. first: index of the first row."""

    first: int
    rows_RD: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return int(self.rows_RD.nbytes)


def ready_block(features_RD: torch.Tensor, first: int) -> DeviceBlock:
    """As `reidray.neighbours.ready_block`."""
    return DeviceBlock(first, checked_rows(features_RD, name="features", first=first))


def search_strip(
    rows: DeviceBlock, known_RK: Floats, columns: Iterable[tuple[DeviceBlock, Floats]], *, device: Device
) -> tuple[Found, list[Found]]:
    """As `reidray.neighbours.search_strip`, for blocks on `device`; the lists become the same."""
    mine = begun(known_RK)
    theirs: list[Found] = []
    for other, known_SK in columns:
        its = begun(known_SK)
        if (other.first, len(other.rows_RD)) == (rows.first, len(rows.rows_RD)):
            mine = _searched(rows, rows, mine, device)
        else:
            mine = _searched(rows, other, mine, device)
            its = _searched(other, rows, its, device)
        theirs.append(news(its))
    return news(mine), theirs


def _searched(block: DeviceBlock, other: DeviceBlock, lists: Lists, device: Device) -> Lists:
    """The lists of a block with its nearest in another one."""
    if len(block.rows_RD) == 0 or len(other.rows_RD) == 0:
        return lists
    queries_RD = None if block is other else block.rows_RD
    found = nearest(other.rows_RD, lists.indices_RK.shape[1], queries_QD=queries_RD, device=device)
    indices_RM, similarities_RM = (array.cpu().numpy() for array in found)
    near_RM = similarities_RM >= lists.similarities_RK[:, -1:]
    return merged(lists, Found(np.sum(near_RM, axis=1), other.first + indices_RM[near_RM], similarities_RM[near_RM]))
