"""Approximate nearest neighbours: candidates from a few principal components, ordered by exact similarity.

The features of a network lie near a space of far fewer dimensions than they have. Products of rows that are projected
on the first principal components are several times faster where features are wide and images many; with 12,936 images
the exact search in bfloat16 is faster. The best candidates by these products are then ordered by
exact similarity. Neighbours that are not among the candidates are missed; `benchmarks/neighbours.py` measures how many.
"""

from typing import Any

import numpy as np

from reidray.arrays import Doubles, Floats, Ints
from reidray.neighbours.product import Product, fastest_product, float32_product
from reidray.neighbours.search import nearest, propose, settle
from reidray.neighbours.similarity import unit_rows

# N = images, D = feature width, C = components, K = neighbours

_SAMPLE = 16_384  # rows, at most, whose components are taken


def nearest_approximately(
    features_ND: Any, k: int, *, components: int, candidates: int, block: int = 2048, product: Product | None = None
) -> tuple[Ints, Floats]:
    """As `nearest(features_ND, k)`, but some neighbours may be missing; those that are there have exact similarities.

    Args:
      features_ND: unit rows, N >= 1.
      k: neighbours of each row, itself included, >= 1.
      components: principal components that propose, >= 1; from D on the search is exact.
      candidates: rows proposed for each, >= k; more find more.
      block, product: as in `nearest`.

    Errors:
      ValueError for components < 1 or candidates < k, and as `nearest`.

    Returns:
      indices_NK int64 and similarities_NK float32. Which of two candidates that are equal but for rounding is the last
      one may depend on block and threads.
    """
    if components < 1 or candidates < k:
        raise ValueError(
            f"expected components >= 1 and candidates >= k = {k}, got {components} and {candidates}; correct them."
        )
    features_ND = unit_rows(features_ND, name="features")
    if components >= features_ND.shape[1] or candidates >= len(features_ND) or k < 1:
        return nearest(features_ND, k, block=block, product=product)
    product = _Trusted(product or fastest_product())
    projected_NC = _projected(features_ND, components, block)
    proposed = propose(projected_NC, projected_NC, candidates, block=block, product=product)
    return settle(features_ND, features_ND, proposed, k, proposed=candidates, slope=product.slope, block=block)


def _projected(features_ND: Floats, components: int, block: int) -> Floats:
    """Rows in the space of the first components, of second moments: inner products are kept, not variances."""
    from scipy import linalg  # slow to import, and an exact search does without it

    sample = features_ND[:: -(-len(features_ND) // _SAMPLE)].astype(np.float64)
    width = features_ND.shape[1]
    _, directions_DC = linalg.eigh(sample.T @ sample, subset_by_index=[width - components, width - 1])
    directions_CD = np.ascontiguousarray(directions_DC.T, dtype=np.float32)
    projected_NC = np.empty((len(features_ND), components), np.float32)
    for first in range(0, len(features_ND), block):
        some = slice(first, first + block)
        float32_product(features_ND[some], directions_CD, projected_NC[some])
    return projected_NC


class _Trusted:
    """A product whose error is ignored: the candidates are those with the largest products."""

    slope = 0.0

    def __init__(self, product: Product) -> None:
        self.prepare, self.room, self.multiply = product.prepare, product.room, product.multiply

    def lost(self, rows_RD: Floats) -> Doubles:
        return np.zeros(len(rows_RD))

    def gaps(self, lost_Q: Doubles, lost_N: Doubles, width: int) -> Doubles:  # noqa: ARG002  (Product's signature)
        return np.zeros(len(lost_Q))
