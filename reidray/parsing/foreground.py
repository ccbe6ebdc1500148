"""Which cells of a feature map show the person: exact one-dimensional k-means of the cells' magnitudes.

SCWM (foreground correction, Sec. 3.2): salient foreground, regular foreground and background are three classes of
magnitude; two classes are the uncorrected first step. One dimension is solved exactly by sorting and prefix sums: no
seeds, no iterations.

Letters: N values, M distinct values among them, P cells of a map (row-major), F foreground cells.
"""

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from reidray.arrays import Array, Ints

# Two sums of squares closer than this share of the total are one sum of squares: float64 prefix sums are no better.
TIE_SHARE = 1e-13


def classes_1d(values_N: ArrayLike, *, num_classes: int) -> Ints:
    """Optimal k-means classes of numbers.

    Args:
        values_N: finite real numbers [N], N >= 0.
        num_classes: 2 or 3.

    Returns:
        int64 [N], class 0 holding the smallest values. The sum of squared distances to the class means is the least
        possible, up to 1e-13 of the total; among optimal divisions the one whose first class ends earliest, then whose
        second class ends earliest. Equal values share a class. With no more distinct values than classes, each distinct
        value is a class.

    Raises:
        ValueError: values that are not one finite row, or another number of classes.
    """
    values_N = np.asarray(values_N, dtype=np.float64)
    if num_classes not in (2, 3):
        raise ValueError(f"expected num_classes 2 or 3, got {num_classes}; exact k-means is written for these two.")
    if values_N.ndim != 1 or not np.isfinite(values_N).all():
        raise ValueError(
            f"expected one row of finite values, got shape {values_N.shape}; remove NaN and infinity first."
        )
    classes_N = np.zeros(len(values_N), dtype=np.int64)
    exact_classes(values_N, num_classes, classes_N)
    return classes_N


@njit(cache=True, nogil=True)
def exact_classes(values_N: Array, num_classes: int, classes_N: Array) -> int:
    """Compiled core of `classes_1d`: fills classes_N and returns how many distinct values there are."""
    n = len(values_N)
    if n == 0:
        return 0
    order_N = np.argsort(values_N, kind="mergesort")
    lowest = values_N[order_N[0]]
    spread = values_N[order_N[n - 1]] - lowest

    # Row m of the sums: over the m smallest distinct values, how many there are, their sum and the sum of their
    # squares, scaled to 0..1 and centred, so that squares neither overflow nor cancel.
    rank_N = np.empty(n, np.int64)
    sums_M3 = np.zeros((n + 1, 3))
    mean = 0.0
    for i in range(n):
        if spread > 0:
            mean += (values_N[i] - lowest) / spread / n
    m = 0
    for i in range(n):
        value = values_N[order_N[i]]
        if i == 0 or value != values_N[order_N[i - 1]]:
            m += 1
            sums_M3[m] = sums_M3[m - 1]
        rank_N[order_N[i]] = m - 1
        centred = (value - lowest) / spread - mean if spread > 0 else 0.0
        sums_M3[m, 0] += 1.0
        sums_M3[m, 1] += centred
        sums_M3[m, 2] += centred * centred

    if m <= num_classes:
        for i in range(n):
            classes_N[i] = rank_N[i]
        return m
    if num_classes == 2:
        first, second = _best_split(sums_M3, m), m
    else:
        first, second = _best_two_splits(sums_M3, m)
    for i in range(n):
        classes_N[i] = 0 if rank_N[i] < first else (1 if rank_N[i] < second else 2)
    return m


@njit(cache=True, nogil=True)
def _squares(sums_M3: Array, start: int, stop: int) -> float:
    """Sum of squared distances to their mean of the distinct values start..stop-1, repeated values counted."""
    count = sums_M3[stop, 0] - sums_M3[start, 0]
    total = sums_M3[stop, 1] - sums_M3[start, 1]
    return sums_M3[stop, 2] - sums_M3[start, 2] - total * total / count


