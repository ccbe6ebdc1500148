"""Memory: the centroids of clusters, how a step's features move them, and how hard each image is.

State is a value: rules return new rows and leave their input alone. Where rows are kept is not this room's business
(`reidray.bank`).
"""

from reidray.memory.centroids import (
    average_update,
    chosen_update,
    cluster_centroids,
    clusters_in_batch,
    hardest_update,
    normalised_weights,
    weighted_sequence,
    weighted_update,
    weights_of_mean_one,
)
from reidray.memory.difficulty import difficulty
from reidray.memory.proxies import camera_proxies, proxy_groups
from reidray.memory.rules import equal_weights, moved_centroids, of_mean_one
from reidray.memory.selection import hardest_images, selective_update

__all__ = [
    "average_update",
    "camera_proxies",
    "chosen_update",
    "cluster_centroids",
    "clusters_in_batch",
    "difficulty",
    "equal_weights",
    "hardest_images",
    "hardest_update",
    "moved_centroids",
    "normalised_weights",
    "of_mean_one",
    "proxy_groups",
    "selective_update",
    "weighted_sequence",
    "weighted_update",
    "weights_of_mean_one",
]
