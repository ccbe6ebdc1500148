"""Merging by its definition: every number taken anew from the distances of images, a full sort, sets of images."""

import math

import numpy as np


def euclidean(features_ND):
    """Distances in float64 from differences of rows."""
    rows = np.asarray(features_ND, np.float64)
    return np.array([[math.sqrt(sum((row - other) ** 2)) for other in rows] for row in rows]).reshape(2 * (len(rows),))


def clusters_of(labels_N):
    return [[image for image, label in enumerate(labels_N) if label == c] for c in range(max(labels_N) + 1)]


def between(distances_NN, a, b):
    """All distances from an image of a to an image of b."""
    return [float(distances_NN[x][y]) for x in a for y in b]


def inside(distances_NN, a):
    """Distances of the unordered pairs of images of a."""
    return [float(distances_NN[a[x]][a[y]]) for x in range(len(a)) for y in range(x)]


def distance(distances_NN, a, b, linkage, size_weight, compactness_weight):
    """IHC's eq. (6) with IMD of eq. (4) and CPD of eq. (5), or BUC's criterion."""
    across = between(distances_NN, a, b)
    near = {
        "minimum": min(across),
        "squared_minimum": min(across) ** 2,
        "intermediate": (min(across) + max(across)) / 2,
    }[linkage]
    terms = [
        size_weight * len(cluster) + compactness_weight * (sum(inside(distances_NN, cluster)) / len(cluster))
        for cluster in (a, b)
    ]
    return near + (terms[0] + terms[1])


def stage(distances_NN, labels_N, count, linkage, size_weight, compactness_weight):
    """Labels after `count` merges, numbered by the lowest cluster that went into each."""
    clusters = clusters_of(labels_N)
    walk = sorted(
        (distance(distances_NN, clusters[i], clusters[j], linkage, size_weight, compactness_weight), i, j)
        for i in range(len(clusters))
        for j in range(i + 1, len(clusters))
    )
    groups = [{c} for c in range(len(clusters))]
    for _, i, j in walk:
        if count == 0:
            break
        if j not in groups[i]:
            joined = groups[i] | groups[j]
            for c in joined:
                groups[c] = joined
            count -= 1
    lowest = sorted({min(group) for group in groups})
    return [lowest.index(min(groups[label])) for label in labels_N]
