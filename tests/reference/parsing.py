"""Spatial cascaded clustering written slowly and plainly: loops, cells instead of inner products, SciPy's linkage."""

import itertools

import numpy as np
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.spatial.distance import squareform


def squared_error(values, classes):
    """Sum of squared distances to the class means."""
    return sum(((values[classes == c] - values[classes == c].mean()) ** 2).sum() for c in np.unique(classes))


def brute_classes(values, num_classes):
    """k-means classes of numbers by trying all divisions of the distinct values, the earliest of the best."""
    values = np.asarray(values, dtype=np.float64)
    distinct = np.unique(values)
    if len(distinct) <= num_classes:
        return np.searchsorted(distinct, values)
    tolerance = 1e-12 * ((values - values.mean()) ** 2).sum()
    best, best_classes = np.inf, None
    for splits in itertools.combinations(range(1, len(distinct)), num_classes - 1):
        classes = np.searchsorted(distinct[list(splits)], values, side="right")
        error = squared_error(values, classes)
        if error < best - tolerance:
            best, best_classes = error, classes
    return best_classes


def foreground(cells_PD, width, classes, log_magnitude, centre_prior):
    magnitude = np.sqrt((cells_PD**2).sum(axis=1))
    found = np.zeros(len(magnitude), bool)
    if magnitude.max() == 0:
        return found
    scored = np.flatnonzero(magnitude > 0) if log_magnitude else np.arange(len(magnitude))
    score = magnitude[scored] / (magnitude.max() if centre_prior else 1.0)
    if log_magnitude:
        score = np.log(score)
    if centre_prior:
        score = score - centre_prior * np.abs(scored % width - (width - 1) / 2)
    found[scored] = brute_classes(score, classes) > 0 if len(np.unique(score)) > 1 else True
    return found & (magnitude > 0)


def cut(distances, count, linkage):
    """Clusters after the lowest len - count merges of SciPy's tree: always `count` of them."""
    n = len(distances)
    if n <= count:
        return np.arange(n)
    tree = scipy_linkage(squareform(distances, checks=False), linkage)
    clusters = {i: [i] for i in range(n)}
    for merge in range(n - count):
        left, right = int(tree[merge, 0]), int(tree[merge, 1])
        clusters[n + merge] = clusters.pop(left) + clusters.pop(right)
    labels = np.empty(n, int)
    for label, members in enumerate(sorted(clusters.values(), key=min)):
        labels[members] = label
    return labels


def lloyd(units, count, start):
    """Ordinary k-means of unit vectors from farthest-point centres."""
    centres = [units[start]]
    while len(centres) < count:
        nearest = np.min([((units - c) ** 2).sum(axis=1) for c in centres], axis=0)
        if nearest.max() <= 1e-6:
            break
        centres.append(units[int(nearest.argmax())])
    centres = np.array(centres)
    labels = None
    for _ in range(50):
        distance = ((units[:, None] - centres[None]) ** 2).sum(axis=2)
        new = distance.argmin(axis=1)
        assert len(np.unique(new)) == len(centres), "the reference does not know empty clusters"
        if labels is not None and (new == labels).all():
            break
        labels = new
        centres = np.array([units[labels == c].mean(axis=0) for c in range(len(centres))])
    return labels


def parse(
    cells_DHW,
    *,
    num_parts,
    max_distance,
    linkage="average",
    classes=3,
    log_magnitude=False,
    centre_prior=0.0,
    space="forbid",
):
    """Parts [H, W], foreground count and far share of one float64 map."""
    depth, height, width = cells_DHW.shape
    cells = cells_DHW.reshape(depth, -1).T
    found = np.flatnonzero(foreground(cells, width, classes, log_magnitude, centre_prior))
    if len(found) == 0:
        return np.full((height, width), num_parts - 1), 0, 0.0
    length = np.sqrt((cells[found] ** 2).sum(axis=1))
    units = cells[found] / length[:, None]
    if space == "rows":
        return of_equal_rows(found, height, width, num_parts, max_distance)
    if space == "kmeans":
        labels = lloyd(units, min(num_parts - 1, len(found)), int(length.argmax()))
    else:
        cosines = units @ units.T
        eta = max_distance if space == "forbid" else np.inf
        labels = cut(corrected_distances((cosines + cosines.T) / 2, found, width, eta), num_parts - 1, linkage)
    return in_order(labels, found, height, width, num_parts, max_distance)


