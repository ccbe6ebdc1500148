"""What rank 0 keeps of a labelling in the run folder, to look at; nothing here feeds back into training.

N = images or tracklets.
"""

from __future__ import annotations

import numpy as np

from reidray.arrays import Floats, Ints
from reidray.evaluation.doubts import Doubts
from reidray.methods.label_search import Space
from reidray.storage.kept_labels import LastLabels, write_labels, write_last
from reidray.training.context import Context, Meter

SAMPLE = 2000
"""Images whose features are kept, so that a map of them can be drawn."""

_MANY = 100_000  # images or tracklets, from which on it is said how far their doubts are


def keep_labels(context: Context, epoch: int, *, shown: bool) -> None:
    """The labels of an epoch; of those that the run shows also how sure they are, and features of some images.

    A run shows its last labelling, or, where it chooses the network that it reports, the labels that this network gave.
    """
    labels_N = context.bank.read("train/labels", epoch)
    write_labels(context.run_dir, epoch, labels_N)
    if not shown:
        return
    space = Space(context.method.features[0])
    doubts = _judged(context, epoch, space, labels_N)
    sample_M = sample_of(len(labels_N))
    features_MD: Floats = context.bank.take(f"train/{space.feature}", epoch, sample_M, space.vectors[0])
    lengths_M1 = np.linalg.norm(features_MD, axis=1, keepdims=True)
    unit_MD = (features_MD / np.maximum(lengths_M1, 1e-12)).astype(np.float32)
    write_last(context.run_dir, LastLabels(epoch, labels_N, doubts, sample_M, unit_MD))


def _judged(context: Context, epoch: int, space: Space, labels_N: Ints) -> Doubts:
    if len(labels_N) < _MANY:
        return context.labellers.judge(epoch, space, labels_N)
    meter = Meter(context, "judge", len(labels_N), context.split("train").unit, epoch)
    doubts = context.labellers.judge(epoch, space, labels_N, meter.reach)
    meter.finish()
    return doubts


def sample_of(count: int) -> Ints:
    """Indices of the images of the sample, spread over all."""
    return np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(np.int64))
