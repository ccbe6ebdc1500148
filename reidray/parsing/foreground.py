"""Which cells of a feature map show the person: exact one-dimensional k-means of the cells' magnitudes.

SCWM (foreground correction, Sec. 3.2): salient foreground, regular foreground and background are three classes of
magnitude; two classes are the uncorrected first step. One dimension is solved exactly by sorting and prefix sums: no
seeds, no iterations.

Letters: N values, M distinct values among them, P cells of a map (row-major), F foreground cells.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from reidray.arrays import Array, Doubles, Ints
from reidray.compiled import njit

# Two sums of squares closer than this share of the total are one sum of squares: float64 prefix sums are no better.
TIE_SHARE = 1e-13
# A division is left untried where a bound of its sum of squares is so much of the total above the best one: ten times
# what the tie and the rounding of the bound take.
_BOUND_SHARE = 1e-12
_BUCKETS = 4  # per value
_FULL_BUCKET = 16  # values; beyond them insertion begins with wide gaps (Shell, 1959)
_GAP_SHARE = 5, 11  # of the gap before
# Rows of `Sums.prefix_RM`. Index m of the first three: over the m smallest distinct values, how many values there are,
# their sum and the sum of their squares; of the next two: squared distances to their mean of the m smallest and of all
# other distinct values; of the last two: what divisions cost.
_COUNT, _SUM, _SQUARE, _LOWER, _UPPER, _COST, _TRIAL = range(7)


class Sums(NamedTuple):
    """Room for the classes of at most N values, used again and again.

    scores_N, scored_N: values and what they belong to. sorted_N: the values, ascending; after `_add_up` the distinct
    ones. start: of the buckets. prefix_RM: figures of the m smallest distinct values. ranges: of divisions to search.
    """

    scores_N: Doubles
    scored_N: Ints
    sorted_N: Doubles
    scaled_N: Doubles
    bucket_N: Ints
    start: Ints
    prefix_RM: Doubles
    ranges: Ints


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
    if len(values_N) == 0:
        return np.zeros(0, np.int64)
    with np.errstate(over="ignore"):
        if np.isinf(np.ptp(values_N)):
            values_N = values_N / 2  # float64 cannot hold their differences, but those of their halves
    sums = room_for_sums(len(values_N))
    first, second, _ = exact_classes(np.ascontiguousarray(values_N), num_classes, sums)
    return (values_N >= first).astype(np.int64) + (values_N >= second)


@njit(cache=True, nogil=True)
def room_for_sums(n: int) -> Sums:
    """Room for n values."""
    return Sums(
        np.empty(n),
        np.empty(n, np.int64),
        np.empty(n),
        np.empty(n),
        np.empty(n, np.int64),
        np.empty(_BUCKETS * n + 1, np.int64),
        np.empty((7, n + 1)),
        np.empty((128, 4), np.int64),  # one more range for every halving: never more than 64
    )


@njit(cache=True, nogil=True)
def exact_classes(values_N: Array, num_classes: int, sums: Sums) -> tuple[float, float, int]:
    """Compiled core of `classes_1d`: the smallest values of the classes 1 and 2 and how many values are distinct.

    A class that no value is in begins at infinity. At least one value.
    """
    n = len(values_N)
    _sort(values_N, sums)
    m = _add_up(n, sums)
    if m <= num_classes:
        first, second = 1, 2
    elif num_classes == 2:
        first, second = _best_split(m, sums.prefix_RM), m
    else:
        first, second = _best_two_splits(m, sums.prefix_RM, sums.ranges)
    sorted_N = sums.sorted_N
    return sorted_N[first] if first < m else np.inf, sorted_N[second] if second < m else np.inf, m


@njit(cache=True, nogil=True, error_model="numpy")
def _sort(values_N: Array, sums: Sums) -> None:
    """The values, ascending, into sorted_N: by buckets of equal width, then by insertion."""
    n = len(values_N)
    sorted_N, bucket_N, start = sums.sorted_N[:n], sums.bucket_N[:n], sums.start[: _BUCKETS * n + 1]
    lowest = highest = values_N[0]
    for i in range(n):
        lowest = values_N[i] if values_N[i] < lowest else lowest
        highest = values_N[i] if values_N[i] > highest else highest
    per_unit = (len(start) - 2) / (highest - lowest)
    fullest = n
    if 0 < per_unit < np.inf:
        for i in range(n):
            bucket_N[i] = int((values_N[i] - lowest) * per_unit)
        start[:] = 0
        for i in range(n):
            start[bucket_N[i] + 1] += 1
        fullest = 0
        for k in range(len(start) - 1):
            fullest = max(fullest, start[k + 1])
            start[k + 1] += start[k]
        for i in range(n):
            sorted_N[start[bucket_N[i]]] = values_N[i]
            start[bucket_N[i]] += 1
    else:  # all equal, or a spread that float64 cannot divide by
        for i in range(n):
            sorted_N[i] = values_N[i]
    gap = 1 if fullest <= _FULL_BUCKET else (n + 1) // 2
    while gap > 0:
        for i in range(gap, n):
            value, place = sorted_N[i], i
            while place >= gap and sorted_N[place - gap] > value:
                sorted_N[place] = sorted_N[place - gap]
                place -= gap
            sorted_N[place] = value
        gap = max(1, gap * _GAP_SHARE[0] // _GAP_SHARE[1]) if gap > 1 else 0


@njit(cache=True, nogil=True, error_model="numpy")
def _add_up(n: int, sums: Sums) -> int:
    """Figures of the distinct values, of which there are m: the returned number, and those in sorted_N.

    The values are scaled to 0..1 and centred, so that squares neither overflow nor cancel.
    """
    sorted_N, scaled_N, prefix_RM = sums.sorted_N, sums.scaled_N[:n], sums.prefix_RM
    lowest, spread = sorted_N[0], sorted_N[n - 1] - sorted_N[0]
    spread = spread if spread > 0 else 1.0
    for i in range(n):
        scaled_N[i] = (sorted_N[i] - lowest) / spread
    mean = scaled_N.sum() / n
    m = 0
    count, total, square = 0.0, 0.0, 0.0
    for i in range(n):
        if i == 0 or sorted_N[i] != sorted_N[m - 1]:
            prefix_RM[_COUNT, m], prefix_RM[_SUM, m], prefix_RM[_SQUARE, m] = count, total, square
            sorted_N[m] = sorted_N[i]
            m += 1
        centred = scaled_N[i] - mean
        count += 1.0
        total += centred
        square += centred * centred
    prefix_RM[_COUNT, m], prefix_RM[_SUM, m], prefix_RM[_SQUARE, m] = count, total, square

    count_M, sum_M, square_M = prefix_RM[_COUNT, :m], prefix_RM[_SUM, :m], prefix_RM[_SQUARE, :m]
    lower_M, upper_M = prefix_RM[_LOWER, :m], prefix_RM[_UPPER, :m]
    for k in range(m):  # the first is 0 / 0, and never read
        rest = total - sum_M[k]
        lower_M[k] = square_M[k] - sum_M[k] * sum_M[k] / count_M[k]
        upper_M[k] = square - square_M[k] - rest * rest / (count - count_M[k])
    return m


@njit(cache=True, nogil=True, error_model="numpy")
def _squares(prefix_RM: Array, start: int, stop: int) -> float:
    """Sum of squared distances to their mean of the distinct values start..stop-1, repeated values counted."""
    count = prefix_RM[_COUNT, stop] - prefix_RM[_COUNT, start]
    total = prefix_RM[_SUM, stop] - prefix_RM[_SUM, start]
    return prefix_RM[_SQUARE, stop] - prefix_RM[_SQUARE, start] - total * total / count


@njit(cache=True, nogil=True)
def _best_split(m: int, prefix_RM: Array) -> int:
    """The smallest optimal size of the lower of two classes, in distinct values."""
    best = np.inf
    for a in range(1, m):
        best = min(best, prefix_RM[_LOWER, a] + prefix_RM[_UPPER, a])
    limit = best + TIE_SHARE * prefix_RM[_SQUARE, m]
    a = 1
    while prefix_RM[_LOWER, a] + prefix_RM[_UPPER, a] > limit:
        a += 1
    return a


@njit(cache=True, nogil=True)
def _best_two_splits(m: int, prefix_RM: Array, ranges: Array) -> tuple[int, int]:
    """The smallest optimal pair of split positions (a, b) for three classes 0..a-1, a..b-1, b..m-1.

    The best b does not decrease with a, so halving the range of a searches all pairs in O(m log m). Most halves need no
    search: the lower class is no better than in the lowest division of a range, the upper one than in the highest, the
    middle one than what every division has in the middle.
    """
    lower_M, upper_M = prefix_RM[_LOWER], prefix_RM[_UPPER]
    cost_M = prefix_RM[_COST, :m]  # of the best b for every a
    cost_M[:] = np.inf
    best, total = np.inf, prefix_RM[_SQUARE, m]
    ranges[0, 0], ranges[0, 1], ranges[0, 2], ranges[0, 3] = 1, m - 2, 2, m - 1
    waiting = 1
    while waiting > 0:
        waiting -= 1
        a_low, a_high = ranges[waiting, 0], ranges[waiting, 1]
        b_low, b_high = ranges[waiting, 2], ranges[waiting, 3]
        bound = lower_M[a_low] + upper_M[b_high]
        if b_low > a_high:
            bound += _squares(prefix_RM, a_high, b_low)
        if bound > best + _BOUND_SHARE * total:
            continue
        a = (a_low + a_high) // 2
        b, cost_M[a] = _best_second(prefix_RM, a, max(b_low, a + 1), b_high)
        best = min(best, cost_M[a])
        if a > a_low:
            ranges[waiting, 0], ranges[waiting, 1], ranges[waiting, 2], ranges[waiting, 3] = a_low, a - 1, b_low, b
            waiting += 1
        if a < a_high:
            ranges[waiting, 0], ranges[waiting, 1], ranges[waiting, 2], ranges[waiting, 3] = a + 1, a_high, b, b_high
            waiting += 1

    limit = best + TIE_SHARE * total
    a = 1
    while cost_M[a] > limit:
        a += 1
    b = a + 1
    while lower_M[a] + _squares(prefix_RM, a, b) + upper_M[b] > limit:
        b += 1
    return a, b


@njit(cache=True, nogil=True, error_model="numpy")
def _best_second(prefix_RM: Array, a: int, b_low: int, b_high: int) -> tuple[int, float]:
    """The lowest best position b_low..b_high of the second split where the first is at a, and its sum of squares."""
    count, total, square = prefix_RM[_COUNT, a], prefix_RM[_SUM, a], prefix_RM[_SQUARE, a]
    lower, stop = prefix_RM[_LOWER, a], b_high + 1
    count_B, sum_B = prefix_RM[_COUNT, b_low:stop], prefix_RM[_SUM, b_low:stop]
    square_B, upper_B = prefix_RM[_SQUARE, b_low:stop], prefix_RM[_UPPER, b_low:stop]
    cost_B = prefix_RM[_TRIAL, b_low:stop]
    for k in range(len(cost_B)):
        middle = sum_B[k] - total
        cost_B[k] = lower + (square_B[k] - square - middle * middle / (count_B[k] - count)) + upper_B[k]
    best, cost = 0, cost_B[0]
    for k in range(len(cost_B)):
        if cost_B[k] < cost:
            best, cost = k, cost_B[k]
    return b_low + best, cost


@njit(cache=True, nogil=True)
def foreground_cells(
    magnitudes_P: Array,
    width: int,
    num_classes: int,
    log_magnitude: bool,
    centre_prior: float,
    sums: Sums,
    cells_P: Array,
) -> int:
    """Row-major positions of the foreground cells of one map: all classes of the score but the lowest.

    The score is the magnitude (the paper). With `log_magnitude` its logarithm, and cells of zero magnitude are
    background before the k-means. With `centre_prior` c > 0 the magnitude is divided by the map's largest and c times
    the distance from the centre column, in cells, is subtracted from the score. A cell of zero magnitude is never
    foreground, an all-zero map has none, and where all scores are one value every cell that is not zero is foreground.

    Returns:
        How many there are; cells_P begins with them.
    """
    largest = magnitudes_P.max()
    if largest == 0:
        return 0
    scale = largest if centre_prior > 0 else 1.0
    scores_N, scored_N = sums.scores_N, sums.scored_N
    n = 0
    for p in range(len(magnitudes_P)):
        if log_magnitude and magnitudes_P[p] == 0:
            continue
        score = magnitudes_P[p] / scale
        if log_magnitude:
            score = np.log(score)
        if centre_prior > 0:
            score -= centre_prior * abs(p % width - (width - 1) / 2)
        scored_N[n] = p
        scores_N[n] = score
        n += 1

    first, _, distinct = exact_classes(scores_N[:n], num_classes, sums)
    found = 0
    for i in range(n):
        if (distinct == 1 or scores_N[i] >= first) and magnitudes_P[scored_N[i]] > 0:
            cells_P[found] = scored_N[i]
            found += 1
    return found
