"""From sparse distances to clusters, as both search services do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reidray import dispatch
from reidray.evaluation.criteria import mean_silhouette
from reidray.methods.label_search import Clustering, DbscanSettings
from reidray.spans import Spans


@dataclass(frozen=True)
class Grouping:
    """DBSCAN on a labeller.

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
