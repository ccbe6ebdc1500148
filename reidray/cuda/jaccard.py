"""The k-reciprocal Jaccard distance on a GPU, kept sparse: `reidray.neighbours.jaccard` for arrays that live there.

Z. Zhong et al., CVPR 2017 (arXiv:1701.08398). The kernels of sources/jaccard.cu build the same sets and repeat the sums
of the processor in their order, so that the distances are equal bit for bit wherever the two machines' exponential
functions agree to float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from reidray.cuda.device import Device
from reidray.cuda.neighbours import checked_rows, nearest, similarities_of_pairs
from reidray.neighbours.jaccard import LARGEST_SIMILARITY, check_lengths, columns_needed

# N = images, D = feature width, K = neighbours (the image itself counts), E = stored entries of sparse rows
# ends_N1: row i lies at ends[i] .. ends[i + 1]

_SOURCE = "jaccard.cu"
_THREADS = 128
_MOST_SHARED = 32 * 1024
_SCRATCH_BYTES = 512 * 2**20


class SparseRows(NamedTuple):
    """Rows of a sparse matrix with N columns, on a device.

    ends_N1: int64; columns_E: int32, ascending in each row; values_E: float32.
    """

    ends_N1: torch.Tensor
    columns_E: torch.Tensor
    values_E: torch.Tensor

    def to_scipy(self) -> sparse.csr_array:
        """A copy on the host."""
        count = len(self.ends_N1) - 1
        arrays = (self.values_E.cpu().numpy(), self.columns_E.cpu().numpy(), self.ends_N1.cpu().numpy())
        return sparse.csr_array(arrays, shape=(count, count))


def jaccard_distances(
    features_ND: torch.Tensor, *, k1: int, k2: int, keep: float, counts_itself: bool = True, device: Device
) -> SparseRows:
    """Jaccard distances between all images that have k-reciprocal neighbours in common.

    Args:
      features_ND: unit rows, N >= 1, on the device.
      k1, k2, keep, counts_itself: as in `reidray.neighbours.jaccard_distances`.
      device: runs the kernels; the tensors live on it.

    Errors:
      ValueError as `reidray.neighbours.jaccard_distances`.

    Returns:
      rows that are symmetric bit for bit: every pair with d < 1 and d <= keep, and the diagonal as a stored 0. Besides
      the result, O(N k1) memory and 512 MiB for the sums of the blocks that work at a time (8 N to 12 N bytes a block).
    """
    check_lengths(k1, k2, keep)
    indices_NK, similarities_NK = nearest(features_ND, columns_needed(k1, counts_itself), device=device)
    return jaccard_from_neighbours(
        indices_NK,
        similarities_NK,
        features_ND,
        k1=k1,
        k2=k2,
        keep=keep,
        counts_itself=counts_itself,
        device=device,
    )


def jaccard_from_neighbours(
    indices_NK: torch.Tensor,
    similarities_NK: torch.Tensor,
    features_ND: torch.Tensor,
    *,
    k1: int,
    k2: int,
    keep: float,
    counts_itself: bool = True,
    device: Device,
) -> SparseRows:
    """`jaccard_distances` after the search, for neighbour lists that are already there.

    Args:
      indices_NK, similarities_NK: as returned by `nearest(features_ND, k)` with k >= k1, or k >= k1 + 1 unless
        `counts_itself`; further columns are not looked at.
      features_ND: the rows that were searched, for the few similarities which are not in the lists.
      k1, k2, keep, counts_itself, device: as in `jaccard_distances`.

    Errors:
      as `jaccard_distances`; ValueError when the lists do not belong to the features.
    """
    check_lengths(k1, k2, keep)
    features_ND = checked_rows(features_ND, name="features")
    _check_shapes(indices_NK, similarities_NK, len(features_ND), columns_needed(k1, counts_itself))

    def similarities_of(firsts_U: torch.Tensor, seconds_U: torch.Tensor) -> torch.Tensor:
        return similarities_of_pairs(features_ND, features_ND, firsts_U, seconds_U, device=device)

    return jaccard_from_lists(
        indices_NK,
        similarities_NK,
        similarities_of,
        k1=k1,
        k2=k2,
        keep=keep,
        counts_itself=counts_itself,
        device=device,
    )


def jaccard_from_lists(
    indices_NK: torch.Tensor,
    similarities_NK: torch.Tensor,
    similarities_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    k1: int,
    k2: int,
    keep: float,
    counts_itself: bool = True,
    device: Device,
) -> SparseRows:
    """`jaccard_from_neighbours` where the features lie elsewhere; see `reidray.neighbours.jaccard_from_lists`.

    similarities_of: takes and returns tensors on the device.
    """
    check_lengths(k1, k2, keep)
    columns = min(columns_needed(k1, counts_itself), len(indices_NK))
    _check_shapes(indices_NK, similarities_NK, len(indices_NK), columns)
    _check_lists(indices_NK, similarities_NK)
    neighbours_NK = indices_NK[:, :columns].to(torch.int32).contiguous()
    known_NK = similarities_NK[:, :columns].to(torch.float32).contiguous()
    described = _described(neighbours_NK, known_NK, similarities_of, min(round(k1 / 2) + 1, columns), device)
    if k2 > 1:
        described = _averaged(described, neighbours_NK, min(k2, columns), device)
    return _compared(described, keep, device)


def _check_shapes(indices_NK: torch.Tensor, similarities_NK: torch.Tensor, count: int, columns: int) -> None:
    """Lists of `count` images with at least so many columns, or with all images."""
    columns = min(columns, count)
    if indices_NK.shape != similarities_NK.shape or len(indices_NK) != count or indices_NK.shape[1] < columns:
        raise ValueError(
            f"neighbour lists must have {count} rows and at least {columns} columns; got indices "
            f"{tuple(indices_NK.shape)} and similarities {tuple(similarities_NK.shape)}."
        )


def _check_lists(indices_NK: torch.Tensor, similarities_NK: torch.Tensor) -> None:
    """Cheap signs that the lists are those of unit rows."""
    count = len(indices_NK)
    if bool((indices_NK.min() < 0) | (indices_NK.max() >= count)):
        raise ValueError(f"neighbour lists must hold indices in [0, {count}); were they made from other features?")
    wrong = (~(similarities_NK.abs() <= LARGEST_SIMILARITY)).any(dim=1).nonzero()
    if len(wrong):
        raise ValueError(
            f"neighbour lists must hold similarities of unit rows; row {int(wrong[0])} holds others, or NaN or "
            "infinity."
        )


def _described(
    neighbours_NK: torch.Tensor,
    known_NK: torch.Tensor,
    similarities_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    half: int,
    device: Device,
) -> SparseRows:
    """Weights of each image on its expanded k-reciprocal neighbours (eq. 7)."""
    count, k1 = neighbours_NK.shape
    ends_N1, columns_E = _expanded(neighbours_NK, half, device)
    rows_E = _rows_of(ends_N1)
    weights_E = torch.empty(len(columns_E), dtype=torch.float32, device=columns_E.device)
    entries = np.int64(len(columns_E))
    device.launch(
        _SOURCE,
        "look_up",
        blocks=-(-len(columns_E) // _THREADS),
        threads=_THREADS,
        shared_bytes=0,
        arguments=(neighbours_NK, known_NK, np.int32(k1), rows_E, columns_E, entries, weights_E),
    )
    unknown_P = weights_E.isnan().nonzero()[:, 0]
    if len(unknown_P):
        weights_E[unknown_P] = similarities_of(rows_E[unknown_P].long(), columns_E[unknown_P].long())
    device.launch(
        _SOURCE,
        "weigh",
        blocks=-(-count // _THREADS),
        threads=_THREADS,
        shared_bytes=0,
        arguments=(ends_N1, np.int32(count), weights_E),
    )
    return SparseRows(ends_N1, columns_E, weights_E)


def _expanded(neighbours_NK: torch.Tensor, half: int, device: Device) -> tuple[torch.Tensor, torch.Tensor]:
    """Row ends and columns of the expanded k-reciprocal neighbours (eq. 2 and 3)."""
    count, k1 = neighbours_NK.shape
    members_NK, sizes_N = _reciprocal(neighbours_NK, k1, device)
    half_NK, half_sizes_N = _reciprocal(neighbours_NK, half, device)
    counts_N, no_ends, no_columns, _ = _room_for_counts(neighbours_NK)
    blocks, shared_bytes, scratch = _lists(count, k1 * (1 + half), neighbours_NK.device)

    def run(filling: int, ends_N1: torch.Tensor, columns_E: torch.Tensor) -> None:
        device.launch(
            _SOURCE,
            "expand",
            blocks=blocks,
            threads=_THREADS,
            shared_bytes=shared_bytes,
            arguments=(
                *(members_NK, sizes_N, np.int32(k1)),
                *(half_NK, half_sizes_N, np.int32(half), np.int32(count)),
                *(np.int32(filling), counts_N, ends_N1, columns_E, *scratch),
            ),
        )

    run(0, no_ends, no_columns)
    ends_N1 = _row_ends(counts_N)
    columns_E = torch.empty(int(ends_N1[-1]), dtype=torch.int32, device=ends_N1.device)
    run(1, ends_N1, columns_E)
    return ends_N1, columns_E


def _reciprocal(neighbours_NK: torch.Tensor, columns: int, device: Device) -> tuple[torch.Tensor, torch.Tensor]:
    count, k1 = neighbours_NK.shape
    members_NK = torch.empty((count, columns), dtype=torch.int32, device=neighbours_NK.device)
    sizes_N = torch.empty(count, dtype=torch.int32, device=neighbours_NK.device)
    device.launch(
        _SOURCE,
        "reciprocal",
        blocks=count,
        threads=32,
        shared_bytes=0,
        arguments=(neighbours_NK, np.int32(k1), np.int32(columns), members_NK, sizes_N),
    )
    return members_NK, sizes_N


def _averaged(described: SparseRows, neighbours_NK: torch.Tensor, rows: int, device: Device) -> SparseRows:
    """The mean description of each image's nearest images (eq. 11)."""
    count, k1 = neighbours_NK.shape
    lengths_N = described.ends_N1.diff()
    longest = int(lengths_N[neighbours_NK[:, :rows].long()].sum(dim=1).max())
    blocks, shared_bytes, scratch = _lists(count, longest, neighbours_NK.device)
    counts_N, no_ends, no_columns, no_weights = _room_for_counts(neighbours_NK)

    def run(filling: int, ends_N1: torch.Tensor, columns_E: torch.Tensor, weights_E: torch.Tensor) -> None:
        device.launch(
            _SOURCE,
            "average",
            blocks=blocks,
            threads=_THREADS,
            shared_bytes=shared_bytes,
            arguments=(
                *(neighbours_NK, np.int32(k1), np.int32(rows), *described, np.int32(count)),
                *(np.int32(filling), counts_N, ends_N1, columns_E, weights_E, *scratch),
            ),
        )

    run(0, no_ends, no_columns, no_weights)
    averaged = _empty_rows(counts_N)
    run(1, *averaged)
    return averaged


