"""Matrix products that propose candidates, and bounds on their distance from `similarity`.

There are two: float32, which every machine has, and bfloat16. bfloat16 is at least twice as fast where the processor
has instructions for it (AVX512-BF16, AMX, Arm's BF16), and is not used elsewhere. The bounds hold for sums in any
order, by any library.
"""

import os
from functools import cache
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import torch
from llvmlite import binding
from numba import prange

from reidray.arrays import Array, Doubles, Floats
from reidray.compiled import njit
from reidray.neighbours.similarity import UNIT_TOLERANCE
from reidray.threads import parallel_kernel

# N = rows, D = feature width, R, S = rows and columns of a block

_FLOAT32_ROUNDING = 2.0**-24
_BFLOAT16_ROUNDING = 2.0**-8
_BFLOAT16_INSTRUCTIONS = ("avx512bf16", "amx-bf16", "bf16")


class Product(Protocol):
    """A kind of matrix product between unit rows.

    With p the product of rows i and j, and s their similarity: |p - s| <= (gap(i) + slope |p|) / 2, whatever j.
    """

    slope: float

    def prepare(self, rows_RD: Floats) -> torch.Tensor:
        """The rows as the product takes them."""

    def room(self, entries: int) -> torch.Tensor:
        """A buffer for a block of so many products."""

    def multiply(self, rows_RD: torch.Tensor, columns_SD: torch.Tensor, room: torch.Tensor) -> Array:
        """Products [R, S] in the buffer: float32, or the bits of bfloat16 as int16, which order alike from 0 on."""

    def lost(self, rows_RD: Floats) -> Doubles:
        """What the product does not see of each row."""

    def gaps(self, lost_Q: Doubles, lost_N: Doubles, width: int) -> Doubles:
        """gap of each query towards all features of this width, by what the product does not see of them."""


class Float32Product:
    """Plain float32."""

    slope = 0.0

    def prepare(self, rows_RD: Floats) -> torch.Tensor:
        return _as_tensor(rows_RD)

    def room(self, entries: int) -> torch.Tensor:
        return torch.empty(entries, dtype=torch.float32)

    def multiply(self, rows_RD: torch.Tensor, columns_SD: torch.Tensor, room: torch.Tensor) -> Array:
        products_RS = room[: len(rows_RD) * len(columns_SD)].view(len(rows_RD), len(columns_SD)).numpy()
        float32_product(rows_RD.numpy(), columns_SD.numpy(), products_RS)
        return products_RS

    def lost(self, rows_RD: Floats) -> Doubles:
        return np.zeros(len(rows_RD))

    def gaps(self, lost_Q: Doubles, lost_N: Doubles, width: int) -> Doubles:  # noqa: ARG002  (Product's signature)
        return np.full(len(lost_Q), 2.0 * product_error(width))


class BFloat16Product:
    """Rows rounded to bfloat16, exact products, sums in float32, results rounded to bfloat16."""

    slope = 2.0 * _BFLOAT16_ROUNDING

    def prepare(self, rows_RD: Floats) -> torch.Tensor:
        return _as_tensor(rows_RD).bfloat16()

    def room(self, entries: int) -> torch.Tensor:
        return torch.empty(entries, dtype=torch.bfloat16)

    def multiply(self, rows_RD: torch.Tensor, columns_SD: torch.Tensor, room: torch.Tensor) -> Array:
        products_RS = room[: len(rows_RD) * len(columns_SD)].view(len(rows_RD), len(columns_SD))
        torch.mm(rows_RD, columns_SD.t(), out=products_RS)
        return products_RS.view(torch.int16).numpy()

    def lost(self, rows_RD: Floats) -> Doubles:
        """Length of each row less its rounding."""
        lost_R: Doubles = _lost_by_rounding(rows_RD)
        return lost_R

    def gaps(self, lost_Q: Doubles, lost_N: Doubles, width: int) -> Doubles:
        """Cauchy-Schwarz on what the rounding took from each row, and float32 sums that may even be cut, not rounded.

        x y - x' y' = (x - x') y + x' (y - y') for the rounded x', y'.
        """
        longest = 1.0 + UNIT_TOLERANCE
        worst = float(lost_N.max())
        sums = _summation(width, 2.0 * _FLOAT32_ROUNDING) * (longest + worst) ** 2
        rounding_Q = lost_Q * longest + (longest + lost_Q) * worst
        return 2.0 * (1.0 + 2.0 * _BFLOAT16_ROUNDING) * (rounding_Q + sums + 4.0 * _FLOAT32_ROUNDING)


