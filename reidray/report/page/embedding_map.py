"""A map of features: images that are alike lie close together. UMAP where it is installed, else t-SNE.

M = images, D = feature width.
"""

from __future__ import annotations

import warnings
from contextlib import suppress

import numpy as np

from reidray.arrays import Floats

_WIDTH = 50  # principal components that the map is made from
_FEW = 5  # images of which no map is drawn


def draw_map(features_MD: Floats, *, umap: bool) -> tuple[str, Floats] | None:
    """Which method it was, and places in 0..1 [M, 2]; None for a handful of images.

    The same features give the same map.
    """
    count = len(features_MD)
    if count <= _FEW:
        return None
    reduced = _principal(features_MD.astype(np.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the two packages' own code
        name, placed = "t-SNE", None
        if umap:
            with suppress(ImportError):
                from umap import UMAP

                name = "UMAP"
                placed = UMAP(n_neighbors=min(15, count - 1), random_state=0, n_jobs=1).fit_transform(reduced)
        if placed is None:
            from sklearn.manifold import TSNE  # takes a second to import

            perplexity = min(30.0, (count - 1) / 3)
            placed = TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(reduced)
    low, high = placed.min(0), placed.max(0)
    return name, ((placed - low) / np.maximum(high - low, 1e-12)).astype(np.float32)


def _principal(features_MD: np.ndarray) -> Floats:
    """The first principal components, by the smaller of the two covariances; signs are fixed."""
    centred_MD = features_MD - features_MD.mean(0)
    left_MM, values, right_DD = np.linalg.svd(centred_MD, full_matrices=False)
    parts = left_MM[:, :_WIDTH] * values[:_WIDTH]
    signs = np.sign(right_DD[:_WIDTH][np.arange(len(right_DD[:_WIDTH])), np.abs(right_DD[:_WIDTH]).argmax(1)])
    return (parts * np.where(signs == 0, 1, signs)).astype(np.float32)
