"""Unit rows that cluster as the features of an early epoch do.

A row is identity centre + camera shift + a mode for each (identity, camera) + image noise, in a latent space of 192
dimensions whose spectrum falls as a power, mapped to the feature's width, plus a fifth of the energy in all directions.
At 2048 dimensions two rows of one identity have a cosine of .43 in the mean (5 to 95 %: .15 to .69), of different ones
.27 at the 95th percentile; DBSCAN then finds about as many clusters as identities, with some per cent of outliers.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from reidray.arrays import Floats, Ints

LATENT = 192
IDENTITIES = {4_000: 240, 12_936: 751, 32_621: 1_041, 100_000: 4_000, 200_000: 8_000, 1_000_000: 40_000}
_CAMERA, _MODE, _NOISE, _ISOTROPIC = 0.35, 0.70, 0.70, 0.50
_CHUNK = 8192


class Drawn(NamedTuple):
    """Rows, and whom and which camera they show: float32 [count, width], int64 [count], int64 [count]."""

    features_ND: Floats
    person_N: Ints
    camera_N: Ints


def draw_features(count: int, width: int, *, seed: int, file: Path | None = None) -> Floats:
    """The rows of `draw` alone."""
    return draw(count, width, seed=seed, file=file).features_ND


def draw(count: int, width: int, *, seed: int, file: Path | None = None) -> Drawn:
    """Rows of length 1 in random order.

    Args:
      count: rows; the number of identities is that of the data set of this size (`IDENTITIES`), else count / 25.
      width: columns.
      seed: of everything but the map from the latent space, which all seeds share.
      file: where the rows are kept, as a memory-mapped .npy file; None keeps them in memory.
    """
    rng = np.random.default_rng(seed)
    identities = IDENTITIES.get(count, max(1, count // 25))
    cameras = 6 if count < 20_000 else 15
    spectrum = np.arange(1, LATENT + 1, dtype=np.float32) ** -0.5
    spectrum /= np.linalg.norm(spectrum)
    identity_N = _identities(rng, count, identities)
    camera_N = _cameras(rng, identity_N, identities, cameras)
    centres = rng.standard_normal((identities, LATENT), dtype=np.float32) * spectrum
    shifts = rng.standard_normal((cameras, LATENT), dtype=np.float32) * spectrum
    modes = rng.standard_normal((identities * cameras, LATENT), dtype=np.float32) * spectrum
    to_width = np.random.default_rng(123).standard_normal((LATENT, width), dtype=np.float32)

    rows_ND = _room(count, width, file)
    for start in range(0, count, _CHUNK):
        some = slice(start, min(start + _CHUNK, count))
        identity, camera = identity_N[some], camera_N[some]
        blur = np.exp(rng.normal(0.0, 0.35, (len(identity), 1))).astype(np.float32)
        noise = rng.standard_normal((len(identity), LATENT), dtype=np.float32) * spectrum
        latent = (
            centres[identity]
            + _CAMERA * shifts[camera]
            + _MODE * modes[identity * cameras + camera]
            + _NOISE * blur * noise
        )
        rows = latent @ to_width
        isotropic = rng.standard_normal(rows.shape, dtype=np.float32) / np.sqrt(width)
        rows += _ISOTROPIC * np.linalg.norm(rows, axis=1, keepdims=True) * isotropic
        rows_ND[some] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return Drawn(rows_ND, identity_N, camera_N)


def _cameras(rng: np.random.Generator, identity_N: Ints, identities: int, cameras: int) -> Ints:
    """The camera of each row: each identity passes a few of them."""
    seen = [rng.choice(cameras, min(cameras, 2 + rng.poisson(2.0)), replace=False) for _ in range(identities)]
    sizes = np.array([len(some) for some in seen])
    padded = np.zeros((identities, cameras), np.int64)
    for identity, some in enumerate(seen):
        padded[identity, : len(some)] = some
    return padded[identity_N, (rng.random(len(identity_N)) * sizes[identity_N]).astype(np.int64)]


def _identities(rng: np.random.Generator, count: int, identities: int) -> np.ndarray:
    """The identity of each row: log-normal numbers of images, at least 2 each where there are enough rows."""
    share = np.exp(rng.normal(0.0, 0.6, identities))
    sizes = np.maximum(2, np.round(share / share.sum() * count)).astype(np.int64)
    identity_N = np.repeat(np.arange(identities), sizes)
    if len(identity_N) < count:
        identity_N = np.concatenate([identity_N, rng.integers(0, identities, count - len(identity_N))])
    return rng.permutation(identity_N)[:count]


def _room(count: int, width: int, file: Path | None) -> Floats:
    if file is None:
        return np.empty((count, width), np.float32)
    return np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(count, width))