def fastest_product() -> Product:
    """The faster product on this machine: bfloat16 where processor and PyTorch can multiply it, else float32."""
    return BFloat16Product() if multiplies_bfloat16() else Float32Product()


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 products and PyTorch's oneDNN may use them."""
    features = binding.get_host_cpu_features()
    onednn: Any = torch.backends.mkldnn
    return bool(onednn.is_available()) and any(features.get(name, False) for name in _BFLOAT16_INSTRUCTIONS)


def float32_product(rows_RD: Floats, columns_SD: Floats, out_RS: Floats) -> None:
    """out = rows columns^T, each entry within `product_error` of the similarity of its unit rows.

    PyTorch multiplies where the processor has AVX-512, else NumPy: `benchmarks/ranking.py` times both and names the
    faster one. NumPy also multiplies where PyTorch was allowed to lower the precision of float32 products.
    """
    if _has_avx512() and not _pytorch_may_lower():
        torch.mm(_as_tensor(rows_RD), _as_tensor(columns_SD).t(), out=torch.from_numpy(out_RS))
    else:
        np.matmul(rows_RD, columns_SD.T, out=out_RS)


@cache
def _has_avx512() -> bool:
    return bool(binding.get_host_cpu_features().get("avx512f", False))


def product_error(width: int) -> float:
    """Largest possible |float32 matrix product - similarity| for two unit rows of this width.

    The textbook bound for a sum of `width` rounded terms in any order (Higham, Accuracy and Stability of Numerical
    Algorithms, eq. 3.5, with Cauchy-Schwarz for the sum of magnitudes), plus the rounding of `similarity` itself and of
    the comparisons.
    """
    return _summation(width, _FLOAT32_ROUNDING) * (1.0 + UNIT_TOLERANCE) ** 2 + 4.0 * _FLOAT32_ROUNDING


def _summation(width: int, rounding: float) -> float:
    return width * rounding / (1.0 - width * rounding)


def _pytorch_may_lower() -> bool:
    """Whether less than float32 was allowed to PyTorch, by the old switch, the new ones or the environment."""
    backends: Any = torch.backends
    settings = (backends, backends.mkldnn, backends.mkldnn.matmul)
    if any(getattr(setting, "fp32_precision", "none") not in ("none", "ieee") for setting in settings):
        return True  # the old switch cannot be read then
    lowered = torch.get_float32_matmul_precision() != "highest"
    return lowered or any(os.environ.get(f"{name}_DEFAULT_FPMATH_MODE") for name in ("ONEDNN", "DNNL"))


def _as_tensor(rows_ND: Floats) -> torch.Tensor:
    """The same memory as a tensor that is only read."""
    if not rows_ND.flags.writeable:  # PyTorch has no read-only tensors and warns of such arrays, e.g. mapped files
        interface = dict(rows_ND.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        rows_ND = np.asarray(SimpleNamespace(__array_interface__=interface, owner=rows_ND))
    return torch.from_numpy(rows_ND)


@parallel_kernel
def _lost_by_rounding(rows_ND: Any) -> Doubles:
    """Length of each row less its rounding to bfloat16 (nearest, ties to even), rounded up a little."""
    lost_N = np.empty(rows_ND.shape[0])
    for i in prange(rows_ND.shape[0]):
        lost_N[i] = np.sqrt(_squared_loss(rows_ND[i])) * (1.0 + 1e-9)
    return lost_N


# Part of a bound that has a margin: the compiler may add in any order.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _squared_loss(row_D: Any) -> float:
    total = 0.0
    for c in range(row_D.shape[0]):
        bits = np.float32(row_D[c]).view(np.uint32)
        bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        lost = np.float64(row_D[c]) - np.float64(np.uint32(bits & np.uint32(0xFFFF0000)).view(np.float32))
        total += lost * lost
    return total
