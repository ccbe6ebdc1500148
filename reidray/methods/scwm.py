"""SCWM: spatial cascaded clustering and weighted memory, in the order of the paper; readings in docs/methods.md.

N = images, B = images of a batch, C = clusters, L = parts (the background last), S = 1 + L vectors (0 = global),
D = feature width, H, W = cells of the map, P = H W.

    eq. 1       features of parts          reidray.features.embedder
    eq. 2       spatial cascaded clustering   `label_images`, reidray.parsing
    eq. 3       momentum of masks          `averages`
    eq. 4-6     L_SCC                      `_clustering_terms`, reidray.losses.parsing
    eq. 7       difficulty                 `label`, reidray.memory.difficulty
    eq. 8, 9    weighted memory            `moved_rows`, reidray.memory.centroids
    eq. 10-12   L_WM                       `_memory_terms`, reidray.losses.contrast
    eq. 13-15   L_ID                       `_identity_terms`, reidray.losses.identity
    eq. 16      L = L_SCC + L_WM + L_ID    the sum of the terms

With scwm.parts=stripes the parts are horizontal stripes, as in PPLR: no masks, no background, no L_SCC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidray import dispatch
from reidray.arrays import Array, Floats
from reidray.config import Settings
from reidray.evaluation.criteria import neighbour_agreement
from reidray.features import Network, build_embedder
from reidray.features.grid import visible_cells, warp_masks
from reidray.losses import (
    distilled_global_targets,
    diversity_loss,
    identity_loss,
    parsing_loss,
    part_separation,
    refined_part_targets,
    weighted_contrast,
)
from reidray.memory import clusters_in_batch, equal_weights, moved_centroids, normalised_weights, of_mean_one
from reidray.methods.label_search import Labels, Search, Space, known
from reidray.methods.method import Method
from reidray.methods.scwm_settings import ScwmSettings
from reidray.methods.step import Average, Beginning, Memory, Moved, Outputs, Targets
from reidray.parsing import gram_matrices
from reidray.section import epochs_of


class IdentityHeads(nn.Module):
    """A classifier for each vector, its rows set from the centroids; it lives for one epoch."""

    def __init__(self, centroids_CSD: Tensor) -> None:
        super().__init__()
        self.weight_SCD = nn.Parameter(centroids_CSD.transpose(0, 1).clone())

    def forward(self, necks_BSD: Tensor) -> Tensor:
        """Logits [B, S, C] of the features before their L2 normalisation, as in PPLR."""
        return torch.einsum("bsd,scd->bsc", necks_BSD, self.weight_SCD)


@final
class SCWM(Method):
    """Spatial cascaded clustering and weighted memory."""

    tables = ("alphas",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        own: ScwmSettings = settings.scwm
        self._own = own
        self._parsed = own.parts == "parsed"
        self.num_parts = own.num_parts if self._parsed else 0
        self.maps = ("masks",) if self._parsed else ()
        foreground = own.num_parts - 1
        self._parts = foreground + 1 if self._parsed else foreground
        self._joined = tuple(range(1 + foreground))
        self._loss_parts = self._parts if own.background_in_losses else foreground
        of_features = own.global_memory_weight + own.part_memory_weight + own.separation_weight
        self.unused_parameters = not of_features + own.global_identity_weight + own.part_identity_weight

    def network(self) -> Network:
        """A trunk with a global feature and one for each part (eq. 1), each with its own batch-norm neck."""
        model = self.settings.model
        return build_embedder(
            backbone=model.backbone,
            pooling=model.pooling,
            num_parts=self.num_parts,
            num_stripes=0 if self._parsed else self._parts,
            part_pooling=model.part_pooling,
            embedding_layer=model.embedding_layer,
            seed=self.settings.train.seed,
        )

    # ---- the clustering stage (Sec. 3.2 and 3.3)

    def to_label_images(self, pooled: Any) -> dict[str, Tensor]:
        """The inner products of each map's cells [B, H, W, P], which are all that eq. 2 needs."""
        if not self._parsed:
            return {}
        height, width = pooled.map_BDHW.shape[2:]
        return {"grams": gram_matrices(pooled.map_BDHW).view(-1, height, width, height * width)}

    def label_images(self, arrays: Mapping[str, Array], device: torch.device) -> dict[str, Array] | None:
        """Spatial cascaded clustering of each image's cells (eq. 2): parts int8 [B, H, W], and whether eta fits."""
        if not self._parsed:
            return None
        own, (batch, height, width, cells) = self._own, arrays["grams"].shape
        parsing = dispatch.parse_grams(
            dispatch.on(arrays["grams"].reshape(batch, cells, cells), device),
            height=height,
            width=width,
            num_parts=own.num_parts,
            max_distance=own.max_distance * height,
            linkage=own.linkage,
            classes=own.foreground_classes,
            log_magnitude=own.log_magnitude,
            centre_prior=own.centre_prior,
            space=own.space,
        )
        return {
            "parts": dispatch.as_numpy(parsing.parts_BHW).astype(np.int8),
            "far_shares": dispatch.as_numpy(parsing.far_share_B),
        }

    def averages(self, epoch: int) -> Mapping[str, Average]:
        """Eq. 3: soft masks are a moving average of the hard ones; gamma falls to 0 (Sec. 4.2)."""
        own = self._own
        falls = epochs_of(own.mask_momentum_epochs, self.settings.train.epochs)
        gamma = own.mask_momentum * max(0.0, 1 - epoch / falls)
        return {"masks": Average("parts", own.num_parts, gamma)} if self._parsed else {}

    def label(self, search: Search) -> Labels:
        """Clusters of the global (or the joined) feature, difficulties of the parts (eq. 7), centroids."""
        k = self._own.difficulty_neighbours + 1  # the image itself is in every list
        searched = self.searched(search)
        clustered = Space(searched, self._joined if self._own.cluster_feature == "concat" else (0,))
        both = clustered.vectors == (0,) and search.inputs.persons_N is None
        whole = search.nearest(Space(searched), max(self.list_length(search), k) if both else k)
        parts = [search.nearest(Space(searched, (1 + part,)), k) for part in range(self._parts)]
        found = self.clustered(search, clustered, whole if both else None)
        alphas_NL = search.overlaps(whole, parts, k)
        agreement = neighbour_agreement(alphas_NL[:, : len(self._joined) - 1])
        return Labels(
            found.labels_N,
            memories={"features": search.means("features", found.labels_N)},
            tables={"alphas": alphas_NL},
            figures={**found.figures(), **known({"agreement": agreement})},
        )

    def figures(self, table: Callable[[str], Array]) -> dict[str, float]:
        """Pairs of cells of one part that are too far apart, in percent; above 5, eta is too small."""
        return {"far_pairs": 100 * float(table("far_shares").mean())} if self._parsed else {}

    # ---- the training stage (Sec. 3.2 to 3.4)

    def raw_weights(self, alphas_BL: Tensor) -> Tensor:
        """1 - alpha_g for the global feature, alpha_pk for the parts: [B, S] (Sec. 3.3, before eq. 8)."""
        without = self._parsed and not self._own.background_in_difficulty
        counted_BL = alphas_BL[:, :-1] if without else alphas_BL
        return torch.cat([1 - counted_BL.mean(1, keepdim=True), alphas_BL], dim=1)

    def targets(self, targets: Targets) -> dict[str, Tensor]:
        """The weights of eq. 8, scaled to mean 1 over the batch so that eq. 10 keeps its size."""
        if self._own.weight_place == "none":
            return {"weights": equal_weights(targets.labels_B, 1 + self._parts)}
        places_B = clusters_in_batch(targets.labels_B)[1] if self._own.normalise_weights == "cluster" else None
        return {"weights": of_mean_one(normalised_weights(self.raw_weights(targets["alphas"]), places_B))}

    def moved_maps(self, maps: Mapping[str, Tensor], moved: Moved) -> dict[str, Tensor]:
        """Pseudo masks go with the image through flip and crop; erased cells do not count."""
        masks_BLHW = warp_masks(
            maps["masks"].float(),
            moved.grid,
            image_size=moved.image_size,
            flips_B=moved.flips_B,
            dy_B=moved.dy_B,
            dx_B=moved.dx_B,
            pad=moved.pad,
        )
        map_size = (masks_BLHW.shape[2], masks_BLHW.shape[3])
        return {"masks": masks_BLHW, "visible": visible_cells(moved.grid, map_size, moved.boxes_B4)}

    def heads(self, beginning: Beginning) -> nn.Module | None:
        """Classifier rows from the centroids (Sec. 3.4); none where eq. 15 has no weight."""
        return IdentityHeads(beginning.memories["features"].all_rows()) if self._own.classifies else None

    def group_losses(
        self, outputs: Outputs, targets: Targets, memories: Mapping[str, Memory], heads: nn.Module | None, epoch: int
    ) -> dict[str, Tensor]:
        """The terms of eq. 16, each with its weight; a term of weight 0 is left out."""
        terms = self._clustering_terms(outputs, targets) if self._parsed else {}
        terms.update(self._memory_terms(outputs, targets, memories["features"]))
        if heads is not None:
            terms.update(self._identity_terms(heads(outputs.necks_BSD), targets, epoch))
        return terms

    def _clustering_terms(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """L_SCC = L_parsing + L_diversity: eq. 4, 5, 6."""
        own, terms = self._own, {}
        if own.parsing_weight:
            loss = parsing_loss(outputs.part_logits_BLHW, targets["masks"], targets["visible"])
            terms["parsing"] = own.parsing_weight * loss
        if own.diversity_weight:
            terms["diversity"] = own.diversity_weight * diversity_loss(outputs.masks_BLHW, cells=own.diversity_cells)
        return {name: _of_samples(loss, len(targets.labels_B)) for name, loss in terms.items()}

    def _memory_terms(self, outputs: Outputs, targets: Targets, memory: Memory) -> dict[str, Tensor]:
        """L_WM = L_wNCE + L_sep: eq. 10, 11, 12."""
        own, tau, parts = self._own, self.settings.method.temperature, range(1, 1 + self._loss_parts)
        vectors = [*([0] if own.global_memory_weight else []), *(parts if own.part_memory_weight else [])]
        terms = {}
        if vectors:
            losses_BT = memory.contrast(outputs.features_BSD, targets.labels_B, vectors, temperature=tau)
            losses_BT = weighted_contrast(losses_BT, targets["weights"][:, vectors], place=own.weight_place)
            by_vector = dict(zip(vectors, losses_BT.unbind(1), strict=True))
        if own.global_memory_weight:
            terms["global_contrast"] = own.global_memory_weight * by_vector[0]
        if own.part_memory_weight:
            loss_B = torch.stack([by_vector[part] for part in parts]).mean(0)
            terms["part_contrast"] = own.part_memory_weight * loss_B
        if own.separation_weight:
            kept = slice(1, 1 + self._loss_parts)
            own_BLD = memory.rows(targets.labels_B)[:, kept]
            loss_B = part_separation(outputs.features_BSD[:, kept], own_BLD, temperature=tau)
            terms["separation"] = own.separation_weight * loss_B
        return terms

    def _identity_terms(self, logits_BSC: Tensor, targets: Targets, epoch: int) -> dict[str, Tensor]:
        """L_ID with the targets of eq. 13 and 14: eq. 15."""
        own, num_clusters = self._own, logits_BSC.shape[-1]
        parts = slice(0, self._loss_parts)
        part_logits_BLC = logits_BSC[:, 1:][:, parts]
        alphas_BL = targets["alphas"][:, parts]
        terms = {}
        if own.global_identity_weight:
            targets_BC = distilled_global_targets(targets.labels_B, alphas_BL, part_logits_BLC, beta=own.beta)
            terms["global_identity"] = own.global_identity_weight * identity_loss(logits_BSC[:, 0], targets_BC)
        if own.part_identity_weight:
            if epoch < epochs_of(own.part_refinement_from, self.settings.train.epochs):
                alphas_BL = torch.full_like(alphas_BL, 1 - own.label_smoothing)
            targets_BLC = refined_part_targets(targets.labels_B, alphas_BL, num_clusters)
            terms["part_identity"] = own.part_identity_weight * identity_loss(part_logits_BLC, targets_BLC).mean(1)
        return terms

    def moved_rows(
        self,
        memories: Mapping[str, Memory],
        gathered: Mapping[str, Tensor],
        targets: Targets,
        uniforms_B: Tensor,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The weighted memory, eq. 8 and 9 (or another rule, as an ablation)."""
        method = self.settings.method
        moved = moved_centroids(
            method.update,
            memories["features"].rows,
            gathered["features"],
            targets.labels_B,
            momentum=method.momentum,
            uniforms_B=uniforms_B,
            raw_weights_BS=self.raw_weights(targets["alphas"]),
            normalise=self._own.normalise_weights,
            once=self._own.weighted_update == "once",
        )
        return {"features": moved}

    # ---- evaluation

    def to_evaluate(self, outputs: Outputs) -> dict[str, Tensor]:
        """The features and the predicted masks."""
        kept = {"features": outputs.features_BSD.float()}
        if outputs.visibility_BL is not None:
            kept["visibility"] = outputs.visibility_BL
        if outputs.masks_BLHW is not None:
            kept["masks"] = outputs.masks_BLHW.half()
        return kept

    def evaluated(self, arrays: Mapping[str, Array]) -> Floats:
        """The global feature, or joined with the foreground parts'.

        Each part is scaled by the square root of its visibility (the mask's largest value over the cells; of a
        tracklet, its mean over the frames), so that a part missing in either of two images counts little in their
        similarity.
        """
        features_BSD = arrays["features"]
        if self._own.feature == "global":
            return features_BSD[:, 0]
        parts_BLD = features_BSD[:, list(self._joined[1:])]
        if "visibility" in arrays:
            parts_BLD = parts_BLD * np.sqrt(arrays["visibility"][:, :-1])[..., None]
        joined_BD = np.concatenate([features_BSD[:, 0], parts_BLD.reshape(len(parts_BLD), -1)], axis=1)
        return joined_BD / np.maximum(np.linalg.norm(joined_BD, axis=1, keepdims=True), 1e-12)

    def ranked(self, kept: Mapping[str, Tensor]) -> Tensor:
        """As `evaluated`."""
        features_BSD = kept["features"]
        if self._own.feature == "global":
            return features_BSD[:, 0]
        parts_BLD = features_BSD[:, 1 : len(self._joined)]  # `_joined` counts from 0 without gaps
        if "visibility" in kept:
            parts_BLD = parts_BLD * kept["visibility"][:, :-1].sqrt().unsqueeze(2)
        return F.normalize(torch.cat([features_BSD[:, 0], parts_BLD.flatten(1)], dim=1), dim=1)


def _of_samples(losses: Tensor, batch: int) -> Tensor:
    """Losses [B] of images, or the means [B] over the frames of tracklets."""
    return losses if len(losses) == batch else losses.view(batch, -1).mean(1)