@njit(cache=True, nogil=True)
def _best_split(sums_M3: Array, m: int) -> int:
    """The smallest optimal size of the lower of two classes, in distinct values."""
    cost_M = np.full(m, np.inf)
    for a in range(1, m):
        cost_M[a] = _squares(sums_M3, 0, a) + _squares(sums_M3, a, m)
    limit = cost_M.min() + TIE_SHARE * sums_M3[m, 2]
    for a in range(1, m):
        if cost_M[a] <= limit:
            return a
    return m - 1


@njit(cache=True, nogil=True)
def _best_two_splits(sums_M3: Array, m: int) -> tuple[int, int]:
    """The smallest optimal pair of split positions (a, b) for three classes 0..a-1, a..b-1, b..m-1.

    The best b does not decrease with a, so halving the range of a searches all pairs in O(m log m).
    """
    cost_M = np.full(m, np.inf)  # of the best b for every a
    waiting = np.empty((128, 4), np.int64)  # ranges of a and of b; the stack grows by one per halving of a's range
    waiting[0, 0], waiting[0, 1], waiting[0, 2], waiting[0, 3] = 1, m - 2, 2, m - 1
    depth = 1
    while depth > 0:
        depth -= 1
        a_low, a_high, b_low, b_high = waiting[depth, 0], waiting[depth, 1], waiting[depth, 2], waiting[depth, 3]
        if a_low > a_high:
            continue
        a = (a_low + a_high) // 2
        lower = _squares(sums_M3, 0, a)
        best_b = max(b_low, a + 1)
        for b in range(max(b_low, a + 1), b_high + 1):
            cost = lower + _squares(sums_M3, a, b) + _squares(sums_M3, b, m)
            if cost < cost_M[a]:
                cost_M[a] = cost
                best_b = b
        waiting[depth, 0], waiting[depth, 1], waiting[depth, 2], waiting[depth, 3] = a_low, a - 1, b_low, best_b
        depth += 1
        waiting[depth, 0], waiting[depth, 1], waiting[depth, 2], waiting[depth, 3] = a + 1, a_high, best_b, b_high
        depth += 1

    limit = cost_M.min() + TIE_SHARE * sums_M3[m, 2]
    for a in range(1, m - 1):
        if cost_M[a] <= limit:
            lower = _squares(sums_M3, 0, a)
            for b in range(a + 1, m):
                if lower + _squares(sums_M3, a, b) + _squares(sums_M3, b, m) <= limit:
                    return a, b
    return m - 2, m - 1


@njit(cache=True, nogil=True)
def foreground_cells(
    magnitudes_P: Array, width: int, num_classes: int, log_magnitude: bool, centre_prior: float
) -> Array:
    """Row-major positions of the foreground cells of one map: all classes of the score but the lowest.

    The score is the magnitude (the paper). With `log_magnitude` its logarithm, and cells of zero magnitude are
    background before the k-means. With `centre_prior` c > 0 the magnitude is divided by the map's largest and c times
    the distance from the centre column, in cells, is subtracted from the score. A cell of zero magnitude is never
    foreground, an all-zero map has none, and where all scores are one value every cell that is not zero is foreground.
    """
    num_cells = len(magnitudes_P)
    largest = magnitudes_P.max()
    if largest == 0:
        return np.empty(0, np.int64)
    scale = largest if centre_prior > 0 else 1.0
    scored_P = np.empty(num_cells, np.int64)
    scores_P = np.empty(num_cells)
    n = 0
    for p in range(num_cells):
        if log_magnitude and magnitudes_P[p] == 0:
            continue
        score = magnitudes_P[p] / scale
        if log_magnitude:
            score = np.log(score)
        if centre_prior > 0:
            score -= centre_prior * abs(p % width - (width - 1) / 2)
        scored_P[n] = p
        scores_P[n] = score
        n += 1

    classes_P = np.empty(n, np.int64)
    distinct = exact_classes(scores_P[:n], num_classes, classes_P)
    cells_F = np.empty(n, np.int64)
    found = 0
    for i in range(n):
        if (distinct == 1 or classes_P[i] > 0) and magnitudes_P[scored_P[i]] > 0:
            cells_F[found] = scored_P[i]
            found += 1
    return cells_F[:found]
