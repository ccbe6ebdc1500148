"""The verbs of a method: what it decides, and what it decides where it says nothing.

N = images, B = images of a batch or of one BN group of it, U = clusters in the batch, S = vectors of a feature,
D = their width.

A method is one final class in one file. It knows of no workers, no disk and no Ray: the engine (`reidray.training`)
extracts, searches, gathers, places memories, writes checkpoints and survives faults; the method says what is computed.
`label` and `group_losses` are needed. What a method leaves out has an answer here: one feature and one memory called
"features" that does not move, P x K batches, Adam, epochs that all label anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from reidray.arrays import Array, Floats, Ints
from reidray.config import Settings
from reidray.data.sampling import epoch_batches
from reidray.dispatch import as_numpy
from reidray.evaluation.criteria import CYCLE_NEIGHBOURS, camera_cycle
from reidray.features import Network, build_embedder
from reidray.labelling import labels_from_persons
from reidray.methods.label_search import (
    Clustering,
    DbscanSettings,
    Inputs,
    JaccardSettings,
    Labels,
    Neighbours,
    Search,
    Space,
)
from reidray.methods.step import (
    Average,
    BatchLosses,
    Beginning,
    EpochPlan,
    Memory,
    Moments,
    Moved,
    Outputs,
    Targets,
)
from reidray.section import epochs_of


class Method(ABC):
    """What a method decides.

    Attributes:
      num_parts: classes of the part masks that the network predicts, the background counted; 0: it predicts none.
      needs: side data that the packed images must have: "cameras", "attributes".
      features: the names of the features that `to_label` gives.
      tables: rows of images that `label` writes; every worker has all of them, and those of a batch are its targets.
      maps: larger rows of images that `label_images` or `averages` write; a worker reads those of its own images. Where
        samples are tracklets, they are of frames.
      memories: names of the memories.
      has_batch_losses: whether `batch_losses` is to be called: the graphs of all groups of a worker are then alive at
        once.
      unused_parameters: whether some parameters of the network have no gradient in a step.
      keeps_moments: whether the moments of the heads go on with the next labels (`carried_moments`).
      selects_network: whether `Labels.judged` chooses the network that is reported: that of the highest, the last of
        equals. Without it the network of the end is.
      searches: searches of neighbours that `label` asks for one after the other, where each waits for the last one.
      supervision: what the labels come from, in words.
      reported: figures of `Labels` that result.json has, those of the labels that were in use in the end.
    """

    num_parts: int = 0
    needs: frozenset[str] = frozenset()
    features: tuple[str, ...] = ("features",)
    tables: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    memories: tuple[str, ...] = ("features",)
    has_batch_losses: bool = False
    unused_parameters: bool = False
    keeps_moments: bool = False
    selects_network: bool = False
    searches: int = 1
    supervision: str = "unsupervised"
    reported: tuple[str, ...] = ()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    # ---- the network and how it is trained

    def network(self) -> Network:
        """images_B3HW -> outputs (a NamedTuple with B as the first axis of every tensor), drawn from train.seed."""
        model = self.settings.model
        return build_embedder(
            backbone=model.backbone,
            pooling=model.pooling,
            num_parts=0,
            part_pooling=model.part_pooling,
            embedding_layer=model.embedding_layer,
            seed=self.settings.train.seed,
        )

    def modules(self) -> nn.Module | None:
        """Layers that `batch_losses` applies to the whole global batch; they live as long as the run.

        PyTorch's generator is seeded with train.seed before.
        """
        return None

    def schedule(self, num_images: int) -> Sequence[EpochPlan]:  # noqa: ARG002
        """What each epoch of the run does, the first of which must label: here, all relabel, and the rate falls every
        train.lr_every epochs."""
        train = self.settings.train
        every = epochs_of(train.lr_every, train.epochs)
        return [EpochPlan(rate=train.lr_factor ** (epoch // every)) for epoch in range(train.epochs)]

    def optimiser(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        """Of the network's and the modules' parameters that need a gradient, by name: Adam."""
        train = self.settings.train
        return torch.optim.Adam(
            [parameter for _, parameter in parameters], lr=train.learning_rate, weight_decay=train.weight_decay
        )

    def heads_optimiser(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        """Of the parameters of new heads that need a gradient, by name: Adam."""
        train = self.settings.train
        return torch.optim.Adam(
            [parameter for _, parameter in parameters], lr=train.learning_rate, weight_decay=train.weight_decay
        )

    # ---- the clustering stage

    def check_inputs(self, inputs: Inputs) -> list[str]:  # noqa: ARG002
        """Sentences about the data that the run is to say in the beginning.

        Raises:
          ValueError: the images lack what the method needs.
        """
        return []

    def to_label(self, outputs: Outputs) -> dict[str, Tensor]:
        """The features [B, S, D] of a batch, by name."""
        return {"features": outputs.features_BSD.float()}

    def to_label_images(self, pooled: Any) -> dict[str, Tensor]:  # noqa: ARG002
        """What `label_images` needs of each image of a batch, by name; {}: nothing is computed of single images.

        pooled: outputs of the network, or, where samples are tracklets, what its `pool` gave of frames.
        """
        return {}

    def label_images(self, arrays: Mapping[str, Array], device: torch.device) -> dict[str, Array] | None:  # noqa: ARG002
        """Tables of the images of one shard, computed by a labeller from what `to_label_images` gave."""
        return None

    def transform(self, feature: str, rows_GBSD: Tensor, modules: nn.Module | None) -> Tensor:
        """What `Search.transformed` makes of the rows of a feature, graph by graph: [G, B, S, D'], unit length.

        G graphs of B images each. modules: those of `modules` as they are now, in evaluation mode.
        """
        raise NotImplementedError  # no `label` asks for it

    def averages(self, epoch: int) -> Mapping[str, Average]:  # noqa: ARG002
        """Moving averages over epochs of what `label_images` gave, by name."""
        return {}

    @abstractmethod
    def label(self, search: Search) -> Labels:
        """From the features of all images to their labels and the memories."""

    def figures(self, table: Any) -> dict[str, float]:  # noqa: ARG002
        """Figures of what `label_images` gave: `table(name)` is a table of all images."""
        return {}

    # ---- the training stage

    def batches(self, labels_N: Ints, cameras_N: Array, epoch: int) -> Ints:
        """Indices of the images of every global batch of an epoch: int64 [steps, B]; here P x K.

        B is method.clusters_per_batch x method.images_per_cluster. An image may come several times, one without a
        cluster (label -1) may not.
        """
        method, train = self.settings.method, self.settings.train
        return epoch_batches(
            labels_N,
            cameras_N,
            num_clusters=method.clusters_per_batch,
            num_instances=method.images_per_cluster,
            steps=train.steps,
            seed=train.seed,
            epoch=epoch,
            prefer_other_cameras=method.prefer_other_cameras and bool((cameras_N >= 0).any()),
        )

    def targets(self, targets: Targets) -> dict[str, Tensor]:  # noqa: ARG002
        """More tables of the images of a global batch, which need all of it."""
        return {}

    def moved_maps(self, maps: Mapping[str, Tensor], moved: Moved) -> dict[str, Tensor]:  # noqa: ARG002
        """More tables of the images of a group: its `maps`, moved as the images were by the augmentation.

        Of tracklets, rows are the frames that are trained on, those of the first tracklet first.
        """
        return {}

    def heads(self, beginning: Beginning) -> nn.Module | None:  # noqa: ARG002
        """Layers that begin with the labels, such as classifiers with a row a cluster; None where there are none.

        PyTorch's generator is seeded with train.seed and the epoch of the labels before.
        """
        return None

    def carried_moments(self, heads: nn.Module, moments: Moments) -> Moments:  # noqa: ARG002
        """The moments with which new heads begin, from those of the heads before."""
        return {}

    def to_gather(self, outputs: Outputs) -> dict[str, Tensor]:
        """What `batch_losses` and `moved_rows` see of the whole global batch, by name, B first."""
        return {"features": outputs.features_BSD}

    @abstractmethod
    def group_losses(
        self, outputs: Outputs, targets: Targets, memories: Mapping[str, Memory], heads: nn.Module | None, epoch: int
    ) -> dict[str, Tensor]:
        """Terms of the objective by name, each [B], of one BN group; the objective is the sum of their means.

        A group may have no images at all: a worker with fewer groups than another takes part in its exchanges so.
        """

    def batch_losses(
        self,
        gathered: Mapping[str, Tensor],
        targets: Targets,
        memories: Mapping[str, Memory],
        modules: nn.Module | None,
        epoch: int,
    ) -> BatchLosses:
        """Terms that need the whole global batch; gradients reach the network through `gathered`.

        Every worker computes them alike. The memories are seen by the whole batch: `contrast` takes all of its images.
        """
        raise NotImplementedError  # has_batch_losses is False

    def moved_rows(
        self,
        memories: Mapping[str, Memory],  # noqa: ARG002
        gathered: Mapping[str, Tensor],  # noqa: ARG002
        targets: Targets,  # noqa: ARG002
        uniforms_B: Tensor,  # noqa: ARG002
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """How a step moves the memories: by name the rows' places [U] and their new values [U, S, D]; {}: not at all.

        Its input is left alone; places are distinct. `reidray.memory.moved_centroids` has the usual rules.

        gathered: what `to_gather` gave of all images, and the rows of `batch_losses`.
        uniforms_B: a random number in [0, 1) an image, the same on every worker.
        """
        return {}

    # ---- evaluation

    def to_evaluate(self, outputs: Outputs) -> dict[str, Tensor]:
        """What `evaluated` needs of a batch; "masks" among it are the predicted part masks [B, L, H, W]."""
        return {"features": outputs.features_BSD.float()}

    def evaluated(self, arrays: Mapping[str, Array]) -> Floats:
        """The feature that is ranked, unit length [B, D]."""
        return arrays["features"][:, 0]

    def ranked(self, kept: Mapping[str, Tensor]) -> Tensor:
        """What `evaluated` computes, in PyTorch, so that it can be part of an exported graph (`reidray.export`).

        kept: what `to_evaluate` gave. An export compares the two, and refuses a method that overrides only one.
        """
        return kept["features"][:, 0]

    # ---- what the clustering stages of most methods begin with

    def k1(self) -> int:
        """Neighbours that the Jaccard distance reads, the image itself counted."""
        method = self.settings.method
        return method.k1 if method.k1_counts_itself else method.k1 + 1

    def searched(self, search: Search, feature: str = "features") -> str:
        """The feature by which neighbours are searched: a feature as it is, or with method.camera_centring without
        what its camera added."""
        return search.centred(feature, f"{feature}_centred") if self._centres(search) else feature

    def _centres(self, search: Search) -> bool:
        """Whether neighbours are searched by features without their cameras."""
        inputs = search.inputs
        return self.settings.method.camera_centring and inputs.persons_N is None and inputs.num_cameras > 1

    def list_length(self, search: Search) -> int:
        """Neighbours to ask for where lists are clustered: those of k1, and enough for `camera_cycle`."""
        return max(self.k1(), min(CYCLE_NEIGHBOURS, search.count)) if self._centres(search) else self.k1()

    def clustered(self, search: Search, space: Space, neighbours: Neighbours | None = None) -> Clustering:
        """DBSCAN on Jaccard distances in one space; with method.labels=ground_truth the true identities instead.

        With method.camera_centring it has `camera_cycle`, too.

        neighbours: in that space, where they were asked for already.

        Raises:
          ValueError: no cluster was found.
        """
        method = self.settings.method
        if search.inputs.persons_N is not None:
            return Clustering(labels_from_persons(search.inputs.persons_N), None)
        neighbours = neighbours or search.nearest(space, self.list_length(search))
        found = search.cluster(
            neighbours,
            JaccardSettings(k1=method.k1, k2=method.k2, keep=method.eps, counts_itself=method.k1_counts_itself),
            DbscanSettings(eps=method.eps, min_samples=method.min_samples),
        )
        if not (found.labels_N >= 0).any():
            raise ValueError(
                f"epoch {search.inputs.epoch + 1}: all {search.count} images are outliers: raise method.eps (now "
                f"{method.eps}) or lower method.min_samples (now {method.min_samples})"
            )
        if not self._centres(search):
            return found
        nearest_NK = as_numpy(neighbours.indices()[:, :CYCLE_NEIGHBOURS])
        return replace(found, camera_cycle=camera_cycle(nearest_NK, search.inputs.cameras_N))
