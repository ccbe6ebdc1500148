"""Memory rules by their equations: lists of Python floats, one image after the other, one space at a time."""

import math


def unit(vector):
    length = math.sqrt(math.fsum(x * x for x in vector))
    return [x / length for x in vector]


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def moved(centroid, pull, momentum):
    """unit(m c + (1 - m) f)."""
    return unit([momentum * c + (1 - momentum) * f for c, f in zip(centroid, pull, strict=True)])


def centroids(features_NSD, labels_N, num_clusters):
    """The exactly rounded sum of each cluster's features, at unit length."""
    spaces, width = len(features_NSD[0]), len(features_NSD[0][0])
    return [
        [
            unit(
                [
                    math.fsum(float(f[s][d]) for f, y in zip(features_NSD, labels_N, strict=True) if y == cluster)
                    for d in range(width)
                ]
            )
            for s in range(spaces)
        ]
        for cluster in range(num_clusters)
    ]


def sequential(centroids_CSD, features_BSD, labels_B, momentum):
    """The peers' `CM`: for x, y in the batch: c_y <- m c_y + (1 - m) x; c_y <- c_y / |c_y|."""
    memory = [[list(row) for row in rows] for rows in centroids_CSD]
    for image, label in zip(features_BSD, labels_B, strict=True):
        for s, feature in enumerate(image):
            memory[label][s] = moved(memory[label][s], feature, momentum)
    return memory


def hardest(centroids_CSD, features_BSD, labels_B, momentum):
    """The peers' `CM_Hard`: of each cluster's images the least similar one, the first of equals, in every space."""
    memory = [[list(row) for row in rows] for rows in centroids_CSD]
    for cluster, rows in enumerate(centroids_CSD):
        images = [image for image, label in zip(features_BSD, labels_B, strict=True) if label == cluster]
        for s, row in enumerate(rows):
            if images:
                similarities = [dot(row, image[s]) for image in images]
                memory[cluster][s] = moved(row, images[similarities.index(min(similarities))][s], momentum)
    return memory


def weights(raw_BS, labels_B, over):
    """SCWM eq. 8: each weight over the sum of its kind in the batch, or in its own cluster's images of the batch."""
    out = []
    for i, raw_S in enumerate(raw_BS):
        group = [j for j in range(len(raw_BS)) if over == "batch" or labels_B[j] == labels_B[i]]
        totals = [math.fsum(raw_BS[j][s] for j in group) for s in range(len(raw_S))]
        out.append([raw / total if total > 0 else 1 / len(group) for raw, total in zip(raw_S, totals, strict=True)])
    return out


def weighted(centroids_CSD, features_BSD, labels_B, weights_BS, momentum):
    """SCWM eq. 9: for all f of the cluster in the batch, c <- m c + (1 - m) sum w f, at unit length."""
    memory = [[list(row) for row in rows] for rows in centroids_CSD]
    for cluster in set(labels_B):
        own = [i for i, label in enumerate(labels_B) if label == cluster]
        for s, row in enumerate(centroids_CSD[cluster]):
            pull = [math.fsum(weights_BS[i][s] * features_BSD[i][s][d] for i in own) for d in range(len(row))]
            memory[cluster][s] = moved(row, pull, momentum)
    return memory


def weighted_sequence(centroids_CSD, features_BSD, labels_B, weights_BS, momentum):
    """For x, y in the batch: c_y <- m c_y + (1 - m) w x, at unit length; a weight of 0 leaves it alone."""
    memory = [[list(row) for row in rows] for rows in centroids_CSD]
    for image, label, weights_S in zip(features_BSD, labels_B, weights_BS, strict=True):
        for s, (feature, weight) in enumerate(zip(image, weights_S, strict=True)):
            if weight:
                memory[label][s] = moved(memory[label][s], [weight * x for x in feature], momentum)
    return memory
