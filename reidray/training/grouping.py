"""From sparse distances to clusters, as both search services do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reidray import dispatch
from reidray.arrays import Floats, Ints
from reidray.evaluation.criteria import centroid_silhouette, mean_silhouette
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
