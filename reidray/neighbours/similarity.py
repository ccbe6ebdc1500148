"""Similarity, defined once for the whole package: the inner product of two unit rows, correctly rounded to float32.

A matrix product gives almost that number, but its last bits depend on the shape of the blocks, on the library and on
the number of threads. Search and ranking therefore use matrix products (`product.py`) only to exclude what is certainly
far away. Every number that decides an order comes from `similarity`.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from reidray.arrays import Array, Doubles, Floats
from reidray.compiled import njit
from reidray.threads import parallel_kernel

# N = rows, D = feature width, P = pairs

build: Any = cgutils

UNIT_TOLERANCE = 1e-3
"""How far the length of a row may be from 1."""


@njit(cache=True, nogil=True)
def similarity(row_D: Any, other_D: Any) -> Any:
    """Inner product of two contiguous float32 rows, rounded once, to float32.

    Products of two float32 numbers are exact in float64; they are added there in a fixed order (eight running sums,
    column c in sum c % 8). The error before the final rounding is below 1e-13, so that the result does not depend on
    the machine, the block or the thread, and similarity(a, b) == similarity(b, a) bit for bit.
    """
    return np.float32(_inner_product(row_D, other_D))


@njit(cache=True, nogil=True)
def _inner_product(row_D: Any, other_D: Any) -> Any:
    s0, s1, s2, s3, s4, s5, s6, s7 = _eight_sums(row_D, other_D)
    rest = 0.0
    for c in range(row_D.shape[0] - row_D.shape[0] % 8, row_D.shape[0]):
        rest += np.float64(row_D[c]) * np.float64(other_D[c])
    return ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7)) + rest


def _generated_sums(_typing_context: Any, row_D: Any, other_D: Any) -> Any:
    """Type and code of `_eight_sums(row_D, other_D)`.

    Sum q holds the products of columns q, q + 8, q + 16, ..; what is left of a width is left out. The same loop in
    Python is compiled to one conversion an element and runs four times slower; here each turn loads, widens, multiplies
    and adds eight columns.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = [context.make_array(kind)(context, builder, row) for kind, row in zip(signature.args, arguments)]  # noqa: B905
        floats, doubles = ir.VectorType(ir.FloatType(), 8), ir.VectorType(ir.DoubleType(), 8)
        width = builder.extract_value(rows[0].shape, 0)
        zero, eight = ir.Constant(width.type, 0), ir.Constant(width.type, 8)
        sums = build.alloca_once_value(builder, ir.Constant(doubles, [0.0] * 8))
        whole = builder.sub(width, builder.srem(width, eight))
        with build.for_range_slice(builder, zero, whole, eight) as (column, _):
            wide = []
            for row in rows:
                place = builder.bitcast(builder.gep(row.data, [column]), floats.as_pointer())
                loaded = builder.load(place)
                loaded.align = 4
                wide.append(builder.fpext(loaded, doubles))
            builder.store(builder.fadd(builder.load(sums), builder.fmul(*wide)), sums)
        total = builder.load(sums)
        lanes = [builder.extract_element(total, ir.Constant(ir.IntType(32), q)) for q in range(8)]
        return build.pack_array(builder, lanes)

    for row in (row_D, other_D):
        assert (row.dtype, row.layout) == (types.float32, "C"), f"expected contiguous float32 rows, got {row}"
    sums: Any = types.UniTuple
    return sums(types.float64, 8)(row_D, other_D), generate


_eight_sums: Any = intrinsic(_generated_sums)


def unit_rows(features_ND: Any, *, name: str, first: int = 0) -> Floats:
    """The rows as a C-contiguous float32 array that cannot be written, once each has length 1 (within 1e-3).

    Args:
      features_ND: real numbers, any array or tensor; of float32 C-contiguous arrays (memory-mapped ones too) a view is
        returned.
      name: what to call the array in an error.
      first: index of its first row, in an error.

    Errors:
      ValueError naming the first row that is not finite, is all zero, or has another length than 1; or the wrong shape
      or complex numbers.
    """
    if isinstance(features_ND, torch.Tensor):
        features_ND = features_ND.detach().to("cpu", torch.float32).numpy()
    if np.iscomplexobj(features_ND):
        raise ValueError(f"{name} must be real numbers; got complex ones: take their parts side by side.")
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite and is refused below
        rows_ND: Array = read_only(np.ascontiguousarray(features_ND, dtype=np.float32))
    if np.ndim(features_ND) != 2 or rows_ND.shape[1] == 0:
        raise ValueError(f"{name} must be a matrix with one row per image; got shape {np.shape(features_ND)}.")
    lengths_N = np.sqrt(squared_lengths(rows_ND))
    wrong = np.flatnonzero(~(np.abs(lengths_N - 1.0) <= UNIT_TOLERANCE))
    if len(wrong) == 0:
        return rows_ND
    index = first + int(wrong[0])
    if not np.isfinite(rows_ND[wrong[0]]).all():
        raise ValueError(f"{name} must be finite; row {index} holds NaN or infinity. Did the training diverge?")
    if lengths_N[wrong[0]] == 0.0:
        raise ValueError(f"{name} must be unit rows; row {index} is all zero, so that it has no direction to compare.")
    raise ValueError(
        f"{name} must be unit rows; row {index} has length {lengths_N[wrong[0]]:.6g}. "
        "Divide each row by its length beforehand."
    )


def read_only(array: Array) -> Array:
    """A view that cannot be written: numba compiles once more for arrays that can, and files are mapped without."""
    view = array.view()
    view.flags.writeable = False
    return view


@parallel_kernel
def squared_lengths(rows_ND: Any) -> Doubles:
    """float64 inner product of each contiguous float32 row with itself."""
    lengths_N = np.empty(rows_ND.shape[0])
    for i in prange(rows_ND.shape[0]):
        lengths_N[i] = _inner_product(rows_ND[i], rows_ND[i])
    return lengths_N


@parallel_kernel
def similarities_of_pairs(rows_ND: Any, firsts_P: Any, seconds_P: Any) -> Floats:
    """`similarity` of each pair of contiguous float32 rows: row firsts[p] with row seconds[p]."""
    similarities_P = np.empty(firsts_P.shape[0], np.float32)
    for p in prange(firsts_P.shape[0]):
        similarities_P[p] = similarity(rows_ND[firsts_P[p]], rows_ND[seconds_P[p]])
    return similarities_P
