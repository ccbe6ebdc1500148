"""Labelling: from the features in the memory bank to pseudo-labels, difficulties and centroids in it.

N = images, C = clusters, S = spaces (0 = global, then L parts), D = feature width, K = neighbours, P = cells of a map.

`Labeller` is a plain object. `--workers 0` calls it directly; `reidray.actors` makes a pool of actors of it, whose
members parse shards while extraction goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reidray.arrays import Array, Floats, Ints
from reidray.bank import Member, MemoryBank, Pending
from reidray.config import Settings
from reidray.labelling import dbscan, labels_from_persons
from reidray.memory import cluster_centroids, difficulty
from reidray.neighbours import jaccard_from_neighbours, nearest
from reidray.parsing import parse_grams


@dataclass(frozen=True)
class LabelSummary:
    """How an epoch's labelling went."""

    num_clusters: int
    num_outliers: int


class Labeller:
    """Part clustering of a shard's maps, and labelling of all images.

    Args:
      settings: the run's.
      bank: where features are and labels go.
    """

    def __init__(self, settings: Settings, bank: MemoryBank) -> None:
        self._settings = settings
        self._bank = bank

    def parse(self, grams_BPP: Floats, map_size: tuple[int, int]) -> Array:
        """Spatial cascaded clustering of a shard's maps of (H, W) cells (SCWM eq. 2): parts int8 [B, H, W]."""
        scwm = self._settings.scwm
        height, width = map_size
        parsing = parse_grams(
            grams_BPP,
            height=height,
            width=width,
            num_parts=scwm.num_parts,
            max_distance=scwm.max_distance * height,
            linkage=scwm.linkage,
            classes=scwm.foreground_classes,
            log_magnitude=scwm.log_magnitude,
            centre_prior=scwm.centre_prior,
            space=scwm.space,
        )
        return parsing.parts_BHW.astype(np.int8)

    def label(self, version: int, persons_N: Ints | None) -> LabelSummary:
        """Label all images of an epoch.

        Args:
          version: the epoch whose features are read and whose labels, difficulties and centroids are written.
          persons_N: true identities where method.labels=ground_truth asks for them, else None.

        Raises:
          ValueError: no cluster was found.
        """
        method = self._settings.method
        features_ND = self._bank.read("train/features", version, 0)
        neighbours = max(method.k1, self._settings.scwm.difficulty_neighbours + 1)
        indices_NK, similarities_NK = nearest(features_ND, neighbours)
        if persons_N is None:
            distances_NN = jaccard_from_neighbours(
                indices_NK, similarities_NK, features_ND, k1=method.k1, k2=method.k2, keep=method.eps
            )
            labels_N = dbscan(distances_NN, eps=method.eps, min_samples=method.min_samples)
        else:
            labels_N = labels_from_persons(persons_N)
        num_clusters = int(labels_N.max()) + 1
        if num_clusters == 0:
            raise ValueError(
                f"epoch {version}: all {len(labels_N)} images are outliers: raise method.eps (now {method.eps}) or "
                f"lower method.min_samples (now {method.min_samples})"
            )
        features_NSD = self._all_spaces(version, features_ND)
        alphas_NL = self._difficulties(indices_NK, features_NSD)
        self._bank.put_centroids(version, cluster_centroids(features_NSD, labels_N, num_clusters))
        self._write_rows(version, labels_N, alphas_NL)
        return LabelSummary(num_clusters, int((labels_N < 0).sum()))

    def _all_spaces(self, version: int, global_ND: Floats) -> Floats:
        parts = [self._bank.read("train/features", version, 1 + part) for part in range(self._settings.num_parts)]
        return np.stack([global_ND, *parts], axis=1)

    def _difficulties(self, global_neighbours_NK: Ints, features_NSD: Floats) -> Floats:
        """alpha of each part (SCWM eq. 7): the image itself is among the k + 1 nearest and does not count."""
        k = self._settings.scwm.difficulty_neighbours
        alphas = [
            difficulty(
                global_neighbours_NK[:, : k + 1], nearest(np.ascontiguousarray(features_NSD[:, space]), k + 1)[0]
            )
            for space in range(1, features_NSD.shape[1])
        ]
        return np.stack(alphas, axis=1) if alphas else np.empty((len(features_NSD), 0), np.float32)

    def _write_rows(self, version: int, labels_N: Ints, alphas_NL: Floats) -> None:
        for block, (first, count) in enumerate(self._bank.layout("train")):
            self._bank.put("train/labels", version, block, labels_N[first : first + count])
            self._bank.put("train/alphas", version, block, alphas_NL[first : first + count])
        self._bank.flush()


class LabelService:
    """A pool of labellers: shards are parsed by turns, labelling is done by the first."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = list(members)

    def parse(self, shard: int, grams_BPP: Floats, map_size: tuple[int, int]) -> Pending:
        """Parts of a shard's maps, on their way."""
        return self._members[shard % len(self._members)].submit("parse", grams_BPP, map_size)

    def label(self, version: int, persons_N: Ints | None) -> LabelSummary:
        """Label an epoch; waits."""
        summary: LabelSummary = self._members[0].submit("label", version, persons_N).result()
        return summary
