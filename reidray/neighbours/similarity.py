"""What "similarity" means, once for every room: the inner product of two unit rows, correctly rounded to float32.

A matrix product gives almost that number, but its last bits depend on the shape of the blocks, on the library and on
the number of threads. Search and ranking therefore use matrix products only to decide what is *certainly* far away
(`product_error` says how far off one can be) and take every number that decides an order from `similarity`.
"""

from typing import Any

import numpy as np
from numba import njit

# N = rows, D = feature width

UNIT_TOLERANCE = 1e-3
"""How far the length of a row may be from 1."""

_FLOAT32_ROUNDING = 2.0**-24


@njit(cache=True, nogil=True)
def similarity(row_D: Any, other_D: Any) -> Any:
    """Inner product of two float32 rows, rounded once, to float32.

    Products of two float32 numbers are exact in float64; they are added there in a fixed order (eight running sums,
    column c in sum c % 8). The error before the final rounding is below 1e-13, so that the result does not depend on
    the machine, the block or the thread, and similarity(a, b) == similarity(b, a) bit for bit.
    """
    width = row_D.shape[0]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = width - width % 8
    for c in range(0, whole, 8):
        s0 += np.float64(row_D[c]) * np.float64(other_D[c])
        s1 += np.float64(row_D[c + 1]) * np.float64(other_D[c + 1])
        s2 += np.float64(row_D[c + 2]) * np.float64(other_D[c + 2])
        s3 += np.float64(row_D[c + 3]) * np.float64(other_D[c + 3])
        s4 += np.float64(row_D[c + 4]) * np.float64(other_D[c + 4])
        s5 += np.float64(row_D[c + 5]) * np.float64(other_D[c + 5])
        s6 += np.float64(row_D[c + 6]) * np.float64(other_D[c + 6])
        s7 += np.float64(row_D[c + 7]) * np.float64(other_D[c + 7])
    rest = 0.0
    for c in range(whole, width):
        rest += np.float64(row_D[c]) * np.float64(other_D[c])
    return np.float32(((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7)) + rest)


def product_error(width: int) -> float:
    """Largest possible |float32 matrix product - similarity| for two unit rows of this width.

    The textbook bound for a sum of `width` rounded terms in any order (Higham, Accuracy and Stability of Numerical
    Algorithms, eq. 3.5, with Cauchy-Schwarz for the sum of magnitudes), plus the rounding of `similarity` itself and of
    the comparisons.
    """
    summation = width * _FLOAT32_ROUNDING / (1.0 - width * _FLOAT32_ROUNDING)
    return summation * (1.0 + UNIT_TOLERANCE) ** 2 + 4.0 * _FLOAT32_ROUNDING


def unit_rows(features_ND: Any, *, name: str) -> np.ndarray:
    """The rows as a C-contiguous float32 array, after checking that each has length 1 (within 1e-3).

    Args:
      features_ND: real numbers, any array; float32 C-contiguous arrays are returned as they are.
      name: what to call the array in an error.

    Errors:
      ValueError naming the first row that is not finite, is all zero, or has another length than 1; or the wrong shape.
    """
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite and is refused below
        rows_ND = np.ascontiguousarray(features_ND, dtype=np.float32)
    if np.ndim(features_ND) != 2 or rows_ND.shape[1] == 0:
        raise ValueError(f"{name} must be a matrix with one row per image; got shape {np.shape(features_ND)}.")
    lengths_N = np.sqrt(np.einsum("nd,nd->n", rows_ND, rows_ND, dtype=np.float64))
    wrong = np.flatnonzero(~(np.abs(lengths_N - 1.0) <= UNIT_TOLERANCE))
    if len(wrong) == 0:
        return rows_ND
    index = int(wrong[0])
    if not np.isfinite(rows_ND[index]).all():
        raise ValueError(f"{name} must be finite; row {index} holds NaN or infinity. Did the training diverge?")
    if lengths_N[index] == 0.0:
        raise ValueError(f"{name} must be unit rows; row {index} is all zero, so that it has no direction to compare.")
    raise ValueError(
        f"{name} must be unit rows; row {index} has length {lengths_N[index]:.6g}. "
        "Divide each row by its length beforehand."
    )
