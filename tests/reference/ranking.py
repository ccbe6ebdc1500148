"""Market-1501's protocol by its definition: sort the gallery for each query, walk down the list."""

from fractions import Fraction

from tests.reference.jaccard import exact_similarities


def ranking(query, gallery, query_persons, gallery_persons, query_cameras, gallery_cameras):
    """(mAP, mAP_trapezoid, cmc, mINP, valid queries), the means exact."""
    similarities = exact_similarities(query, gallery)
    steps, trapezoids, first_ranks, inverse_penalties = [], [], [], []
    for q in range(len(query)):
        order = []
        for g in sorted(range(len(gallery)), key=lambda g: (-similarities[q, g], g)):
            same_person = gallery_persons[g] == query_persons[q]
            same_camera = gallery_cameras[g] == query_cameras[q] and query_cameras[q] >= 0
            if gallery_persons[g] >= 0 and not (same_person and same_camera):
                order.append(bool(same_person))
        if True not in order:
            continue
        step = trapezoid = Fraction(0)
        hits, previous_precision = 0, Fraction(1)
        for rank, hit in enumerate(order, start=1):
            hits += hit
            precision = Fraction(hits, rank)
            if hit:
                step += precision
                trapezoid += (precision + previous_precision) / 2
                last = rank
            previous_precision = precision
        steps.append(step / hits)
        trapezoids.append(trapezoid / hits)
        first_ranks.append(order.index(True) + 1)
        inverse_penalties.append(Fraction(hits, last))
    valid = len(steps)
    if valid == 0:
        return None
    cmc = [sum(first <= r for first in first_ranks) / valid for r in range(1, 51)]
    return (
        float(sum(steps) / valid),
        float(sum(trapezoids) / valid),
        cmc,
        float(sum(inverse_penalties) / valid),
        valid,
    )
