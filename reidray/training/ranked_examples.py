"""A few queries of an evaluation to look at: their first ranks, and their predicted parts.

Q = queries, G = gallery images, D = feature width, H, W = cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from reidray.arrays import Array, Doubles, Floats, Ints

RANKS = 10
MASKS = 12


def examples(
    query_QD: Floats,
    gallery_GD: Floats,
    persons: Sequence[Ints],
    cameras: Sequence[Array],
    parts_QHW: Array | None,
    precisions_Q: Doubles,
    *,
    lists: int,
) -> dict[str, Any]:
    """Queries spread over the split and the worst ones, as plain lists that go into a checkpoint's JSON.

    Gallery images of the query's person in the query's camera are left out, as in mAP.

    Args:
      persons, cameras: of the queries, and of the gallery.
      parts_QHW: predicted part of each cell of the queries, or None.
      precisions_Q: average precision of each query, NaN where it has no match.
      lists: how many queries get a ranked list; of the worst ones four times as many.

    Returns: queries, ranked (first gallery indices of each), right (whether each shows the person), masks (queries with
      parts) and parts (rows of cells of each); worst: queries, ranked, right and precisions of the worst ones.
    """

    def listed(queries: Ints) -> dict[str, Any]:
        ranked, right = [], []
        for query in queries:
            same_G = (persons[1] == persons[0][query]) & (cameras[1] == cameras[0][query]) & (cameras[1] >= 0)
            order_G = np.argsort(np.where(same_G, np.inf, -(gallery_GD @ query_QD[query])), kind="stable")
            first = order_G[: min(RANKS, int((~same_G).sum()))]
            ranked.append(first.tolist())
            right.append((persons[1][first] == persons[0][query]).tolist())
        return {"queries": queries.tolist(), "ranked": ranked, "right": right}

    masks = spread(len(query_QD), MASKS) if parts_QHW is not None else np.empty(0, np.int64)
    order_Q = np.argsort(precisions_Q, kind="stable")  # NaN comes last
    worst = order_Q[: min(4 * lists, int(np.isfinite(precisions_Q).sum()))]
    return {
        **listed(spread(len(query_QD), lists)),
        "masks": masks.tolist(),
        "parts": [] if parts_QHW is None else parts_QHW[masks].tolist(),
        "worst": {**listed(worst), "precisions": precisions_Q[worst].tolist()},
    }


def spread(count: int, wanted: int) -> Ints:
    """At most `wanted` indices spread evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))