def parse_gram(
    gram_PP, *, height, width, num_parts, max_distance, linkage, classes=3, log_magnitude=False, centre_prior=0.0
):
    """As `parse`, from inner products, ties included: cosines as g / |x| / |y|."""
    magnitude = np.sqrt(np.diag(gram_PP))
    found = np.flatnonzero(foreground(magnitude[:, None], width, classes, log_magnitude, centre_prior))
    cosines = np.zeros((len(found), len(found)))
    for i, j in itertools.product(range(len(found)), repeat=2):
        if j < i:
            cosine = gram_PP[found[i], found[j]] / magnitude[found[i]] / magnitude[found[j]]
            cosines[i, j] = cosines[j, i] = min(1.0, max(-1.0, cosine))
    labels = cut(corrected_distances(cosines, found, width, max_distance), num_parts - 1, linkage)
    return in_order(labels, found, height, width, num_parts, max_distance)


def far_pairs(found, width, max_distance):
    place = np.stack([found // width, found % width], axis=1).astype(float)
    return np.sqrt(((place[:, None] - place[None]) ** 2).sum(axis=2)) >= max_distance


def corrected_distances(cosines, found, width, max_distance):
    distance = np.sqrt(np.maximum(0, 2 - 2 * cosines))
    np.fill_diagonal(distance, 0)
    largest = distance.max() if len(distance) else 0
    return np.where(far_pairs(found, width, max_distance), 1000 * (largest if largest > 0 else 1.0), distance)


def of_equal_rows(found, height, width, num_parts, max_distance):
    """Parts [H, W] of a foreground that is cut at fixed heights of the map, foreground count and far share."""
    parts = np.full((height, width), num_parts - 1)
    for cell in found:
        row, column = divmod(int(cell), width)
        parts[row, column] = max(part for part in range(num_parts - 1) if part * height / (num_parts - 1) <= row)
    labels = parts.reshape(-1)[found]
    return parts, len(found), far_share(labels, found, width, max_distance)


def in_order(labels, found, height, width, num_parts, max_distance):
    """Parts [H, W] from top to bottom, foreground count and far share."""
    parts = np.full(height * width, num_parts - 1)
    clusters = [found[labels == label] for label in np.unique(labels)]
    clusters.sort(key=lambda members: (np.mean(members // width), members.min()))
    for part, members in enumerate(clusters):
        parts[members] = part
    return parts.reshape(height, width), len(found), far_share(labels, found, width, max_distance)


def far_share(labels, found, width, max_distance):
    far = far_pairs(found, width, max_distance)
    pairs = [(i, j) for i, j in itertools.combinations(range(len(found)), 2) if labels[i] == labels[j]]
    return np.mean([far[i, j] for i, j in pairs]) if pairs else 0.0


def silhouettes(batch, depth, height, width, seed):
    """Maps that look like a standing person: large magnitudes in the middle columns, one direction a body part."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    maps = np.empty((batch, depth, height, width))
    for b in range(batch):
        top, bottom = random.uniform(0, height * 0.15), random.uniform(height * 0.85, height)
        share = (rows - top) / (bottom - top)
        centre = (width - 1) / 2 + random.uniform(-0.7, 0.7)
        body = (share >= 0) & (share <= 1) & (np.abs(columns - centre) < width * np.where(share < 0.15, 0.15, 0.28))
        part = np.digitize(share, [0.15, 0.55])
        looks = np.maximum(0, random.standard_normal((4, depth)))
        looks[3] *= 0.3
        cells = looks[np.where(body, part, 3)] * np.exp(0.3 * random.standard_normal((height, width, 1)))
        maps[b] = np.moveaxis(cells + 0.15 * np.abs(random.standard_normal(cells.shape)), 2, 0)
    return maps