def _compared(described: SparseRows, keep: float, device: Device) -> SparseRows:
    """Distances (eq. 10) between all images whose descriptions share a column."""
    ends_N1, columns_E, weights_E = described
    count = len(ends_N1) - 1
    by_column_E = columns_E.sort(stable=True).indices
    lengths_N = torch.bincount(columns_E, minlength=count)
    holders = (_row_ends(lengths_N), _rows_of(ends_N1)[by_column_E], weights_E[by_column_E])
    room = _power_of_two(count)
    blocks = min(count, max(1, _SCRATCH_BYTES // (4 * (count + room))))
    overlaps = torch.zeros(blocks * count, dtype=torch.float32, device=ends_N1.device)
    scratch = torch.empty(blocks * room, dtype=torch.int32, device=ends_N1.device)
    counts_N, no_ends, no_columns, no_distances = _room_for_counts(ends_N1[1:])

    def run(filling: int, rows_N1: torch.Tensor, indices: torch.Tensor, distances: torch.Tensor) -> None:
        device.launch(
            _SOURCE,
            "compare",
            blocks=blocks,
            threads=_THREADS,
            shared_bytes=0,
            arguments=(
                *(*described, *holders, np.int32(count), np.float32(keep)),
                *(np.int32(filling), counts_N, rows_N1, indices, distances, overlaps, scratch, np.int32(room)),
            ),
        )

    run(0, no_ends, no_columns, no_distances)
    compared = _empty_rows(counts_N)
    run(1, *compared)
    return compared


def _room_for_counts(like_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Room for the lengths of rows, and the ends, columns and values that a kernel which only counts does not touch."""
    counts_N = torch.empty(len(like_N), dtype=torch.int64, device=like_N.device)
    no_ends = counts_N[:0]
    return counts_N, no_ends, no_ends.to(torch.int32), no_ends.to(torch.float32)


def _empty_rows(counts_N: torch.Tensor) -> SparseRows:
    ends_N1 = _row_ends(counts_N)
    entries = int(ends_N1[-1])
    return SparseRows(
        ends_N1,
        torch.empty(entries, dtype=torch.int32, device=counts_N.device),
        torch.empty(entries, dtype=torch.float32, device=counts_N.device),
    )


def _row_ends(counts_N: torch.Tensor) -> torch.Tensor:
    return torch.cat([counts_N.new_zeros(1, dtype=torch.int64), counts_N.cumsum(0)])


def _rows_of(ends_N1: torch.Tensor) -> torch.Tensor:
    """The row of each stored entry."""
    rows_N = torch.arange(len(ends_N1) - 1, dtype=torch.int32, device=ends_N1.device)
    return rows_N.repeat_interleave(ends_N1.diff())


def _lists(count: int, longest: int, where: torch.device) -> tuple[int, int, tuple[torch.Tensor, np.int32, np.int32]]:
    """Blocks, bytes of shared memory, and the arguments `scratch, room, in_shared` for lists of this length."""
    room = _power_of_two(longest)
    in_shared = 4 * room <= _MOST_SHARED
    blocks = count if in_shared else min(count, max(1, _SCRATCH_BYTES // (4 * room)))
    scratch = torch.empty(0 if in_shared else blocks * room, dtype=torch.int32, device=where)
    return blocks, 4 * room if in_shared else 0, (scratch, np.int32(room), np.int32(in_shared))


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()
