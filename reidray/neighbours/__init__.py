"""Who is close to whom among the images of the training set.

`search` finds exact nearest neighbours in blocks (`product` proposes, `candidates` keeps lists), `jaccard` turns them
into the sparse k-reciprocal Jaccard distance that the labellers cluster, and `similarity` says what number both of them
compare. Nothing here holds an N x N matrix.
"""

from reidray.neighbours.approximate import nearest_approximately
from reidray.neighbours.jaccard import jaccard_distances, jaccard_from_neighbours
from reidray.neighbours.product import product_error
from reidray.neighbours.search import nearest
from reidray.neighbours.similarity import similarity, unit_rows

__all__ = [
    "jaccard_distances",
    "jaccard_from_neighbours",
    "nearest",
    "nearest_approximately",
    "product_error",
    "similarity",
    "unit_rows",
]
