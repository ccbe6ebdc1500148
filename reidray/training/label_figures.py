"""How an epoch's labels look: figures that need no truth, and, where it is known, how good the labels are.

N = images, H, W = cells of a map, h, w = pixels of a true mask.
"""

from __future__ import annotations

from typing import Any

from reidray.arrays import Ints
from reidray.evaluation import cluster_quality
from reidray.evaluation.criteria import assigned_share, camera_mixing, stability
from reidray.features import Embedder
from reidray.parsing import far_pair_share
from reidray.storage.shards import read_masks
from reidray.training.context import Context
from reidray.training.evaluation import parsing_quality
from reidray.training.label_rules import LabelSummary


def label_figures(
    context: Context, model: Embedder, epoch: int, summary: LabelSummary, persons_N: Ints | None
) -> dict[str, Any]:
    """What is told and kept of an epoch's labels; rank 0 asks.

    Args:
      context: of rank 0.
      model: that the labels are of; its grid says which pixels a cell sees.
      epoch: whose labels lie in the bank.
      summary: of the labeller.
      persons_N: true identities, None where unknown.
    """
    figures: dict[str, Any] = {"clusters": summary.num_clusters, "outliers": summary.num_outliers}
    labels_N = context.bank.read("train/labels", epoch)
    figures.update(_criteria(context, labels_N, epoch, summary))
    if persons_N is not None:
        quality = cluster_quality(labels_N, persons_N)
        figures.update(ARI=quality.ARI, AMI=quality.AMI, purity=quality.purity)
    if context.settings.num_parts:
        scwm = context.settings.scwm
        parts_NHW = context.bank.read("train/parts", epoch)
        eta = scwm.max_distance * parts_NHW.shape[1]
        shares_N = far_pair_share(parts_NHW, num_parts=scwm.num_parts, max_distance=eta)
        figures["far_pairs"] = 100 * float(shares_N.mean())
        truth_Nhw = read_masks(f"{context.packed}/train")
        if truth_Nhw is not None:
            figures["pseudo_mIoU"] = parsing_quality(parts_NHW, truth_Nhw, model.grid, context.settings)
    return figures


def _criteria(context: Context, labels_N: Ints, epoch: int, summary: LabelSummary) -> dict[str, float]:
    """What tells without the truth how labelling goes; criteria that are not defined here are left out."""
    found = {
        "stability": stability(labels_N, context.bank.read("train/labels", epoch - 1)) if epoch else None,
        "silhouette": summary.silhouette,
        "agreement": summary.agreement,
        "camera_mixing": camera_mixing(labels_N, context.split("train").source.cameras_N),
        "assigned": assigned_share(labels_N),
    }
    return {name: value for name, value in found.items() if value is not None}
