"""Exact nearest neighbours on a GPU: `reidray.neighbours.search`, with tensor cores to propose.

The product of the rows rounded to bfloat16 proposes k candidates and a margin; their similarities are taken again in
float64 in the fixed order of `reidray.neighbours.similarity`, by a kernel that repeats it bit for bit. A row is
accepted when nothing outside its candidates can have come closer than its k-th neighbour, by a bound that is measured
for each row; the others are compared with all rows by the exact kernel. No N x N matrix is held.
"""

from __future__ import annotations

import operator
from typing import NamedTuple

import numpy as np
import torch

from reidray.cuda.device import Device
from reidray.neighbours.similarity import UNIT_TOLERANCE, unit_rows

# N = images, Q = queries, D = feature width, K = neighbours, M = candidates (K and a margin), R = rows of one block,
# U = queries that are searched in full, P = pairs

_SMALLEST_MARGIN = 16
_FEWEST_ROWS = 256  # a product of fewer rows keeps no tensor core busy
_ROWS_AT_ONCE = 4096  # that have a float64 copy
_SOURCE = "neighbours.cu"
_THREADS = 256
_TILE = 16  # queries and features of one block of `similarities_to_all`
_MOST_BLOCKS = 2**31 - 1


class _Rounded(NamedTuple):
    """Rows as the tensor cores see them.

    rows_ND: bfloat16; errors_N, lengths_N: float64, length of x - bf16(x) and of bf16(x), rounded up.
    """

    rows_ND: torch.Tensor
    errors_N: torch.Tensor
    lengths_N: torch.Tensor


