"""k-reciprocal Jaccard distance by its definition: dense matrices, Python sets, float64."""

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


def jaccard(features_ND, k1, k2):
    """Dense float64 distances; the diagonal is 0."""
    count = len(features_ND)
    similarities = exact_similarities(features_ND, features_ND)
    lists = ranked(similarities, k1)
    half_columns = int(np.around(k1 / 2)) + 1

    def reciprocal(i, columns):
        return {j for j in lists[i][:columns] if i in lists[j][:columns]}

    weights = np.zeros((count, count))
    for i in range(count):
        members = reciprocal(i, k1)
        expanded = set(members)
        for candidate in members:
            half = reciprocal(candidate, half_columns)
            if len(half & members) > 2 / 3 * len(half):
                expanded |= half
        if expanded:
            columns = sorted(expanded)
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
