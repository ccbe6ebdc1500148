"""Labelling: from the features in the memory bank to pseudo-labels, difficulties and centroids in it.

N = images, C = clusters, S = spaces (0 = global, then L parts), D = feature width, K = neighbours, P = cells of a map.

`Labeller` is a plain object. `--workers 0` calls it directly; `reidray.actors` makes a pool of actors of it, whose
members parse shards while extraction goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reidray import kernels
from reidray.arrays import Array, Floats, Ints
from reidray.bank import Member, MemoryBank, Pending
from reidray.config import Settings
from reidray.evaluation.criteria import mean_silhouette, neighbour_agreement
from reidray.labelling import labels_from_persons
from reidray.memory import cluster_centroids
from reidray.spans import Recording, Spans, spanned


@dataclass(frozen=True)
class LabelSummary:
    """How an epoch's labelling went; criteria (`reidray.evaluation.criteria`) are None where not defined."""

    num_clusters: int
    num_outliers: int
    silhouette: float | None = None
    agreement: float | None = None


class Labeller:
    """Part clustering of a shard's maps, and labelling of all images.

    Args:
      settings: the run's; with run.labeller_gpus above 0 it works on this process's GPU.
      bank: where features are and labels go.
      name: what timelines call it.

    Raises:
      ValueError: a GPU is asked for and there is none.
    """

    def __init__(self, settings: Settings, bank: MemoryBank, name: str = "labeller 0") -> None:
        self.spans = Spans(name)
        self._settings = settings
        self._bank = bank
        self._device = torch.device("cuda" if settings.run.labeller_gpus > 0 else "cpu")
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"run.labeller_gpus={settings.run.labeller_gpus:g}, but PyTorch sees no CUDA device here: set it to 0"
            )

    def trace(self, epoch: int) -> None:
        """Keep every span from now on."""
        self.spans.trace(epoch)

    def traced(self) -> Recording:
        """The spans since `trace`."""
        return self.spans.traced()

    @spanned
    def parse(self, grams_BPP: Floats, map_size: tuple[int, int]) -> Array:
        """Spatial cascaded clustering of a shard's maps of (H, W) cells (SCWM eq. 2): parts int8 [B, H, W]."""
        scwm = self._settings.scwm
        height, width = map_size
        parsing = kernels.parse_grams(
            kernels.on(grams_BPP, self._device),
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
        return kernels.as_numpy(parsing.parts_BHW).astype(np.int8)

    @spanned
    def label(self, version: int, persons_N: Ints | None, generation: int) -> LabelSummary:
        """Label all images of an epoch.

        Args:
          version: the epoch whose features are read and whose labels, difficulties and centroids are written.
          generation: of the workers that ask; what is written for workers that are gone is dropped by the bank.
          persons_N: true identities where method.labels=ground_truth asks for them, else None.

        Raises:
          ValueError: no cluster was found.
        """
        method = self._settings.method
        self._bank.generation = generation
        with self.spans("read"):
            features_NSD = self._bank.read("train/features", version)
        global_neighbours_NK = distances_NN = None
        if persons_N is None:
            labels_N, global_neighbours_NK, distances_NN = self._clustered(features_NSD)
        else:
            labels_N = labels_from_persons(persons_N)
        num_clusters = int(labels_N.max()) + 1
        if num_clusters == 0:
            raise ValueError(
                f"epoch {version}: all {len(labels_N)} images are outliers: raise method.eps (now {method.eps}) or "
                f"lower method.min_samples (now {method.min_samples})"
            )
        with self.spans("difficulty"):
            alphas_NL = self._difficulties(features_NSD, global_neighbours_NK)
        with self.spans("centroids"):
            centroids_CSD = cluster_centroids(features_NSD, labels_N, num_clusters)
        with self.spans("write"):
            self._bank.put_centroids(version, centroids_CSD)
            self._write_rows(version, labels_N, alphas_NL)
        with self.spans("criteria"):
            silhouette = None if distances_NN is None else mean_silhouette(labels_N, kernels.as_scipy(distances_NN))
            agreement = neighbour_agreement(alphas_NL)
        return LabelSummary(num_clusters, int((labels_N < 0).sum()), silhouette=silhouette, agreement=agreement)

    def _clustered(self, features_NSD: Floats) -> tuple[Ints, Array | None, Any]:
        """Labels, -1 for outliers; the nearest images by the global feature, if those were clustered; distances."""
        method, scwm = self._settings.method, self._settings.scwm
        features_ND = kernels.on(clustered_features(features_NSD, how=scwm.cluster_feature), self._device)
        # The lists of the global feature serve twice: the nearest k1 for Jaccard, the nearest k + 1 for eq. 7.
        shared = scwm.cluster_feature == "global" and self._settings.num_parts > 0
        k1 = method.k1 if method.k1_counts_itself else method.k1 + 1
        indices_NK, similarities_NK = self._nearest(
            features_ND, max(k1, scwm.difficulty_neighbours + 1) if shared else k1
        )
        with self.spans("jaccard"):
            distances_NN = kernels.jaccard_from_neighbours(
                indices_NK,
                similarities_NK,
                features_ND,
                k1=method.k1,
                k2=method.k2,
                keep=method.eps,
                counts_itself=method.k1_counts_itself,
            )
        with self.spans("dbscan"):
            labels_N = kernels.as_numpy(kernels.dbscan(distances_NN, eps=method.eps, min_samples=method.min_samples))
        return labels_N, indices_NK if shared else None, distances_NN

    def _difficulties(self, features_NSD: Floats, global_neighbours_NK: Array | None) -> Floats:
        """alpha of each part (SCWM eq. 7): the image itself is among the k + 1 nearest and does not count.

        global_neighbours_NK: at least k + 1 nearest by the global feature, where they are known already.
        """
        k = self._settings.scwm.difficulty_neighbours + 1

        def neighbours(space: int) -> Array:
            features_ND = kernels.on(np.ascontiguousarray(features_NSD[:, space]), self._device)
            indices_NK: Array = self._nearest(features_ND, k)[0]
            return indices_NK

        spaces = features_NSD.shape[1]
        if spaces == 1:
            return np.empty((len(features_NSD), 0), np.float32)
        whole_NK = neighbours(0) if global_neighbours_NK is None else global_neighbours_NK[:, :k]
        return kernels.as_numpy(kernels.difficulty(whole_NK, (neighbours(space) for space in range(1, spaces))))

    def _nearest(self, features_ND: Array, k: int) -> tuple[Array, Array]:
        method = self._settings.method
        approximate = (method.search_components, method.search_candidates) if method.search == "approximate" else None
        with self.spans("neighbours"):
            return kernels.nearest(features_ND, k, approximate=approximate)

    def _write_rows(self, version: int, labels_N: Ints, alphas_NL: Floats) -> None:
        for block, (first, count) in enumerate(self._bank.layout("train")):
            self._bank.put("train/labels", version, block, labels_N[first : first + count])
            self._bank.put("train/alphas", version, block, alphas_NL[first : first + count])
        self._bank.flush()


def clustered_features(features_NSD: Floats, *, how: str) -> Floats:
    """The feature whose neighbours are clustered, unit length [N, D'].

    how: "global"; "concat": the global and the foreground parts' features side by side, each of equal weight.
    """
    if how == "global" or features_NSD.shape[1] == 1:
        return np.ascontiguousarray(features_NSD[:, 0])
    joined_ND = features_NSD[:, :-1].reshape(len(features_NSD), -1)
    return joined_ND / np.linalg.norm(joined_ND, axis=1, keepdims=True)


class LabelService:
    """A pool of labellers: shards are parsed by turns, labelling is done by the first."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = list(members)
        self._parsing: list[Pending] = []

    def parse(self, shard: int, grams_BPP: Floats, map_size: tuple[int, int]) -> Pending:
        """Parts of a shard's maps, on their way."""
        parts = self._members[shard % len(self._members)].submit("parse", grams_BPP, map_size)
        self._parsing = [*(other for other in self._parsing if not other.done()), parts]
        return parts

    def queue(self) -> int:
        """Shards of this caller that are not parsed yet."""
        return sum(not parts.done() for parts in self._parsing)

    def trace(self, epoch: int) -> list[Pending]:
        """Have every labeller keep its spans."""
        return [member.submit("trace", epoch) for member in self._members]

    def traced(self) -> list[Pending]:
        """A `Recording` of each."""
        return [member.submit("traced") for member in self._members]

    def label(self, version: int, persons_N: Ints | None, generation: int) -> LabelSummary:
        """Label an epoch; waits."""
        summary: LabelSummary = self._members[0].submit("label", version, persons_N, generation).result()
        return summary
