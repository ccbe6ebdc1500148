"""Which images belong together: from distances (or, for upper bounds, from the truth) to one label per image.

A label is the number of a cluster, 0 .. C-1, or -1 for an image that is left out of training.
"""

from reidray.labelling.dbscan import dbscan
from reidray.labelling.ground_truth import labels_from_persons

__all__ = ["dbscan", "labels_from_persons"]
