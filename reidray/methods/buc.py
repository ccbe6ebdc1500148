"""BUC: bottom-up clustering (Lin et al., 2019), the baseline of IHC.

N = images, B = images of a batch, C = clusters, E = width of the embedding.

    every image a cluster, then merging stage by stage     `schedule`, `label`, reidray.labelling.merging
    repelled loss against a lookup table                    `group_losses`, reidray.losses
    lookup table, zero at each stage, then moved            `label`, `moved_rows`

The order of the images is shuffled before the first stage: cluster numbers break ties, and data sets are sorted by
person. A last epoch labels and does not train, so that the network of the last stage is judged as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reidray.arrays import Array, Floats, Ints
from reidray.config import Settings
from reidray.data.sampling import shuffled_batches
from reidray.features import Network, build_embedding_network
from reidray.labelling import Criterion, labels_from_persons, merging_mb, most_images
from reidray.memory import moved_centroids
from reidray.methods.buc_settings import BucSettings
from reidray.methods.label_search import Inputs, Labels, Search, Space
from reidray.methods.method import Method
from reidray.methods.step import EpochPlan, Memory, Outputs, Targets

_ORDER_STREAM = 8  # keeps these random numbers apart from those of other rooms with the same seed


class BUC(Method):
    """Bottom-up clustering."""

    memories = ("lookup",)
    selects_network = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._own = self.section(settings)
        self.criterion = self.criterion_of(self._own)

    @staticmethod
    def section(settings: Settings) -> BucSettings:
        """The settings of the method."""
        own: BucSettings = settings.buc
        return own

    @staticmethod
    def criterion_of(own: BucSettings) -> Criterion:
        """Which clusters are near: the least distance between their images, and their sizes."""
        return Criterion(own.linkage, own.size_weight, 0.0)

    # ---- the network and how it is trained

    def network(self) -> Network:
        """A trunk, a pooling, and a fully connected layer that is trained and not ranked."""
        model, own = self.settings.model, self._own
        return build_embedding_network(
            backbone=model.backbone,
            poolings=(model.pooling,),
            embedding=own.embedding,
            dropout=own.dropout,
            non_local="none",
            seed=self.settings.train.seed,
        )

    def optimiser(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        """SGD with Nesterov's momentum; the trunk learns more slowly than the new layers."""
        own = self._own
        trunk = [parameter for name, parameter in parameters if name.startswith("network.backbone.")]
        new = [parameter for name, parameter in parameters if not name.startswith("network.backbone.")]
        groups: list[dict[str, Any]] = [
            {"params": new},
            {"params": trunk, "lr": own.learning_rate * own.backbone_rate},
        ]
        return torch.optim.SGD(
            groups,
            lr=own.learning_rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=self.settings.train.weight_decay,
        )

    def schedule(self, num_images: int) -> Sequence[EpochPlan]:
        """The first stage, a stage after each merging, and a last labelling."""
        own, slow = self._own, self.settings.train.lr_factor
        plans = [
            EpochPlan(relabel=epoch == 0, rate=1.0 if epoch < own.first_full_rate else slow)
            for epoch in range(own.first_epochs)
        ]
        for _ in range(self.stages(num_images)):
            plans += [
                EpochPlan(relabel=epoch == 0, new_optimiser=epoch == 0, rate=slow) for epoch in range(own.stage_epochs)
            ]
        return [*plans, EpochPlan(trains=False)]

    def merges(self, num_images: int) -> int:
        """Clusters that a stage merges."""
        count = int(self._own.merge_share * num_images)
        if count < 1:
            name = self.settings.method.name
            raise ValueError(
                f"{name}.merge_share={self._own.merge_share:g} of {num_images} images is no merge at all: raise it"
            )
        return count

    def stages(self, num_images: int) -> int:
        """How often clusters are merged: as long as more are left than a stage merges, and least_clusters."""
        count = self.merges(num_images)
        return max(num_images - max(self._own.least_clusters, count), 0) // count

    # ---- the clustering stage

    def check_inputs(self, inputs: Inputs) -> list[str]:
        """See `Method.check_inputs`."""
        if inputs.persons_N is not None:
            return []  # nothing is merged
        count, most = len(inputs.cameras_N), self.settings.run.merge_mb
        needed = merging_mb(count, self.criterion)
        if needed > most:
            raise ValueError(
                f"merging {count:,} images needs {needed:,.0f} MB of distances in a labeller and run.merge_mb allows "
                f"{most:,.0f}, "
                f"with which {most_images(most, self.criterion):,} images fit: raise run.merge_mb on a machine that "
                "has the memory, or train on fewer images"
            )
        stages, merges = self.stages(count), self.merges(count)
        return [
            f"{stages} times {merges:,} clusters are merged, from {count:,} to {count - stages * merges:,}; their "
            f"distances need up to {needed:,.0f} MB in a labeller"
        ]

    def label(self, search: Search) -> Labels:
        """Every image by itself at first; then the nearest clusters of the stage before are merged."""
        inputs, judged = search.inputs, None
        if inputs.persons_N is not None:
            labels_N = labels_from_persons(inputs.persons_N)
        elif inputs.labels_N is None:
            key = np.random.SeedSequence([_ORDER_STREAM, self.settings.train.seed])
            labels_N = np.random.Generator(np.random.Philox(key)).permutation(search.count)
        else:
            last = inputs.epoch + 1 == len(self.schedule(search.count))
            count = 0 if last else self.merges(search.count)
            merged = search.merged(Space("features"), inputs.labels_N, count, self.criterion)
            labels_N, judged = merged.labels_N, merged.silhouette
        lookup_C1E = np.zeros((int(labels_N.max()) + 1, 1, self._own.embedding), np.float32)
        return Labels(labels_N, memories={"lookup": lookup_C1E}, judged=judged)

    def to_label(self, outputs: Outputs) -> dict[str, Tensor]:
        """The pooled feature."""
        return {"features": outputs.features_B1P.float()}

    # ---- the training stage

    def batches(self, labels_N: Ints, cameras_N: Array, epoch: int) -> Ints:  # noqa: ARG002
        """All images with a cluster in a new order; those that fill no batch are left out."""
        settings, labelled = self.settings, np.flatnonzero(labels_N >= 0)
        return labelled[
            shuffled_batches(len(labelled), batch_size=settings.batch_size, seed=settings.train.seed, epoch=epoch)
        ]

    def group_losses(
        self,
        outputs: Outputs,
        targets: Targets,
        memories: Mapping[str, Memory],
        heads: nn.Module | None,  # noqa: ARG002
        epoch: int,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """Repelled loss: the cluster of an image among all of the lookup table."""
        tau = self._own.temperature
        losses_BT = memories["lookup"].contrast(outputs.embeddings_B1E, targets.labels_B, [0], temperature=tau)
        return {"repelled": losses_BT[:, 0]}

    def to_gather(self, outputs: Outputs) -> dict[str, Tensor]:
        """The embeddings as the loss saw them."""
        return {"lookup": outputs.embeddings_B1E}

    def moved_rows(
        self,
        memories: Mapping[str, Memory],
        gathered: Mapping[str, Tensor],
        targets: Targets,
        uniforms_B: Tensor,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Exponential moving average, image after image: V_y <- unit(m V_y + (1 - m) v)."""
        moved = moved_centroids(
            "average",
            memories["lookup"].rows,
            gathered["lookup"],
            targets.labels_B,
            momentum=self._own.lookup_momentum,
            uniforms_B=uniforms_B,
        )
        return {"lookup": moved}

    # ---- evaluation

    def to_evaluate(self, outputs: Outputs) -> dict[str, Tensor]:
        """The pooled feature, before the fully connected layer."""
        return {"features": outputs.features_B1P.float()}

    def evaluated(self, arrays: Mapping[str, Array]) -> Floats:
        """It has unit length."""
        return arrays["features"][:, 0]
