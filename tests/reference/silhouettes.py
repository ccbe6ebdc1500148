"""Silhouettes from a dense matrix, image by image, as Rousseeuw (1987) words them."""

import numpy as np


def mean_silhouette(labels, distances_NN):
    """Images without a label or alone count 0; a labelling of one cluster is 0."""
    clusters = sorted(set(labels) - {-1})
    total = 0.0
    for i, own in enumerate(labels):
        mates = [j for j, label in enumerate(labels) if label == own and j != i]
        if own == -1 or not mates or len(clusters) < 2:
            continue
        a = np.mean([float(distances_NN[i, j]) for j in mates])
        b = min(
            np.mean([float(distances_NN[i, j]) for j, label in enumerate(labels) if label == other])
            for other in clusters
            if other != own
        )
        total += (b - a) / max(a, b) if max(a, b) > 0 else 0.0
    return total / len(labels)
