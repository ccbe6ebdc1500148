"""From distances (or, for upper bounds, from the true identities) to one label per image.

A label is the number of a cluster, 0 .. C-1, or -1 for an image that is left out of training. `dbscan` labels all
images at once; `merge_stage` goes on from the labels of the stage before; `split_by_attributes` divides clusters by the
annotated attributes of their images. `camera_offsets` is what cameras add to features, to be taken out before.
"""

from reidray.labelling.attribute_split import AttributeSplit, split_by_attributes
from reidray.labelling.camera_offsets import camera_numbers, camera_offsets, camera_sums, centred, without_offsets
from reidray.labelling.cluster_distances import ClusterDistances, measure_clusters, merge_clusters
from reidray.labelling.dbscan import dbscan
from reidray.labelling.ground_truth import labels_from_persons
from reidray.labelling.merging import (
    Criterion,
    choose_merges,
    merge_stage,
    merging_mb,
    most_images,
    stage_distances,
)

__all__ = [
    "AttributeSplit",
    "ClusterDistances",
    "Criterion",
    "camera_numbers",
    "camera_offsets",
    "camera_sums",
    "centred",
    "choose_merges",
    "dbscan",
    "labels_from_persons",
    "measure_clusters",
    "merge_clusters",
    "merge_stage",
    "merging_mb",
    "most_images",
    "split_by_attributes",
    "stage_distances",
    "without_offsets",
]
