"""Nearest neighbours and k-reciprocal Jaccard distances between the images of the training set.

`search` finds exact nearest neighbours (`product` proposes candidates, `candidates` keeps lists of them), `blocks`
finds the same from pairs of blocks, which several processes can share. `jaccard` computes the sparse distance that is
clustered from the lists. `similarity` defines the number that all of them compare. Nothing here holds an N x N matrix.
"""

from reidray.neighbours.approximate import nearest_approximately
from reidray.neighbours.blocks import Block, Found, Lists, merged, no_lists, ready_block, search_strip
from reidray.neighbours.jaccard import jaccard_distances, jaccard_from_lists, jaccard_from_neighbours
from reidray.neighbours.product import fastest_product, product_error
from reidray.neighbours.search import nearest
from reidray.neighbours.similarity import similarities_of_pairs, similarity, unit_rows
from reidray.neighbours.walk import neighbour_walk

__all__ = [
    "Block",
    "Found",
    "Lists",
    "fastest_product",
    "jaccard_distances",
    "jaccard_from_lists",
    "jaccard_from_neighbours",
    "merged",
    "nearest",
    "nearest_approximately",
    "neighbour_walk",
    "no_lists",
    "product_error",
    "ready_block",
    "search_strip",
    "similarities_of_pairs",
    "similarity",
    "unit_rows",
]