def nearest(
    features_ND: torch.Tensor,
    k: int,
    *,
    queries_QD: torch.Tensor | None = None,
    block: int = 4096,
    device: Device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k rows most similar to each query (or to each row itself), most similar first.

    The numbers and their order are those of `reidray.neighbours.nearest`, bit for bit, for any `block`.

    Args:
      features_ND: unit rows (length within 1e-3 of 1), N >= 1, on the device; used as float32.
      k: neighbours per query, >= 1; at most N are returned.
      queries_QD: unit rows of the same width. None: the rows of features_ND, each of which then finds itself too.
      block: block^2 products are held at a time, or 256 N where that is more; memory besides is O((Q + N) D) in
        bfloat16 and O(Q (k + margin)).
      device: runs the kernels; the tensors live on it.

    Errors:
      ValueError as `reidray.neighbours.nearest`, in the same words.

    Returns:
      indices_QK int64 and similarities_QK float32 on the device, K = min(k, N).
    """
    k = operator.index(k)
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}.")
    if block < 1:
        raise ValueError(f"block must be at least 1; got {block}.")
    features_ND = checked_rows(features_ND, name="features")
    if len(features_ND) == 0:
        raise ValueError("features must have at least one row; got none.")
    if queries_QD is None:
        queries_QD = features_ND
    else:
        queries_QD = checked_rows(queries_QD, name="queries")
        if queries_QD.shape[1] != features_ND.shape[1]:
            raise ValueError(
                "queries and features must have the same width; "
                f"got {tuple(queries_QD.shape)} and {tuple(features_ND.shape)}."
            )
    k = min(k, len(features_ND))
    width = k + max(k, _SMALLEST_MARGIN)
    if width >= len(features_ND):
        every_Q = torch.arange(len(queries_QD), device=queries_QD.device)
        return _searched_in_full(queries_QD, features_ND, every_Q, k, block, device)
    indices_QK, similarities_QK, uncertain_U = _settled(queries_QD, features_ND, k, width, block, device)
    if len(uncertain_U) > 0:
        found = _searched_in_full(queries_QD, features_ND, uncertain_U, k, block, device)
        indices_QK[uncertain_U], similarities_QK[uncertain_U] = found
    return indices_QK, similarities_QK


def checked_rows(features_ND: torch.Tensor, *, name: str, first: int = 0) -> torch.Tensor:
    """`reidray.neighbours.unit_rows` for a tensor: contiguous float32 rows of length 1, or its ValueError."""
    rows_ND = features_ND.detach().to(torch.float32).contiguous()
    is_matrix = rows_ND.ndim == 2 and rows_ND.shape[1] > 0
    if not is_matrix or bool((~((_lengths(rows_ND) - 1.0).abs() <= UNIT_TOLERANCE)).any()):
        unit_rows(rows_ND.cpu().numpy(), name=name, first=first)  # says which row, and what is wrong with it
    return rows_ND


def similarities_of_pairs(
    queries_QD: torch.Tensor,
    features_ND: torch.Tensor,
    rows_P: torch.Tensor,
    columns_P: torch.Tensor,
    *,
    device: Device,
) -> torch.Tensor:
    """`reidray.neighbours.similarity` of row rows_P[p] of the queries and row columns_P[p] of the features.

    Args:
      queries_QD, features_ND: float32, contiguous.
      rows_P, columns_P: int64.

    Returns:
      float32, one for each pair.
    """
    similarities_P = torch.empty(len(rows_P), dtype=torch.float32, device=features_ND.device)
    pairs_of_block = _THREADS // 8
    device.launch(
        _SOURCE,
        "similarities_of_pairs",
        blocks=_ceil_div(len(rows_P), pairs_of_block),
        threads=_THREADS,
        shared_bytes=0,
        arguments=(
            queries_QD,
            features_ND,
            np.int32(features_ND.shape[1]),
            rows_P,
            columns_P,
            np.int64(len(rows_P)),
            similarities_P,
        ),
    )
    return similarities_P


def _settled(
    queries_QD: torch.Tensor, features_ND: torch.Tensor, k: int, width: int, block: int, device: Device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The k best of `width` candidates of each query by exact similarity, and the queries that may have better ones."""
    features = _rounded(features_ND)
    queries = features if queries_QD is features_ND else _rounded(queries_QD)
    scores_QM, candidates_QM = _proposed(queries.rows_ND, features.rows_ND, width, block)
    candidates_QM = candidates_QM.sort(dim=1).values
    rows_P = torch.arange(len(queries_QD), device=queries_QD.device).repeat_interleave(width)
    similarities_QM = similarities_of_pairs(
        queries_QD, features_ND, rows_P, candidates_QM.reshape(-1), device=device
    ).view(-1, width)
    # The candidates ascend, and a stable sort leaves equal ones in that order.
    similarities_QM, places_QM = similarities_QM.sort(dim=1, descending=True, stable=True)
    indices_QK = candidates_QM.gather(1, places_QM[:, :k])
    bounds_Q = _product_errors(queries, features)
    uncertain_Q = similarities_QM[:, k - 1].double() <= scores_QM.min(dim=1).values.double() + bounds_Q
    return indices_QK, similarities_QM[:, :k].contiguous(), uncertain_Q.nonzero()[:, 0]


def _proposed(
    queries_QD: torch.Tensor, features_ND: torch.Tensor, width: int, block: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `width` largest bfloat16 products of each query, and whose they are; in no particular order."""
    scores_QM = torch.empty((len(queries_QD), width), dtype=torch.float32, device=queries_QD.device)
    candidates_QM = torch.empty((len(queries_QD), width), dtype=torch.int64, device=queries_QD.device)
    rows = max(1, block * block // len(features_ND) // _FEWEST_ROWS) * _FEWEST_ROWS
    for start in range(0, len(queries_QD), rows):
        some = slice(start, start + rows)
        products_RN = _products(queries_QD[some], features_ND)
        scores_QM[some], candidates_QM[some] = products_RN.topk(width, dim=1, sorted=False)
    return scores_QM, candidates_QM


def _products(rows_RD: torch.Tensor, features_ND: torch.Tensor) -> torch.Tensor:
    """Inner products of bfloat16 rows, summed in float32 and given as such."""
    if rows_RD.is_cuda:
        return torch.mm(rows_RD, features_ND.T, out_dtype=torch.float32)
    return rows_RD.float() @ features_ND.float().T  # bfloat16 in, float32 out is CUDA's only


def _rounded(features_ND: torch.Tensor) -> _Rounded:
    rows_ND = features_ND.to(torch.bfloat16)
    up = 1.0 + 1e-9  # float64 sums are better than that
    errors = [
        _lengths(features_ND[start : start + _ROWS_AT_ONCE] - rows_ND[start : start + _ROWS_AT_ONCE].float())
        for start in range(0, len(features_ND), _ROWS_AT_ONCE)
    ]  # the differences are exact in float32
    return _Rounded(rows_ND, torch.cat(errors) * up, _lengths(rows_ND) * up)


def _lengths(rows_ND: torch.Tensor) -> torch.Tensor:
    """Euclidean lengths, float64, without a float64 copy of all rows at once."""
    lengths_N = torch.empty(len(rows_ND), dtype=torch.float64, device=rows_ND.device)
    for start in range(0, len(rows_ND), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        lengths_N[some] = torch.linalg.vector_norm(rows_ND[some].double(), dim=1)
    return lengths_N


def _product_errors(queries: _Rounded, features: _Rounded) -> torch.Tensor:
    """For each query, the largest possible |bfloat16 product - similarity| over all features; float64.

    With b = bf16(x), c = bf16(y): |x.y - b.c| <= |x - b| |y| + |b| |y - c| (Cauchy-Schwarz), |y| within the unit
    tolerance. The sum of D products, each exact in float32, errs by at most 2 D 2^-23 |b| |c| in any order: tensor
    cores align what they add to the largest number of a group and cut off the rest (M. Fasi et al., Numerical Behavior
    of NVIDIA Tensor Cores, PeerJ CS 2021), at most 2^-23 of the sum of magnitudes a number; twice that leaves room for
    what joins the groups. Where the result is float32, cuBLAS keeps no partial sum in less. The last term is the
    rounding of `similarity` and of the comparison.
    """
    width = features.rows_ND.shape[1]
    rounding = queries.errors_N * (1.0 + UNIT_TOLERANCE) + queries.lengths_N * features.errors_N.max()
    summation = 2.0 * width * 2.0**-23 * queries.lengths_N * features.lengths_N.max()
    return rounding + summation + 4.0 * 2.0**-24


def _searched_in_full(
    queries_QD: torch.Tensor, features_ND: torch.Tensor, rows_U: torch.Tensor, k: int, block: int, device: Device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest of some queries from their exact similarities to all features."""
    indices_UK = torch.empty((len(rows_U), k), dtype=torch.int64, device=rows_U.device)
    similarities_UK = torch.empty((len(rows_U), k), dtype=torch.float32, device=rows_U.device)
    tiles = _ceil_div(len(features_ND), _TILE)
    at_once = min(max(_TILE, block * block // len(features_ND)), _MOST_BLOCKS // tiles * _TILE)
    for start in range(0, len(rows_U), at_once):
        some_U = rows_U[start : start + at_once]
        similarities_UN = torch.empty((len(some_U), len(features_ND)), dtype=torch.float32, device=rows_U.device)
        device.launch(
            _SOURCE,
            "similarities_to_all",
            blocks=_ceil_div(len(some_U), _TILE) * tiles,
            threads=_TILE * _TILE,
            shared_bytes=0,
            arguments=(
                queries_QD,
                some_U,
                np.int64(len(some_U)),
                features_ND,
                np.int64(len(features_ND)),
                np.int32(features_ND.shape[1]),
                similarities_UN,
            ),
        )
        ordered = similarities_UN.sort(dim=1, descending=True, stable=True)
        similarities_UK[start : start + at_once] = ordered.values[:, :k]
        indices_UK[start : start + at_once] = ordered.indices[:, :k]
    return indices_UK, similarities_UK


def _ceil_div(count: int, size: int) -> int:
    return -(-count // size)
