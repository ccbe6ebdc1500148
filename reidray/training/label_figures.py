"""How an epoch's labels look: figures that need no truth, and, where it is known, how good the labels are.

N = images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reidray.arrays import Ints
from reidray.evaluation import cluster_quality
from reidray.evaluation.criteria import assigned_share, camera_mixing, stability
from reidray.features import Network
from reidray.methods.label_search import known
from reidray.training.context import Context
from reidray.training.evaluation import parsing_quality
from reidray.training.label_tables import LabelSummary


def label_figures(
    context: Context, model: Network, epoch: int, summary: LabelSummary, before: int, persons_N: Ints | None
) -> dict[str, Any]:
    """The figures of an epoch's labels, for the console, the metrics and the history. Called on rank 0.

    Args:
      context: of rank 0.
      model: the network whose features were clustered; its grid maps cells to pixels.
      epoch: the epoch; the bank has its labels.
      summary: what the labeller returned.
      before: the epoch that labelled before this one, -1 for none.
      persons_N: true identities, None where unknown.
    """
    method = context.method
    figures: dict[str, Any] = {"clusters": summary.num_clusters, "outliers": summary.num_outliers}
    labels_N = context.bank.read("train/labels", epoch)
    if (labelled_M := labels_N[labels_N >= 0]).size:
        figures["largest"] = int(np.bincount(labelled_M).max())
    earlier_N = context.bank.read("train/labels", before) if before >= 0 else None
    figures.update(
        known(
            {
                "stability": None if earlier_N is None else stability(labels_N, earlier_N),
                **summary.figures,
                "judged": summary.judged,
                "camera_mixing": camera_mixing(labels_N, context.split("train").source.cameras_N),
                "assigned": assigned_share(labels_N),
            }
        )
    )
    if persons_N is not None:
        quality = cluster_quality(labels_N, persons_N)
        figures.update(ARI=quality.ARI, AMI=quality.AMI, purity=quality.purity)
    of_images = context.split("train").image_tables
    figures.update(method.figures(lambda name: context.bank.read(f"{of_images}/{name}", epoch)))
    truth_Nhw = context.true_masks("train") if method.num_parts else None
    if truth_Nhw is not None:
        parts_NHW = context.bank.read("train/parts", epoch)
        figures["pseudo_mIoU"] = parsing_quality(parts_NHW, truth_Nhw, model.grid, context)
    return figures
