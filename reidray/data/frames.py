"""Which frames of a tracklet a training step takes."""

# B = tracklets of a batch, T = frames taken of each

from __future__ import annotations

import numpy as np

from reidray.arrays import Array, Ints

_STREAM = 10  # keeps these random numbers apart from those of other rooms with the same seed, epoch and step


def draw_frames(counts_B: Array, taken: int, *, seed: int, epoch: int, step: int) -> Ints:
    """Draws frames of each tracklet, without replacement, in their order (BUC's public code: 16 random ones, sorted).

    A tracklet with fewer frames gives all of them, as often as it takes: some, by chance, once more than others.

    Args:
      counts_B: frames of each tracklet, at least 1.
      taken: T.
      seed, epoch, step: the key of the draws.

    Returns:
      Numbers from 0 to count - 1, ascending: int64 [B, T].
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([_STREAM, seed, epoch, step])))
    drawn_BT = np.empty((len(counts_B), taken), np.int64)
    for count, drawn_T in zip(counts_B.tolist(), drawn_BT, strict=True):
        whole = np.repeat(np.arange(count), taken // count)
        drawn_T[:] = np.sort(np.concatenate([whole, generator.choice(count, taken - len(whole), replace=False)]))
    return drawn_BT
