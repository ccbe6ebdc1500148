"""SCWM: spatial cascaded clustering and weighted memory, in the order of the paper; readings in docs/methods.md.

B = images, C = clusters, L = parts (the background last), S = 1 + L spaces (0 = global), D = feature width.

    eq. 1       features of parts          reidray.features.embedder
    eq. 2       spatial cascaded clustering   reidray.parsing
    eq. 3       momentum of masks          reidray.bank.smoothing
    eq. 4-6     L_SCC                      here, reidray.losses.parsing
    eq. 7       difficulty                 reidray.memory.difficulty
    eq. 8, 9    weighted memory            here, reidray.memory.centroids
    eq. 10-12   L_WM                       here, reidray.losses.contrast
    eq. 13-15   L_ID                       here, reidray.losses.identity
    eq. 16      L = L_SCC + L_WM + L_ID    the sum of the terms below
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from reidray.config import MethodSettings, ScwmSettings
from reidray.features import Features
from reidray.losses import (
    distilled_global_targets,
    diversity_loss,
    identity_loss,
    parsing_loss,
    part_separation,
    refined_part_targets,
    weighted_contrast,
)
from reidray.memory import clusters_in_batch, normalised_weights
from reidray.methods.method import AllCentroids, Centroids, Targets, no_weights, of_mean_one, updated_rows


class IdentityHeads(nn.Module):
    """A classifier for each space, its rows set from the centroids; it lives for one epoch."""

    def __init__(self, centroids_CSD: Tensor) -> None:
        super().__init__()
        self.weight_SCD = nn.Parameter(centroids_CSD.transpose(0, 1).clone())

    def forward(self, necks_BSD: Tensor) -> Tensor:
        """Logits [B, S, C] of the features before their L2 normalisation, as in PPLR."""
        return torch.einsum("bsd,scd->bsc", necks_BSD, self.weight_SCD)


@final
class SCWM:
    """Spatial cascaded clustering and weighted memory."""

    def __init__(self, method: MethodSettings, scwm: ScwmSettings) -> None:
        self._method = method
        self._scwm = scwm
        self.num_parts = scwm.num_parts
        self._loss_parts = scwm.num_parts if scwm.background_in_losses else scwm.num_parts - 1

    def heads(self, centroids: AllCentroids) -> nn.Module | None:
        """Classifier rows from the centroids (Sec. 3.4); none where eq. 15 has no weight."""
        used = self._scwm.global_identity_weight + self._scwm.part_identity_weight > 0
        return IdentityHeads(centroids.all_rows()) if used else None

    def raw_weights(self, alphas_BL: Tensor) -> Tensor:
        """1 - alpha_g for the global feature, alpha_pk for the parts: [B, S] (Sec. 3.3, before eq. 8)."""
        counted_BL = alphas_BL if self._scwm.background_in_difficulty else alphas_BL[:, :-1]
        return torch.cat([1 - counted_BL.mean(1, keepdim=True), alphas_BL], dim=1)

    def contrast_weights(self, labels_B: Tensor, alphas_BL: Tensor) -> Tensor:
        """The weights of eq. 8, scaled to mean 1 over the batch so that eq. 10 keeps its size."""
        if self._scwm.weight_place == "none":
            return no_weights(labels_B, 1 + self.num_parts)
        places_B = clusters_in_batch(labels_B)[1] if self._scwm.normalise_weights == "cluster" else None
        return of_mean_one(normalised_weights(self.raw_weights(alphas_BL), places_B))

    def losses(
        self, features: Features, targets: Targets, centroids: Centroids, heads: nn.Module | None, epoch: int
    ) -> dict[str, Tensor]:
        """The terms of eq. 16, each with its weight; a term of weight 0 is left out."""
        terms = {**self._clustering_terms(features, targets), **self._memory_terms(features, targets, centroids)}
        if heads is not None:
            terms.update(self._identity_terms(heads(features.necks_BSD), targets, epoch))
        return terms

    def _clustering_terms(self, features: Features, targets: Targets) -> dict[str, Tensor]:
        """L_SCC = L_parsing + L_diversity: eq. 4, 5, 6."""
        assert features.part_logits_BLHW is not None
        assert features.masks_BLHW is not None
        assert targets.masks_BLHW is not None
        assert targets.visible_BHW is not None
        scwm, terms = self._scwm, {}
        if scwm.parsing_weight:
            loss_B = parsing_loss(features.part_logits_BLHW, targets.masks_BLHW, targets.visible_BHW)
            terms["parsing"] = scwm.parsing_weight * loss_B
        if scwm.diversity_weight:
            terms["diversity"] = scwm.diversity_weight * diversity_loss(features.masks_BLHW)
        return terms

    def _memory_terms(self, features: Features, targets: Targets, centroids: Centroids) -> dict[str, Tensor]:
        """L_WM = L_wNCE + L_sep: eq. 10, 11, 12."""
        scwm, tau, parts = self._scwm, self._method.temperature, range(1, 1 + self._loss_parts)
        spaces = [*([0] if scwm.global_memory_weight else []), *(parts if scwm.part_memory_weight else [])]
        terms = {}
        if spaces:
            losses_BT = centroids.contrast(features.features_BSD, targets.labels_B, spaces, temperature=tau)
            losses_BT = weighted_contrast(losses_BT, targets.weights_BS[:, spaces], place=scwm.weight_place)
            by_space = dict(zip(spaces, losses_BT.unbind(1), strict=True))
        if scwm.global_memory_weight:
            terms["global_contrast"] = scwm.global_memory_weight * by_space[0]
        if scwm.part_memory_weight:
            loss_B = torch.stack([by_space[part] for part in parts]).mean(0)
            terms["part_contrast"] = scwm.part_memory_weight * loss_B
        if scwm.separation_weight:
            kept = slice(1, 1 + self._loss_parts)
            own_BLD = centroids.rows(targets.labels_B)[:, kept]
            loss_B = part_separation(features.features_BSD[:, kept], own_BLD, temperature=tau)
            terms["separation"] = scwm.separation_weight * loss_B
        return terms

    def _identity_terms(self, logits_BSC: Tensor, targets: Targets, epoch: int) -> dict[str, Tensor]:
        """L_ID with the targets of eq. 13 and 14: eq. 15."""
        scwm, num_clusters = self._scwm, logits_BSC.shape[-1]
        parts = slice(0, self._loss_parts)
        part_logits_BLC = logits_BSC[:, 1:][:, parts]
        alphas_BL = targets.alphas_BL[:, parts]
        terms = {}
        if scwm.global_identity_weight:
            targets_BC = distilled_global_targets(targets.labels_B, alphas_BL, part_logits_BLC, beta=scwm.beta)
            terms["global_identity"] = scwm.global_identity_weight * identity_loss(logits_BSC[:, 0], targets_BC)
        if scwm.part_identity_weight:
            if epoch < scwm.part_refinement_from:
                alphas_BL = torch.full_like(alphas_BL, 1 - scwm.label_smoothing)
            targets_BLC = refined_part_targets(targets.labels_B, alphas_BL, num_clusters)
            terms["part_identity"] = scwm.part_identity_weight * identity_loss(part_logits_BLC, targets_BLC).mean(1)
        return terms

    def updated_rows(
        self, centroids: Centroids, features_BSD: Tensor, labels_B: Tensor, alphas_BL: Tensor, uniforms_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The weighted memory, eq. 8 and 9 (or another rule, as an ablation)."""
        return updated_rows(
            self._method.update,
            centroids,
            features_BSD,
            labels_B,
            momentum=self._method.momentum,
            uniforms_B=uniforms_B,
            raw_weights_BS=self.raw_weights(alphas_BL),
            normalise=self._scwm.normalise_weights,
        )
