"""PPLR: part-based pseudo label refinement (Cho et al., 2022, arXiv:2203.14675), without and with cameras.

N = images, B = images of a batch, C = clusters, P = stripes, S = 1 + P vectors (0 = global), D = feature width,
Q = proxies (a cluster under a camera).

    clusters of the global feature             `label`
    cross agreement of global and stripes      `label`, reidray.memory.difficulty
    classifiers, their rows from centroids     `Classifiers`, `heads`
    agreement-aware label smoothing            `_stripe_loss`, reidray.losses.pplr
    part-guided label refinement               `_global_loss`, reidray.losses.identity
    batch-hard triplets of the whole batch     `batch_losses`, reidray.losses.pplr
    contrast of proxies between cameras        `_camera_loss`, reidray.losses.pplr

There is no memory that moves: centroids and proxies stay as they are for an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidray.config import Settings
from reidray.features import Network, build_embedder
from reidray.losses import (
    agreement_smoothed_loss,
    camera_proxy_contrast,
    distilled_global_targets,
    identity_loss,
    label_smoothed_loss,
    soft_margin_triplet,
)
from reidray.memory import proxy_groups
from reidray.methods.label_search import Inputs, Labels, Search, Space
from reidray.methods.method import Method
from reidray.methods.pplr_settings import PplrSettings
from reidray.methods.step import BatchLosses, Beginning, Memory, Moments, Outputs, Targets
from reidray.section import epochs_of


class Classifiers(nn.Module):
    """A linear classifier without bias for each vector, of the features before their L2 normalisation.

    There is room for as many clusters as any epoch had, so that the moments of a row go on when clusters become fewer
    and more again; rows of no cluster begin at 0 and have no logit.

    Args:
      centroids_CSD: rows of the clusters.
      room: rows at least.
      proxies_QSD, proxy_labels_Q, proxy_cameras_Q: of the cameras' contrast, or None.
    """

    def __init__(self, centroids_CSD: Tensor, room: int, proxies: tuple[Tensor, Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.num_clusters = len(centroids_CSD)
        rows_SCD = centroids_CSD.transpose(0, 1)
        more = max(room - self.num_clusters, 0)
        self.weight_SCD = nn.Parameter(F.pad(rows_SCD, (0, 0, 0, more)).contiguous())
        self.proxies = proxies

    def forward(self, necks_BSD: Tensor) -> Tensor:
        """Logits [B, S, C]."""
        return torch.einsum("bsd,scd->bsc", necks_BSD, self.weight_SCD[:, : self.num_clusters])


@final
class PPLR(Method):
    """Part-based pseudo label refinement."""

    tables = ("agreements",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        own: PplrSettings = settings.pplr
        self._own = own
        self.needs = frozenset({"cameras"}) if own.camera_weight else frozenset()
        self.memories = ("centroids", "proxies") if own.camera_weight else ("centroids",)
        self.has_batch_losses = own.triplet_weight > 0
        self.keeps_moments = own.classifier_moments == "kept"

    def network(self) -> Network:
        """A trunk with a global feature and one for each stripe, each with its own batch-norm neck."""
        model = self.settings.model
        return build_embedder(
            backbone=model.backbone,
            pooling=model.pooling,
            num_parts=0,
            num_stripes=self._own.num_stripes,
            part_pooling=model.part_pooling,
            embedding_layer=model.embedding_layer,
            seed=self.settings.train.seed,
        )

    # ---- the clustering stage

    def check_inputs(self, inputs: Inputs) -> list[str]:
        """See `Method.check_inputs`."""
        unknown = int((inputs.cameras_N < 0).sum())
        if self._own.camera_weight and unknown:
            raise ValueError(
                f"pplr.camera_weight={self._own.camera_weight:g} needs the camera of every training image, and "
                f"{unknown:,} of {len(inputs.cameras_N):,} have none: set pplr.camera_weight=0"
            )
        return []

    def label(self, search: Search) -> Labels:
        """Clusters of the global feature, agreement of its neighbours with each stripe's, centroids and proxies."""
        k = self._own.agreement_neighbours + 1  # the image itself is in every list
        searched = self.searched(search)
        whole = search.nearest(Space(searched), max(self.list_length(search), k))
        stripes = [search.nearest(Space(searched, (1 + p,)), k) for p in range(self._own.num_stripes)]
        found = self.clustered(search, Space(searched), whole)
        agreements_NP = search.overlaps(whole, stripes, k)
        memories = {"centroids": search.means("features", found.labels_N)}
        if self._own.camera_weight:
            proxies_N, _, _ = proxy_groups(found.labels_N, search.inputs.cameras_N)
            memories["proxies"] = search.means("features", proxies_N)
        figures = {**found.figures(), "agreement": float(agreements_NP.mean(dtype="float64"))}
        return Labels(found.labels_N, memories=memories, tables={"agreements": agreements_NP}, figures=figures)

    # ---- the training stage

    def heads(self, beginning: Beginning) -> nn.Module | None:
        """Classifier rows are the centroids; their moments go on (`carried_moments`)."""
        centroids_CSD = beginning.memories["centroids"].all_rows()
        room = max((rows.shape[1] for state in beginning.moments.values() for rows in _of_rows(state)), default=0)
        proxies = None
        if self._own.camera_weight:
            _, labels_Q, cameras_Q = proxy_groups(beginning.labels_N, beginning.cameras_N)
            device = centroids_CSD.device
            owners = (torch.from_numpy(labels_Q).to(device), torch.from_numpy(cameras_Q).to(device))
            proxies = (beginning.memories["proxies"].all_rows(), *owners)
        return Classifiers(centroids_CSD, room, proxies)

    def carried_moments(self, heads: nn.Module, moments: Moments) -> Moments:
        """The moments of the rows before, and 0 for rows that no epoch had yet."""
        room = cast(Classifiers, heads).weight_SCD.shape[1]
        return {
            number: {
                name: F.pad(rows, (0, 0, 0, room - rows.shape[1])) if rows.ndim == 3 else rows
                for name, rows in state.items()
            }
            for number, state in moments.items()
        }

    def group_losses(
        self,
        outputs: Outputs,
        targets: Targets,
        memories: Mapping[str, Memory],  # noqa: ARG002 (classifiers and proxies began with them)
        heads: nn.Module | None,
        epoch: int,
    ) -> dict[str, Tensor]:
        """The losses of the classifiers, and the contrast between cameras where it has a weight."""
        assert isinstance(heads, Classifiers)
        logits_BSC = heads(outputs.necks_BSD)
        terms = {
            "global_identity": self._global_loss(logits_BSC, targets),
            "part_identity": self._stripe_loss(logits_BSC[:, 1:], targets, epoch),
        }
        if heads.proxies is not None:
            terms["camera_contrast"] = self._own.camera_weight * self._camera_loss(outputs, targets, heads.proxies)
        return terms

    def _global_loss(self, logits_BSC: Tensor, targets: Targets) -> Tensor:
        """Part-guided label refinement: the target is beta y + (1 - beta) of the stripes' predictions."""
        part_logits_BPC = logits_BSC[:, 1:]
        targets_BC = distilled_global_targets(
            targets.labels_B, targets["agreements"], part_logits_BPC, beta=self._own.beta
        )
        return identity_loss(logits_BSC[:, 0], targets_BC)

    def _stripe_loss(self, part_logits_BPC: Tensor, targets: Targets, epoch: int) -> Tensor:
        """Agreement-aware label smoothing of each stripe, plain label smoothing in the first epochs."""
        if epoch < epochs_of(self._own.agreement_from, self.settings.train.epochs):
            loss_BP = label_smoothed_loss(part_logits_BPC, targets.labels_B, smoothing=self._own.label_smoothing)
        else:
            loss_BP = agreement_smoothed_loss(part_logits_BPC, targets.labels_B, targets["agreements"])
        return loss_BP.mean(1)

    def _camera_loss(self, outputs: Outputs, targets: Targets, proxies: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The global feature's contrast between cameras, plus the mean of the stripes'."""
        proxies_QSD, labels_Q, cameras_Q = proxies
        losses_BS = torch.stack(
            [
                camera_proxy_contrast(
                    outputs.features_BSD[:, vector],
                    targets.labels_B,
                    targets.cameras_B,
                    proxies_QSD[:, vector],
                    labels_Q,
                    cameras_Q,
                    temperature=self._own.camera_temperature,
                    num_negatives=self._own.camera_negatives,
                )
                for vector in range(proxies_QSD.shape[1])
            ],
            dim=1,
        )
        return losses_BS[:, 0] + losses_BS[:, 1:].mean(1)

    def to_gather(self, outputs: Outputs) -> dict[str, Tensor]:
        """The global feature before its L2 normalisation, for the triplets of the whole batch."""
        return {"global": outputs.necks_BSD[:, 0]}

    def batch_losses(
        self,
        gathered: Mapping[str, Tensor],
        targets: Targets,
        memories: Mapping[str, Memory],  # noqa: ARG002
        modules: nn.Module | None,  # noqa: ARG002
        epoch: int,  # noqa: ARG002
    ) -> BatchLosses:
        """Soft-margin batch-hard triplets."""
        loss_B = soft_margin_triplet(gathered["global"], targets.labels_B)
        return BatchLosses({"triplet": self._own.triplet_weight * loss_B})


def _of_rows(state: Mapping[str, Tensor]) -> list[Tensor]:
    return [rows for rows in state.values() if rows.ndim == 3]
