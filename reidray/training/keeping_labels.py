"""What rank 0 keeps of a labelling in the run folder, to look at; nothing here feeds back into training.

N = images or tracklets.
"""

from __future__ import annotations

import time

import numpy as np

from reidray.arrays import Floats, Ints
from reidray.methods.label_search import Space
from reidray.storage.kept_labels import LastLabels, write_labels, write_last
from reidray.training.context import Context, Meter

SAMPLE = 2000
"""Images whose features are kept, so that a map of them can be drawn."""

_LONG_SECONDS = 5.0


def keep_labels(context: Context, epoch: int, *, shown: bool) -> None:
    """The labels of an epoch; of those that the run shows also how sure they are, and features of some images.

    A run shows its last labelling, or, where it chooses the network that it reports, the labels that this network gave.
    """
    labels_N = context.bank.read("train/labels", epoch)
    write_labels(context.run_dir, epoch, labels_N)
    if not shown:
        return
    space = Space(context.method.features[0])
    doubts = context.labellers.judge(epoch, space, labels_N, Patient(context, epoch).reach)
    sample_M = sample_of(len(labels_N))
    features_MD: Floats = context.bank.take(f"train/{space.feature}", epoch, sample_M, space.vectors[0])
    lengths_M1 = np.linalg.norm(features_MD, axis=1, keepdims=True)
    unit_MD = (features_MD / np.maximum(lengths_M1, 1e-12)).astype(np.float32)
    write_last(context.run_dir, LastLabels(epoch, labels_N, doubts, sample_M, unit_MD))


class Patient:
    """Tells how far the doubts are, of runs in which they take long."""

    def __init__(self, context: Context, epoch: int) -> None:
        self._context, self._epoch = context, epoch
        self._began = time.perf_counter()
        self._meter: Meter | None = None

    def reach(self, share: float) -> None:
        """This share is done."""
        if self._meter is None and time.perf_counter() - self._began > _LONG_SECONDS:
            samples = self._context.split("train")
            done = int(share * samples.source.count)
            self._meter = Meter(self._context, "judge", samples.source.count, samples.unit, self._epoch, done=done)
        if self._meter is not None and share < 1:
            self._meter.reach(share)
        elif self._meter is not None:
            self._meter.finish()


def sample_of(count: int) -> Ints:
    """Indices of the images of the sample, spread over all."""
    return np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(np.int64))
