"""ACRM by its equations (Jia et al., 2021): lists of Python floats, one image after the other."""

import math

from tests.reference.memory import dot, moved, unit


def normed(rows, weight, bias_gain):
    """Norm(BN(W v)) of each row: batch norm over the rows by their own statistics, then unit length.

    weight: rows of W. bias_gain: (gamma, beta) of each output.
    """
    raw = [[dot(w, row) for w in weight] for row in rows]
    columns = []
    for values, (gain, bias) in zip(zip(*raw, strict=True), bias_gain, strict=True):
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
        columns.append([gain * (value - mean) / math.sqrt(variance + 1e-5) + bias for value in values])
    return [unit(list(row)) for row in zip(*columns, strict=True)]


def attention(queries, keys, temperature):
    """Eq. 1 and 2: row i is softmax_k(T theta(v_i) . phi(v_k))."""
    table = []
    for query in queries:
        powers = [math.exp(temperature * dot(query, key)) for key in keys]
        table.append([power / math.fsum(powers) for power in powers])
    return table


def related(rows, table):
    """Eq. 3 and 4: [v_i, sum_j m_ij v_j], brought to unit length."""
    found = []
    for row, shares in zip(rows, table, strict=True):
        seen = [math.fsum(share * other[d] for share, other in zip(shares, rows, strict=True)) for d in range(len(row))]
        found.append(unit([*row, *seen]))
    return found


def hardest(centroids, features, labels, k):
    """Of each cluster the k images least similar to its centroid, hardest first (ties: the first of the batch)."""
    chosen = {}
    for cluster in sorted(set(labels)):
        own = [i for i, label in enumerate(labels) if label == cluster]
        chosen[cluster] = sorted(own, key=lambda i: (dot(features[i], centroids[cluster]), i))[:k]
    return chosen


def selective(centroids, features, labels, k, momentum):
    """Eq. 6: M[l] <- eta M[l] + (1 - eta) q for the hardest k, one after another, each time at unit length."""
    rows = [list(row) for row in centroids]
    for cluster, chosen in hardest(centroids, features, labels, k).items():
        for i in chosen:
            rows[cluster] = moved(rows[cluster], features[i], momentum)
    return rows


def selective_loss(centroids, features, labels, k, temperature):
    """Eq. 7, as a mean over all chosen images of the batch instead of a sum over those of a cluster."""
    losses = []
    for cluster, chosen in hardest(centroids, features, labels, k).items():
        for i in chosen:
            logits = [dot(row, features[i]) / temperature for row in centroids]
            losses.append(math.log(math.fsum(math.exp(x) for x in logits)) - logits[cluster])
    return math.fsum(losses) / len(losses)


def walk(neighbours, starts):
    """From each image to its nearest one that was not visited, else to the next start that was not."""
    order = []
    while len(order) < len(starts):
        near = [other for other in neighbours[order[-1]] if other not in order] if order else []
        order.append(near[0] if near else next(start for start in starts if start not in order))
    return order
