"""How good a run is.

With true identities or masks: `ranking` is the retrieval protocol (mAP, CMC, mINP), `clusters` compares pseudo-labels
with identities, `masks` compares predicted parts with true ones. Without them: `criteria` judges a labelling. All
figures are fractions unless a name says percent.
"""

from reidray.evaluation.clusters import ClusterQuality, cluster_quality
from reidray.evaluation.masks import MaskQuality, confusion, mean_iou, stripes
from reidray.evaluation.ranking import Ranking, num_answerable, rank

__all__ = [
    "ClusterQuality",
    "MaskQuality",
    "Ranking",
    "cluster_quality",
    "confusion",
    "mean_iou",
    "num_answerable",
    "rank",
    "stripes",
]
