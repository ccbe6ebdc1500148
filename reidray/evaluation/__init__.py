"""How good a run is, measured with the true identities and masks, which nothing else in reidray may look at; and, in
`criteria`, what can be told without them.

`ranking` is the retrieval protocol (mAP, CMC, mINP), `clusters` compares pseudo-labels with identities, `masks`
compares predicted parts with true ones. All figures are fractions in 0 .. 1 unless a name says percent.
"""

from reidray.evaluation.clusters import ClusterQuality, cluster_quality
from reidray.evaluation.masks import MaskQuality, confusion, mean_iou, stripes
from reidray.evaluation.ranking import Ranking, rank

__all__ = ["ClusterQuality", "MaskQuality", "Ranking", "cluster_quality", "confusion", "mean_iou", "rank", "stripes"]
