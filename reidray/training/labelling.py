"""Labelling: from the features in the memory bank to pseudo-labels, difficulties and centroids in it.

N = images, C = clusters, S = spaces (0 = global, then L parts), D = feature width, K = neighbours, P = cells of a map,
M = members of some clusters, R = images of a block.

`Labeller` is a plain object. `--workers 0` calls it directly; `reidray.actors` makes a pool of actors of it, whose
members parse shards while extraction goes on. An epoch is labelled by one of them (`label`), or by all, which share the
tasks of `reidray.training.block_labelling` (`find`, `cluster`, `centroids`); the numbers are the same, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reidray import dispatch
from reidray.arrays import Array, Floats, Ints
from reidray.bank import MemoryBank
from reidray.config import Settings
from reidray.evaluation.criteria import mean_silhouette, neighbour_agreement
from reidray.labelling import labels_from_persons
from reidray.memory import cluster_centroids
from reidray.neighbours import Found
from reidray.spans import Recording, Spans, spanned
from reidray.training.label_rules import LabelSummary, counted, list_length, serves_twice, write_labels
from reidray.training.reading import Moment, ReadyBlocks, Stretch, clustered_features, similarities_by


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
        self._ready = ReadyBlocks(bank, self._device, settings.run.labeller_cache_mb * 1e6)

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
        parsing = dispatch.parse_grams(
            dispatch.on(grams_BPP, self._device),
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
        return dispatch.as_numpy(parsing.parts_BHW).astype(np.int8)

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
        self._bank.generation = generation
        with self.spans("read"):
            features_NSD = self._bank.read("train/features", version)
        silhouette = global_neighbours_NK = None
        if persons_N is None:
            labels_N, silhouette, global_neighbours_NK = self._clustered(features_NSD)
        else:
            labels_N = labels_from_persons(persons_N)
        num_clusters = counted(labels_N, self._settings, version)
        with self.spans("difficulty"):
            alphas_NL = self._difficulties(features_NSD, global_neighbours_NK)
        with self.spans("centroids"):
            centroids_CSD = cluster_centroids(features_NSD, labels_N, num_clusters)
        with self.spans("write"):
            write_labels(self._bank, version, labels_N, alphas_NL, centroids_CSD)
        with self.spans("criteria"):
            agreement = neighbour_agreement(alphas_NL)
        return LabelSummary(num_clusters, int((labels_N < 0).sum()), silhouette=silhouette, agreement=agreement)

    # ---- the same by tasks that any labeller can do, and do again; they write nothing

    @spanned
    def find(
        self, moment: Moment, space: int, rows: Stretch, known_RK: Floats, columns: list[tuple[Stretch, Floats]]
    ) -> tuple[Found, list[Found]]:
        """What is among the nearest of a block's images in some others, and the other way round.

        Memory: the rows of two blocks, and of as many more as run.labeller_cache_mb allows.

        Args:
          moment: whose features are read.
          space: of the features, or JOINED.
          rows, columns: the blocks, each with the similarities that its lists hold so far; see
            `reidray.neighbours.search_strip`.
        """
        self._bank.generation = moment.generation

        def ready(stretch: Stretch) -> Any:
            with self.spans("read"):
                return self._ready.block(moment, space, stretch)

        return dispatch.search_strip(ready(rows), known_RK, ((ready(other), known_SK) for other, known_SK in columns))

    @spanned
    def cluster(self, moment: Moment, space: int, indices_NK: Ints, similarities_NK: Floats) -> tuple[Ints, float]:
        """Labels of all images from their neighbour lists, -1 for outliers, and their mean silhouette.

        Of the features only rows of close images are read whose similarity is in no list, run.search_block pairs at a
        time.
        """
        self._bank.generation = moment.generation
        self._ready.forget()
        with self.spans("jaccard"):
            distances_NN = dispatch.jaccard_from_lists(
                dispatch.on(np.array(indices_NK), self._device),  # copies: Ray's are read-only, which is compiled anew
                dispatch.on(np.array(similarities_NK), self._device),
                similarities_by(self._bank, moment, space, self._settings.run.search_block),
                **self._jaccard_settings(),
            )
        return self._grouped(distances_NN)

    @spanned
    def centroids(self, moment: Moment, members_M: Ints, labels_M: Ints) -> Floats:
        """Centroids [C, S, D] of some clusters, from the indices of all their images and the clusters 0 .. C - 1 of
        these."""
        self._bank.generation = moment.generation
        features_MSD = self._bank.take("train/features", moment.version, members_M)
        return cluster_centroids(features_MSD, labels_M, int(labels_M.max()) + 1)

    def forget(self) -> None:
        """Lets go of the features that were kept for tasks to come."""
        self._ready.forget()

    # ---- parts of both ways

    def _clustered(self, features_NSD: Floats) -> tuple[Ints, float, Array | None]:
        """Labels, -1 for outliers; their mean silhouette; the nearest images by the global feature, if it was that
        one's neighbours that were clustered."""
        how = self._settings.scwm.cluster_feature
        features_ND = dispatch.on(clustered_features(features_NSD, how=how), self._device)
        indices_NK, similarities_NK = self._nearest(features_ND, list_length(self._settings))
        with self.spans("jaccard"):
            distances_NN = dispatch.jaccard_from_neighbours(
                indices_NK, similarities_NK, features_ND, **self._jaccard_settings()
            )
        return *self._grouped(distances_NN), indices_NK if serves_twice(self._settings) else None

    def _grouped(self, distances_NN: Any) -> tuple[Ints, float]:
        """Labels, -1 for outliers, and their mean silhouette."""
        method = self._settings.method
        with self.spans("dbscan"):
            labels_N = dispatch.as_numpy(dispatch.dbscan(distances_NN, eps=method.eps, min_samples=method.min_samples))
        with self.spans("criteria"):
            return labels_N, mean_silhouette(labels_N, dispatch.as_scipy(distances_NN))

    def _jaccard_settings(self) -> dict[str, Any]:
        method = self._settings.method
        return {"k1": method.k1, "k2": method.k2, "keep": method.eps, "counts_itself": method.k1_counts_itself}

    def _difficulties(self, features_NSD: Floats, global_neighbours_NK: Array | None) -> Floats:
        """alpha of each part (SCWM eq. 7): the image itself is among the k + 1 nearest and does not count.

        global_neighbours_NK: at least k + 1 nearest by the global feature, where they are known already.
        """
        k = self._settings.scwm.difficulty_neighbours + 1

        def neighbours(space: int) -> Array:
            features_ND = dispatch.on(np.ascontiguousarray(features_NSD[:, space]), self._device)
            indices_NK: Array = self._nearest(features_ND, k)[0]
            return indices_NK

        spaces = features_NSD.shape[1]
        if spaces == 1:
            return np.empty((len(features_NSD), 0), np.float32)
        whole_NK = neighbours(0) if global_neighbours_NK is None else global_neighbours_NK[:, :k]
        return dispatch.as_numpy(dispatch.difficulty(whole_NK, (neighbours(space) for space in range(1, spaces))))

    def _nearest(self, features_ND: Array, k: int) -> tuple[Array, Array]:
        self._bank.refuse_if_gone()  # a search may take minutes
        method = self._settings.method
        approximate = (method.search_components, method.search_candidates) if method.search == "approximate" else None
        with self.spans("neighbours"):
            return dispatch.nearest(features_ND, k, approximate=approximate)
