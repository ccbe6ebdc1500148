"""The labeller: what it computes of finished shards, and of the features in the memory bank.

N = images, C = clusters, S = vectors of a feature, D = their width, K = neighbours, M = members of some clusters,
R = images of a block.

`Labeller` is a plain object. `--workers 0` calls it directly; `reidray.actors` makes a pool of actors of it, whose
members look at shards while extraction goes on. An epoch is labelled by one of them (`label`), or by all, which share
the tasks of `reidray.training.block_search` (`find`, `cluster`, `centroids`); the numbers are the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from reidray import dispatch
from reidray.arrays import Array, Floats, Ints
from reidray.bank import MemoryBank
from reidray.config import Settings
from reidray.evaluation.doubts import Inside, Others, look_inside, nearest_others
from reidray.labelling import Criterion, camera_sums, without_offsets
from reidray.memory import cluster_centroids
from reidray.methods import make_method
from reidray.methods.label_search import Clustering, DbscanSettings, Inputs, JaccardSettings, Merging, Space
from reidray.neighbours import Found
from reidray.spans import Recording, Spans, spanned
from reidray.training.graphs import GraphTransform
from reidray.training.grouping import Grouping
from reidray.training.label_tables import LabelSummary, write_labels
from reidray.training.reading import (
    Moment,
    ReadyBlocks,
    Stretch,
    in_space,
    rows_of,
    similarities_by,
    taken_in,
)
from reidray.training.whole_search import WholeSearch


class Labeller:
    """What a method wants done with the images of a shard, and labelling of all images.

    Args:
      settings: the run's; with run.labeller_gpus above 0 it works on this process's GPU.
      bank: where features are and labels go.
      name: what timelines call it.

    Raises:
      ValueError: a GPU is asked for, and there is none or CuPy is missing.
    """

    def __init__(self, settings: Settings, bank: MemoryBank, name: str = "labeller 0") -> None:
        self.spans = Spans(name)
        self._settings = settings
        self._method = make_method(settings)
        self._bank = bank
        self._device = torch.device("cuda" if settings.run.labeller_gpus > 0 else "cpu")
        asked = f"run.labeller_gpus={settings.run.labeller_gpus:g}"
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"{asked}, but PyTorch sees no CUDA device here: set it to 0")
        if self._device.type == "cuda" and find_spec("cupy") is None:
            raise ValueError(f"{asked}, but CuPy is not installed here: install reidray[gpu], or set it to 0")
        self._ready = ReadyBlocks(bank, self._device, settings.run.labeller_cache_mb * 1e6)
        self._grouping = Grouping(settings.run.dense_dbscan_mb, self.spans)

    def trace(self, epoch: int) -> None:
        """Keep every span from now on."""
        self.spans.trace(epoch)

    def traced(self) -> Recording:
        """The spans since `trace`."""
        return self.spans.traced()

    @spanned
    def parse(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Tables of the images of a shard, see `Method.label_images`."""
        found = self._method.label_images(arrays, self._device)
        assert found is not None, "the method has nothing to compute of single images"
        return found

    @spanned
    def label(self, inputs: Inputs, generation: int) -> LabelSummary:
        """Label all images of an epoch and write it to the bank.

        Args:
          inputs: what is known beside the features of inputs.epoch.
          generation: of the workers that ask; what is written for workers that are gone is dropped by the bank.

        Raises:
          ValueError: no cluster was found.
        """
        self._bank.generation = generation
        method = self._settings.method
        approximate = (method.search_components, method.search_candidates) if method.search == "approximate" else None
        search = WholeSearch(
            self._bank,
            inputs,
            self._grouping,
            device=self._device,
            transform=GraphTransform(self._method, inputs.modules, self._device),
            at_once=self._settings.run.search_block,
            approximate=approximate,
            spans=self.spans,
        )
        labels = self._method.label(search)
        with self.spans("write"):
            return write_labels(self._bank, inputs.epoch, labels, self._method)

    # ---- the same by tasks that any labeller can do, and do again

    @spanned
    def find(
        self, moment: Moment, space: Space, rows: Stretch, known_RK: Floats, columns: list[tuple[Stretch, Floats]]
    ) -> tuple[Found, list[Found]]:
        """What is among the nearest of a block's images in some others, and the other way round.

        Memory: the rows of two blocks, and of as many more as run.labeller_cache_mb allows.

        Args:
          moment: whose features are read.
          space: of the features.
          rows, columns: the blocks, each with the similarities that its lists hold so far; see
            `reidray.neighbours.search_strip`.
        """
        self._bank.generation = moment.generation

        def ready(stretch: Stretch) -> Any:
            with self.spans("read"):
                return self._ready.block(moment, space, stretch)

        return dispatch.search_strip(ready(rows), known_RK, ((ready(other), known_SK) for other, known_SK in columns))

    @spanned
    def cluster(
        self,
        moment: Moment,
        space: Space,
        indices_NK: Ints,
        similarities_NK: Floats,
        jaccard: JaccardSettings,
        dbscan: DbscanSettings,
    ) -> Clustering:
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
                k1=jaccard.k1,
                k2=jaccard.k2,
                keep=jaccard.keep,
                counts_itself=jaccard.counts_itself,
            )
        return self._grouping.of(distances_NN, dbscan)

    @spanned
    def centroids(self, moment: Moment, feature: str, members_M: Ints, labels_M: Ints) -> Floats:
        """Means [C, S, D] of a feature over some clusters, from the indices of all their images and the clusters
        0 .. C - 1 of these."""
        self._bank.generation = moment.generation
        features_MSD = self._bank.take(f"train/{feature}", moment.version, members_M)
        return cluster_centroids(features_MSD, labels_M, int(labels_M.max()) + 1)

    @spanned
    def merge(self, moment: Moment, space: Space, labels_N: Ints, count: int, criterion: Criterion) -> Merging:
        """The nearest clusters joined; reads all features of the space."""
        self._bank.generation = moment.generation
        self._ready.forget()
        features_NSD = self._bank.read(f"train/{space.feature}", moment.version)
        return self._grouping.merged(in_space(features_NSD, space.vectors), np.array(labels_N), count, criterion)

    @spanned
    def transform(
        self, moment: Moment, feature: str, images_R: Ints, graph: int, name: str, tensors: Mapping[str, Array]
    ) -> None:
        """Make the rows of a feature anew for the images of whole graphs, and write them to the bank as `name`."""
        self._bank.generation = moment.generation
        rows_RSD = self._bank.take(f"train/{feature}", moment.version, images_R)
        made_RSD = GraphTransform(self._method, tensors, self._device).of(feature, rows_RSD, graph)
        self._bank.put_rows(f"train/{name}", moment.version, images_R, made_RSD)
        self._bank.flush()

    @spanned
    def camera_sums(self, moment: Moment, feature: str, block: Stretch, cameras_R: Ints, count: int) -> Ints:
        """See `reidray.labelling.camera_sums`: of the images of a block, whose cameras are given."""
        self._bank.generation = moment.generation
        features_RSD = self._bank.read(f"train/{feature}", moment.version, None, block.shards)
        return camera_sums(features_RSD, cameras_R, count)

    @spanned
    def centre(
        self, moment: Moment, feature: str, block: Stretch, cameras_R: Ints, offsets_KSD: Floats, name: str
    ) -> None:
        """Write the rows of a block without the shifts of their cameras to the bank as `name`."""
        self._bank.generation = moment.generation
        features_RSD = self._bank.read(f"train/{feature}", moment.version, None, block.shards)
        images_R = np.arange(block.first, block.first + block.count)
        made_RSD = without_offsets(features_RSD, cameras_R, offsets_KSD)
        self._bank.put_rows(f"train/{name}", moment.version, images_R, made_RSD)
        self._bank.flush()

    @spanned
    def look_inside(self, moment: Moment, space: Space, members_M: Ints, labels_M: Ints) -> Inside:
        """See `reidray.evaluation.doubts`: some clusters, from the indices of all their images and the clusters
        0 .. C - 1 of these."""
        self._bank.generation = moment.generation
        return look_inside(taken_in(self._bank, moment, space, members_M), labels_M)

    @spanned
    def nearest_others(
        self,
        moment: Moment,
        space: Space,
        blocks: list[Stretch],
        labels_M: Ints,
        centroids_BD: Floats,
        first: int,
    ) -> list[Others]:
        """See `reidray.evaluation.doubts`: the images of blocks that follow each other, and their clusters, against the
        centroids of clusters first, ..; block after block."""
        self._bank.generation = moment.generation
        found, done = [], 0
        for block in blocks:
            labels_R = labels_M[done : done + block.count]
            found.append(nearest_others(rows_of(self._bank, moment, space, block), labels_R, centroids_BD, first))
            done += block.count
        return found

    def forget(self) -> None:
        """Lets go of the features that were kept for tasks to come."""
        self._ready.forget()
