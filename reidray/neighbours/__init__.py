"""Who is close to whom among the images of the training set.

`search` finds exact nearest neighbours in blocks, `jaccard` turns them into the sparse k-reciprocal Jaccard distance
that the labellers cluster, and `similarity` says what number both of them compare. Nothing here holds an N x N matrix.
"""

from reidray.neighbours.jaccard import jaccard_distances, jaccard_from_neighbours
from reidray.neighbours.search import nearest
from reidray.neighbours.similarity import product_error, similarity, unit_rows

__all__ = ["jaccard_distances", "jaccard_from_neighbours", "nearest", "product_error", "similarity", "unit_rows"]
