"""Magnitudes of the cells of one map and cosines between them, from the map itself or from its inner products.

Letters: D feature width, P cells of the map, row-major, F foreground cells, R channels at a time.
"""

import math

import numpy as np

from reidray.arrays import Array
from reidray.compiled import njit
from reidray.parsing.numbers import finite, widened

CHANNELS = 16  # widened at a time: with 192 cells half a first-level cache
SEGMENT = 512  # channels multiplied at a time: three rows of them and three more stay in the first-level cache
TILE = 3  # rows and columns of products summed at once: nine sums and their six factors fit in 16 registers
_EXTREME = 100  # binary orders of magnitude; float32 squares are safe to half of 126


@njit(cache=True, nogil=True)
def magnitudes_of_gram(gram_PP: Array, exponent: int, room_RP: Array, magnitudes_P: Array) -> bool:
    """Fills the cells' magnitudes; False where the matrix is not finite or its diagonal negative."""
    diagonal_1P = np.empty((1, len(gram_PP)), gram_PP.dtype)
    sound = True
    for p in range(len(gram_PP)):
        sound &= finite(gram_PP[p], exponent)
        diagonal_1P[0, p] = gram_PP[p, p]
    squares_1P = widened(diagonal_1P, exponent, room_RP)
    for p in range(len(magnitudes_P)):
        sound &= squares_1P[0, p] >= 0
        magnitudes_P[p] = np.sqrt(np.float64(squares_1P[0, p]))
    return sound


@njit(cache=True, nogil=True)
def magnitudes_of_map(cells_DP: Array, exponent: int, room_RP: Array, magnitudes_P: Array) -> bool:
    """Fills the cells' magnitudes; False where a cell is not finite."""
    magnitudes_P[:] = 0.0
    for d in range(0, len(cells_DP), CHANNELS):
        _add_squares(widened(cells_DP[d : d + CHANNELS], exponent, room_RP), magnitudes_P)
    sound = finite(magnitudes_P, 0)
    for p in range(len(magnitudes_P)):
        magnitudes_P[p] = np.sqrt(magnitudes_P[p])
    return sound


@njit(cache=True, nogil=True)
def _add_squares(cells_RP: Array, squares_P: Array) -> None:
    """In float64, one channel after the other; four of them a pass."""
    rows = len(cells_RP)
    for d in range(0, rows - 3, 4):
        one_P, two_P, three_P, four_P = cells_RP[d], cells_RP[d + 1], cells_RP[d + 2], cells_RP[d + 3]
        for p in range(len(squares_P)):
            one, two = np.float64(one_P[p]), np.float64(two_P[p])
            three, four = np.float64(three_P[p]), np.float64(four_P[p])
            squares_P[p] = squares_P[p] + one * one + two * two + three * three + four * four
    for d in range(rows - rows % 4, rows):
        one_P = cells_RP[d]
        for p in range(len(squares_P)):
            one = np.float64(one_P[p])
            squares_P[p] += one * one


@njit(cache=True, nogil=True, error_model="numpy")
def cosines_of_gram(
    gram_PP: Array, exponent: int, room_RP: Array, cells_F: Array, length_F: Array, cosines_NS: Array
) -> None:
    """Fills the lower triangle with the float64 cosines between cells, none of which has length zero; both clipped to
    -1..1, the diagonal included."""
    for i in range(len(cells_F)):
        row_P = widened(gram_PP[cells_F[i] : cells_F[i] + 1], exponent, room_RP)[0]
        cosines_F, until_F = cosines_NS[i, : i + 1], length_F[: i + 1]
        for j in range(len(cosines_F)):
            cosines_F[j] = row_P[cells_F[j]]
        length = length_F[i]
        for j in range(len(cosines_F)):
            cosine = cosines_F[j] / length / until_F[j]
            cosine = cosine if cosine < 1.0 else 1.0
            cosines_F[j] = cosine if cosine > -1.0 else -1.0


@njit(cache=True, nogil=True)
def gram_of_map(
    cells_DP: Array,
    exponent: int,
    room_RP: Array,
    cells_F: Array,
    magnitudes_P: Array,
    scale_F: Array,
    panel_FD: Array,
    gram_FF: Array,
) -> None:
    """Fills the lower triangle with the inner products of the foreground cells, each divided by a power of two.

    The power is the cell's magnitude's, so that nothing under- or overflows and nothing is rounded. Segments are summed
    in the panel's precision, their sums in the triangle's.

    Args:
        scale_F: room, in the panel's precision.
        panel_FD: room, `SEGMENT` wide, the rows an odd number of cache lines apart, so that a column does not share a
            cache set. It and the triangle have `TILE` - 1 rows to spare, the triangle columns, too.
    """
    n = len(cells_F)
    tiled = (n + TILE - 1) // TILE * TILE
    gram_FF[:tiled, :tiled] = 0.0
    panel_FD[n:tiled] = 0.0
    for i in range(n):
        order = math.frexp(magnitudes_P[cells_F[i]])[1]
        scale_F[i] = math.ldexp(1.0, -min(max(order, -_EXTREME), _EXTREME))
    for start in range(0, len(cells_DP), SEGMENT):
        segment_RP = cells_DP[start : start + SEGMENT]
        for d in range(0, len(segment_RP), CHANNELS):
            some_RP = widened(segment_RP[d : d + CHANNELS], exponent, room_RP)
            for r in range(len(some_RP)):
                row_P, place = some_RP[r], d + r
                for i in range(n):
                    panel_FD[i, place] = row_P[cells_F[i]] * scale_F[i]
        _add_products(panel_FD, tiled, len(segment_RP), gram_FF)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _add_products(panel_FD: Array, tiled: int, depth: int, gram_FF: Array) -> None:
    """Adds the inner products of the panel's rows to the lower triangle, nine at a time.

    Reassociating and contracting make vector instructions of it; the result is the same on every thread.
    """
    for i in range(0, tiled, TILE):
        a_D, b_D, c_D = panel_FD[i, :depth], panel_FD[i + 1, :depth], panel_FD[i + 2, :depth]
        for j in range(0, i + 1, TILE):
            u_D, v_D, w_D = panel_FD[j, :depth], panel_FD[j + 1, :depth], panel_FD[j + 2, :depth]
            au = av = aw = bu = bv = bw = cu = cv = cw = np.float32(0.0)
            for d in range(len(a_D)):
                a, b, c, u, v, w = a_D[d], b_D[d], c_D[d], u_D[d], v_D[d], w_D[d]
                au += a * u
                av += a * v
                aw += a * w
                bu += b * u
                bv += b * v
                bw += b * w
                cu += c * u
                cv += c * v
                cw += c * w
            gram_FF[i, j] += au
            gram_FF[i, j + 1] += av
            gram_FF[i, j + 2] += aw
            gram_FF[i + 1, j] += bu
            gram_FF[i + 1, j + 1] += bv
            gram_FF[i + 1, j + 2] += bw
            gram_FF[i + 2, j] += cu
            gram_FF[i + 2, j + 1] += cv
            gram_FF[i + 2, j + 2] += cw
