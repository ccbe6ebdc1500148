"""Magnitudes of the cells of one map and cosines between them, from the map itself or from its inner products.

Letters: D feature width, P cells of the map, row-major, F cells picked among them.
"""

import numpy as np
from numba import njit

from reidray.arrays import Array


@njit(cache=True, nogil=True)
def magnitudes_of_gram(gram_PP: Array) -> Array:
    """Magnitudes of the cells in float64; -1 for the first where the matrix is not finite, its diagonal negative."""
    num_cells = len(gram_PP)
    magnitudes_P = np.empty(num_cells)
    bad = 0
    for p in range(num_cells):
        for q in range(num_cells):
            bad += not (abs(gram_PP[p, q]) < np.inf)
        bad += gram_PP[p, p] < 0
        magnitudes_P[p] = np.sqrt(np.float64(gram_PP[p, p]))
    if bad:
        magnitudes_P[0] = -1.0
    return magnitudes_P


@njit(cache=True, nogil=True)
def magnitudes_of_cells(cells_DP: Array) -> Array:
    """Magnitudes of the cells in float64; -1 for the first where a cell is not finite."""
    depth, num_cells = cells_DP.shape
    magnitudes_P = np.zeros(num_cells)
    for d in range(depth):
        for p in range(num_cells):
            magnitudes_P[p] += np.float64(cells_DP[d, p]) * np.float64(cells_DP[d, p])
    bad = 0
    for p in range(num_cells):
        bad += not (magnitudes_P[p] < np.inf)
        magnitudes_P[p] = np.sqrt(magnitudes_P[p])
    if bad:
        magnitudes_P[0] = -1.0
    return magnitudes_P


@njit(cache=True, nogil=True)
def cosines_of_gram(gram_PP: Array, cells_F: Array) -> Array:
    """float64 cosines between the cells of the given positions, none of which has magnitude zero."""
    n = len(cells_F)
    length_F = np.empty(n)
    for i in range(n):
        length_F[i] = np.sqrt(np.float64(gram_PP[cells_F[i], cells_F[i]]))
    cosines_FF = np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            cosine = np.float64(gram_PP[cells_F[i], cells_F[j]]) / length_F[i] / length_F[j]
            cosines_FF[i, j] = cosines_FF[j, i] = min(1.0, max(-1.0, cosine))
    return cosines_FF


@njit(cache=True, nogil=True)
def cosines_of_cells(cells_DP: Array, cells_F: Array, magnitudes_P: Array) -> Array:
    """As `cosines_of_gram`; only the foreground is multiplied, at unit length, so that nothing under- or overflows."""
    depth, n = len(cells_DP), len(cells_F)
    unit_DF = np.empty((depth, n), cells_DP.dtype)
    for d in range(depth):
        for i in range(n):
            unit_DF[d, i] = cells_DP[d, cells_F[i]] / magnitudes_P[cells_F[i]]
    return cosines_of_gram(np.dot(unit_DF.T, unit_DF), np.arange(n))
