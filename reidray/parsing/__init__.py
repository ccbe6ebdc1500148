"""Which cells of a feature map show which part of the body, without labels: SCWM's spatial cascaded clustering.

`parse_parts` starts from feature maps, `parse_grams` from the inner products of their cells, which is how an extraction
worker sends them. The steps stand alone: `classes_1d` (exact one-dimensional k-means) and `agglomerate`
(nearest-neighbour chains).
"""

from reidray.parsing.agglomeration import LINKAGES, agglomerate
from reidray.parsing.cascade import Parsing, parse_grams, parse_parts
from reidray.parsing.division import SPACES
from reidray.parsing.foreground import classes_1d
from reidray.parsing.grams import gram_matrices
from reidray.parsing.health import far_pair_share

__all__ = [
    "LINKAGES",
    "SPACES",
    "Parsing",
    "agglomerate",
    "classes_1d",
    "far_pair_share",
    "gram_matrices",
    "parse_grams",
    "parse_parts",
]
