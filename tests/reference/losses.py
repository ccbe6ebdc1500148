"""Losses by their equations: one image at a time, in Python floats, sums written out as the papers print them."""

import math


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def softmax(logits):
    exponentials = [math.exp(x) for x in logits]
    return [x / math.fsum(exponentials) for x in exponentials]


def cluster_nce(feature_D, label, centroids_CD, temperature, weight=1.0):
    """-log( w exp(f.c+ / tau) / sum_j exp(f.c_j / tau) ): one term of SCWM eq. 10, Cluster Contrast's with w = 1."""
    exponentials = [math.exp(dot(feature_D, centroid) / temperature) for centroid in centroids_CD]
    return -math.log(weight * exponentials[label] / math.fsum(exponentials))


def separation(features_LD, centroids_LD, temperature):
    """SCWM eq. 11 with the centroids of the image's own cluster."""
    parts, total = len(features_LD), 0.0
    for k in range(parts):
        exponentials = [math.exp(dot(features_LD[k], centroids_LD[j]) / temperature) for j in range(parts)]
        total += math.log(exponentials[k] / sum(exponentials))
    return -total / parts


def parsing(logits_LHW, targets_LHW, visible_HW):
    """SCWM eq. 4, the mean over the cells that were not erased."""
    parts, losses = len(logits_LHW), []
    for y, row in enumerate(visible_HW):
        for x, visible in enumerate(row):
            if visible:
                predicted = softmax([logits_LHW[part][y][x] for part in range(parts)])
                losses.append(-math.fsum(targets_LHW[p][y][x] * math.log(predicted[p]) for p in range(parts)))
    return math.fsum(losses) / len(losses) if losses else 0.0


def diversity(masks_LHW):
    """SCWM eq. 5, 2 / (l (l - 1)) sum_{i=1}^{l-1} sum_{j=i+1}^{l}, the mean over the cells for their sum."""
    parts, height, width = len(masks_LHW), len(masks_LHW[0]), len(masks_LHW[0][0])
    total = 0.0
    for i in range(parts - 1):
        for j in range(i + 1, parts):
            for y in range(height):
                for x in range(width):
                    total += masks_LHW[i][y][x] * masks_LHW[j][y][x]
    return 2 / (parts * (parts - 1)) * total / (height * width)


def part_targets(label, alphas_L, num_clusters):
    """SCWM eq. 13: alpha y + (1 - alpha) uni."""
    return [
        [alpha * (cluster == label) + (1 - alpha) * (1 / num_clusters) for cluster in range(num_clusters)]
        for alpha in alphas_L
    ]


def global_targets(label, alphas_L, part_logits_LC, beta):
    """SCWM eq. 14: beta y + (1 - beta) sum_k w_k q^pk, with w = exp(alpha_k) / sum_k exp(alpha_k)."""
    shares = softmax(alphas_L)
    predictions = [softmax(logits_C) for logits_C in part_logits_LC]
    return [
        beta * (cluster == label)
        + (1 - beta) * math.fsum(share * q_C[cluster] for share, q_C in zip(shares, predictions, strict=True))
        for cluster in range(len(part_logits_LC[0]))
    ]


def cross_entropy(logits_C, targets_C):
    """-sum y log q: one term of SCWM eq. 15."""
    return -math.fsum(y * math.log(q) for y, q in zip(targets_C, softmax(logits_C), strict=True))
