"""From sparse distances to clusters, as both search services do it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from reidray import dispatch
from reidray.arrays import Array, Floats, Ints
from reidray.evaluation.criteria import CYCLE_NEIGHBOURS, camera_cycle, centroid_silhouette, mean_silhouette
from reidray.labelling import Criterion, merge_stage, stage_distances
from reidray.methods.label_search import Clustering, DbscanSettings, Merging
from reidray.spans import Spans


@dataclass(frozen=True)
class Grouping:
    """DBSCAN and merging on a labeller.

    dense_mb: memory for a dense matrix that cuML may take on a GPU, in MB. spans: of the labeller.
    """

    dense_mb: float
    spans: Spans

    def of(self, distances_NN: Any, dbscan: DbscanSettings) -> Clustering:
        """Labels, -1 for outliers, and their mean silhouette."""
        with self.spans("dbscan"):
            labels_N = dispatch.as_numpy(
                dispatch.dbscan(distances_NN, eps=dbscan.eps, min_samples=dbscan.min_samples, dense_mb=self.dense_mb)
            )
        with self.spans("criteria"):
            return Clustering(labels_N, mean_silhouette(labels_N, dispatch.as_scipy(distances_NN)))

    def merged(self, features_ND: Floats, labels_N: Ints, count: int, criterion: Criterion) -> Merging:
        """See `reidray.methods.label_search.Search.merged`."""
        with self.spans("criteria"):
            silhouette = centroid_silhouette(features_ND, labels_N)
        if count == 0:
            return Merging(labels_N, silhouette)
        with self.spans("distances"):
            distances = stage_distances(features_ND, labels_N, criterion=criterion)
        with self.spans("merge"):
            return Merging(merge_stage(distances, count, criterion=criterion), silhouette)


def with_cycles(found: Clustering, indices_NK: Any, cameras_N: Array) -> Clustering:
    """A clustering with `camera_cycle` of the neighbours that it was made from."""
    nearest_NK = dispatch.as_numpy(indices_NK[:, :CYCLE_NEIGHBOURS])
    return replace(found, camera_cycle=camera_cycle(nearest_NK, cameras_N))
