"""k-reciprocal Jaccard distance by its definition: dense matrices and Python sets.

`jaccard` is the formula in float64; `jaccard_in_float32` starts from neighbour lists and rounds where the documentation
says so, to be compared bit for bit.
"""

import math

import numpy as np


def exact_similarities(rows_ND, others_MD):
    """Inner products of float32 rows in float64, rounded once to float32."""
    result = np.empty((len(rows_ND), len(others_MD)), np.float32)
    for i, row in enumerate(rows_ND.astype(np.float64)):
        for j, other in enumerate(others_MD.astype(np.float64)):
            result[i, j] = np.float32(np.sum(row * other))
    return result


def ranked(similarities_NM, k):
    """Columns by falling similarity, then rising index."""
    return [sorted(range(len(row)), key=lambda j, row=row: (-row[j], j))[:k] for row in similarities_NM]


def expanded_sets(lists, k1, counts_itself):
    """Eq. 2 and 3, ascending."""
    columns = k1 if counts_itself else k1 + 1
    half_columns = int(np.around(k1 / 2)) + 1

    def reciprocal(i, columns):
        return {j for j in lists[i][:columns] if i in lists[j][:columns]}

    sets = []
    for i in range(len(lists)):
        members = reciprocal(i, columns)
        expanded = set(members)
        for candidate in members:
            half = reciprocal(candidate, min(half_columns, columns))
            if len(half & members) > 2 / 3 * len(half):
                expanded |= half
        sets.append(sorted(expanded))
    return sets


def jaccard(features_ND, k1, k2, counts_itself=True):
    """Dense float64 distances; the diagonal is 0."""
    count = len(features_ND)
    similarities = exact_similarities(features_ND, features_ND)
    lists = ranked(similarities, k1 if counts_itself else k1 + 1)
    weights = np.zeros((count, count))
    for i, columns in enumerate(expanded_sets(lists, k1, counts_itself)):
        if columns:
            squared = 2.0 - 2.0 * similarities[i, columns].astype(np.float64)
            powers = np.exp(-squared)
            weights[i, columns] = powers / powers.sum()
    if k2 > 1:
        weights = np.stack([weights[lists[i][:k2]].mean(axis=0) for i in range(count)])
    distances = np.empty((count, count))
    for i in range(count):
        for j in range(count):
            shared = np.minimum(weights[i], weights[j]).sum()
            distances[i, j] = max(0.0, 1.0 - shared / (2.0 - shared))
    np.fill_diagonal(distances, 0.0)
    return distances


def jaccard_in_float32(indices_NK, similarities_NK, features_ND, k1, k2, counts_itself=True):
    """Dense float32 distances of neighbour lists: every rounding as documented, every pair compared in full."""
    count = len(features_ND)
    lists = [[int(j) for j in row[: k1 if counts_itself else k1 + 1]] for row in indices_NK]
    known = {
        (i, j): similarity
        for i, row in enumerate(lists)
        for j, similarity in zip(row, similarities_NK[i, : len(row)], strict=True)
    }
    wide_ND = features_ND.astype(np.float64)
    described = []
    for i, columns in enumerate(expanded_sets(lists, k1, counts_itself)):
        values = [
            float(known.get((i, j), known.get((j, i), np.float32(math.fsum(wide_ND[i] * wide_ND[j]))))) for j in columns
        ]
        powers = [math.exp(2.0 * (value - max(values))) for value in values]
        total = 0.0
        for power in powers:
            total += power
        described.append({j: np.float32(power / total) for j, power in zip(columns, powers, strict=True)})
    if k2 > 1:
        described = [_mean([described[j] for j in row[:k2]]) for row in lists]
    one, two, zero = np.float32(1), np.float32(2), np.float32(0)
    distances = np.ones((count, count), np.float32)
    for i in range(count):
        for j in range(count):
            shared = zero
            for column in sorted(described[i].keys() & described[j].keys()):
                shared += min(described[i][column], described[j][column])
            distances[i, j] = zero if i == j else max(zero, one - shared / (two - shared))
    return distances


def _mean(rows):
    totals = {}
    for row in rows:
        for column, weight in row.items():
            totals[column] = totals.get(column, np.float32(0)) + weight
    return {column: total / np.float32(len(rows)) for column, total in totals.items()}
