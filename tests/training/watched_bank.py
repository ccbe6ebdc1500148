"""A memory bank whose images lie in shards of very different sizes, and which notes how many rows are read at once."""

import numpy as np

from reidray.bank import BankShard, InProcess, MemoryBank
from reidray.training.labeller import Labeller

SIZES = [13, 1, 30, 7, 25, 44, 2, 38]  # images of the shards
LAYOUT = list(zip(np.cumsum([0, *SIZES[:-1]]).tolist(), SIZES, strict=True))
COUNT, EPOCH = sum(SIZES), 4


class Watched(MemoryBank):
    """Attribute `most`: of rows that were read at once, since it was set to 0."""

    most = 0

    def read(self, *arguments):
        return self._seen(super().read(*arguments))

    def take(self, *arguments):
        return self._seen(super().take(*arguments))

    def _seen(self, rows):
        self.most = max(self.most, len(rows))
        return rows


def empty_bank(shard=lambda: InProcess(BankShard())):
    """Three shards for the training images."""
    return Watched([shard() for _ in range(3)], {"train": LAYOUT})


def put_features(bank, features_NSD, blocks):
    """The features of some shards of images, as those of EPOCH."""
    for block in blocks:
        first, count = LAYOUT[block]
        bank.put("train/features", EPOCH, block, features_NSD[first : first + count])
    bank.flush()


def in_process(settings, bank):
    """A labeller."""
    return InProcess(Labeller(settings, bank))
