"""How maps and inner products are read: 32 and 64 bits as they are, 16 bits widened row by row where they are used.

Neither NumPy nor compiled code computes in bfloat16, so 16-bit numbers come as their bits. `exponent` says what the
bits are: the mask of the exponent, all ones where a number is not finite; 0 for numbers that are no bits.

Letters: R rows, P cells.
"""

from typing import Any

import numpy as np
import torch
from numba import types
from numba.extending import overload

from reidray.arrays import Array
from reidray.compiled import njit

NO_BITS, BFLOAT16, FLOAT16 = 0, 0x7F80, 0x7C00
_SIGN_16, _SIGN_TO_32 = 0x8000, 16
_HALF_SHIFT = 13  # float16 has 10 bits of mantissa, float32 23
_HALF_SCALE = np.float32(2.0**112)  # exponents of float16 are 15 too high, of float32 127
_HALF_END = np.float32(65536.0)  # what a float16 of all ones in the exponent widens to, at least


def readable(values: Any, what: str) -> tuple[Array, int]:
    """A contiguous array of float32, float64 or the bits of 16-bit numbers, and the mask of their exponent.

    Args:
        values: a NumPy array or a CPU tensor. NumPy's uint16 is taken for the bits of bfloat16; types other than
            float64, float32, float16 and bfloat16 become float32.
        what: the name of the values in the message.

    Returns:
        The array, read-only so that one compiled variant serves all, copied only where it is not contiguous or changes
        its type; and `BFLOAT16`, `FLOAT16` or `NO_BITS`.

    Raises:
        ValueError: a tensor on another device.
    """
    if isinstance(values, torch.Tensor):
        if values.device.type != "cpu":
            raise ValueError(
                f"expected {what} on the CPU, got {values.device}; move the inner products of the cells, not the maps."
            )
        values = values.detach().contiguous()
        values = (values.view(torch.uint16) if values.dtype == torch.bfloat16 else values).numpy()
    array = np.ascontiguousarray(values)
    exponent = NO_BITS
    if array.dtype == np.uint16:
        exponent = BFLOAT16
    elif array.dtype == np.float16:
        array, exponent = array.view(np.uint16), FLOAT16
    elif array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32)
    array = array.view()
    array.flags.writeable = False
    return array, exponent


def widened(numbers_RP: Array, exponent: int, room_RP: Array) -> Array:
    """The rows as float32 or float64: themselves, or the room (float32, at least as many rows), filled. Compiled."""
    raise NotImplementedError("compiled code only")


def finite(numbers_P: Array, exponent: int) -> bool:
    """Whether no number of a row is infinite or NaN. Compiled."""
    raise NotImplementedError("compiled code only")


@overload(widened, jit_options={"nogil": True}, strict=False)
def _widened(numbers_RP: types.Array, exponent: types.Integer, room_RP: types.Array) -> Any:  # noqa: ARG001
    if isinstance(numbers_RP.dtype, types.Float):
        return lambda numbers_RP, exponent, room_RP: numbers_RP  # noqa: ARG005
    return lambda numbers_RP, exponent, room_RP: _widen(numbers_RP, exponent, room_RP)


@overload(finite, jit_options={"nogil": True}, strict=False)
def _finite(numbers_P: types.Array, exponent: types.Integer) -> Any:  # noqa: ARG001
    if isinstance(numbers_P.dtype, types.Float):
        return lambda numbers_P, exponent: _numbers_finite(numbers_P)  # noqa: ARG005
    return lambda numbers_P, exponent: _bits_finite(numbers_P, exponent)


@njit(cache=True, nogil=True)
def _widen(bits_RP: Array, exponent: int, room_RP: Array) -> Array:
    wide_RP = room_RP.view(np.uint32)
    for r in range(len(bits_RP)):
        bits_P, wide_P, numbers_P = bits_RP[r], wide_RP[r], room_RP[r]
        if exponent == BFLOAT16:
            for p in range(len(bits_P)):
                wide_P[p] = np.uint32(bits_P[p]) << _SIGN_TO_32
        else:
            for p in range(len(bits_P)):
                sign = np.uint32(bits_P[p] & _SIGN_16) << _SIGN_TO_32
                wide_P[p] = sign | np.uint32(bits_P[p] & ~_SIGN_16) << _HALF_SHIFT
            for p in range(len(bits_P)):
                number = numbers_P[p] * _HALF_SCALE
                numbers_P[p] = number if abs(number) < _HALF_END else np.float32(np.inf)
    return room_RP[: len(bits_RP)]


@njit(cache=True, nogil=True)
def _numbers_finite(numbers_P: Array) -> bool:
    broken = False
    for p in range(len(numbers_P)):
        broken |= not (abs(numbers_P[p]) < np.inf)
    return not broken


@njit(cache=True, nogil=True)
def _bits_finite(bits_P: Array, exponent: int) -> bool:
    ones, largest = np.uint16(exponent), np.uint16(0)
    for p in range(len(bits_P)):
        found = np.uint16(bits_P[p] & ones)
        largest = found if found > largest else largest
    return largest != ones
