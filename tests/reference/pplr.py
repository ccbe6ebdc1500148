"""PPLR by its equations: one image at a time, in Python floats, sums written out."""

import math

import numpy as np


def _log_softmax(logits):
    total = math.fsum(math.exp(x) for x in logits)
    return [x - math.log(total) for x in logits]


def _distance(a, b):
    return math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def agreement_smoothed(logits_C, label, agreement):
    """a CE(y, p) + (1 - a) KL(uniform || p)."""
    logs = _log_softmax(logits_C)
    uniform = 1 / len(logits_C)
    divergence = math.fsum(uniform * (math.log(uniform) - log) for log in logs)
    return agreement * -logs[label] + (1 - agreement) * divergence


def label_smoothed(logits_C, label, smoothing):
    """-sum_c t_c log p_c with t = (1 - e) y + e / C."""
    classes = len(logits_C)
    targets = [(1 - smoothing) * (c == label) + smoothing / classes for c in range(classes)]
    return -math.fsum(t * log for t, log in zip(targets, _log_softmax(logits_C), strict=True))


def part_guided(global_logits_C, part_logits_PC, label, agreements_P, beta):
    """CE of the whole's prediction with beta y + (1 - beta) sum_p softmax_p(a) softmax(logits_p)."""
    shares = [math.exp(log) for log in _log_softmax(agreements_P)]
    predictions = [[math.exp(log) for log in _log_softmax(logits)] for logits in part_logits_PC]
    loss = 0.0
    for c, log in enumerate(_log_softmax(global_logits_C)):
        guided = sum(share * prediction[c] for share, prediction in zip(shares, predictions, strict=True))
        loss -= (beta * (c == label) + (1 - beta) * guided) * log
    return loss


def triplet(features_BD, labels_B, anchor):
    """-log softmax of (d_ap, d_an) at d_an: farthest of the own cluster (itself too), nearest of the others."""
    own, others = [], []
    for feature, label in zip(features_BD, labels_B, strict=True):
        distance = max(_distance(features_BD[anchor], feature), 1e-6)
        (own if label == labels_B[anchor] else others).append(distance)
    return -_log_softmax([max(own), min(others)])[1] if others else 0.0


def camera_contrast(feature_D, label, camera, proxies_QD, proxy_labels_Q, proxy_cameras_Q, temperature, num_negatives):
    """Soft target 1 / |positives| over positives and hardest negatives; 0 without a positive."""
    positives, negatives = [], []
    for proxy, proxy_label, proxy_camera in zip(proxies_QD, proxy_labels_Q, proxy_cameras_Q, strict=True):
        logit = math.fsum(x * y for x, y in zip(feature_D, proxy, strict=True)) / temperature
        if proxy_label != label:
            negatives.append(logit)
        elif proxy_camera != camera:
            positives.append(logit)
    if not positives:
        return 0.0
    hardest = sorted(negatives, reverse=True)[:num_negatives]
    logs = _log_softmax(positives + hardest)
    return -math.fsum(logs[: len(positives)]) / len(positives)


def proxies(features_NSD, labels_N, cameras_N):
    """Unit mean of each (cluster, camera), by cluster, then camera."""
    found = []
    for label in sorted({y for y in labels_N if y >= 0}):
        for camera in sorted({c for y, c in zip(labels_N, cameras_N, strict=True) if y == label}):
            members = [
                image
                for image, y, c in zip(features_NSD, labels_N, cameras_N, strict=True)
                if y == label and c == camera
            ]
            rows = []
            for s in range(len(members[0])):
                width = len(members[0][s])
                mean = [math.fsum(float(image[s][d]) for image in members) / len(members) for d in range(width)]
                length = math.sqrt(math.fsum(x * x for x in mean))
                rows.append([x / length for x in mean])
            found.append((rows, label, camera))
    return found


def agreements(global_features_ND, part_features_PND, k):
    """|R_g and R_p| / |R_g or R_p| of the k nearest images, by Euclidean distance of unit features over all images.

    Searched with k + 1; the first, which is taken to be the image itself, is left out.
    """

    def ranked(features_ND):
        squares_NN = ((features_ND[:, None].astype(np.float64) - features_ND[None]) ** 2).sum(-1)
        return np.argsort(squares_NN, axis=1, kind="stable")[:, : k + 1][:, 1:]

    of_global = ranked(global_features_ND)
    scores_NP = np.empty((len(global_features_ND), len(part_features_PND)))
    for p, features_ND in enumerate(part_features_PND):
        for i, (first, second) in enumerate(zip(of_global, ranked(features_ND), strict=True)):
            scores_NP[i, p] = len(np.intersect1d(first, second)) / len(np.union1d(first, second))
    return scores_NP
