"""What a run says about itself without knowing who is in the images: has training begun to spoil the network?

Silhouette, stability and the share of labelled images can all rise while mAP falls. `camera_cycle` falls then, and is
what the advice goes by. It falls in some runs that go well, too. Where weights are averaged it was wrong or of no use
whenever it spoke, so that such runs say nothing: docs/real-crops.md has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reidray.config import Settings

_LEAST_FALL = 0.05  # of the best: of eighteen runs those with averaging fell by less, see docs/real-crops.md


def advice(settings: Settings, epochs: Sequence[Mapping[str, Any]], count: int) -> str | None:
    """A sentence where fewer images find themselves again from another camera than after an earlier epoch; for runs
    without averaging of weights (train.ema=0) alone.

    The fall must be more than 5 % of the best, and more than a standard error of a share among so many images.

    Args:
      epochs: figures of the epochs so far, each with "epoch" and, where it labelled, "camera_cycle": that of the
        network with which it began. The last may be under way.
      count: training images or tracklets whose camera is known, of which the criterion is a share.

    Returns:
      None where all is well, where fewer than two trained networks were judged, or cameras are not known.
    """
    if settings.train.ema:
        return None
    judged = [
        (figures["epoch"] - 1, figures["camera_cycle"])
        for figures in epochs
        if figures["epoch"] > 0 and figures.get("camera_cycle") is not None
    ]
    if len(judged) < 2:
        return None
    best_epoch, best = max(judged, key=lambda one: one[1])
    epoch, now = judged[-1]
    error = math.sqrt(best * (1 - best) / count)
    if best - now <= max(_LEAST_FALL * best, error):
        return None
    fall = f"camera_cycle {best:.3f}, after epoch {epoch + 1} {now:.3f}"
    return (
        f"caution: images are found again from another camera less often than after epoch {best_epoch + 1} "
        f"({fall}): the network may have begun to get worse; train.ema=0.99 trains more steadily"
    )
