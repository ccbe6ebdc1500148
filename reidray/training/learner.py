"""One update: forward this worker's BN groups, backward, gather, step, move the memory.

B = images, C = clusters, S = spaces, D = feature width, T = loss terms, G = groups, M = batch statistics of a group.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reidray.config import Settings
from reidray.features import Embedder, Features, apply_statistics, take_statistics
from reidray.methods import Method, Targets
from reidray.spans import OFF, Spans
from reidray.training.batches import Group, Step, shares
from reidray.training.extraction import autocast
from reidray.training.images import as_input
from reidray.training.ranks import Ranks


class Objective(nn.Module):
    """Network, heads and losses of a group in one module, so that DDP sees one forward."""

    def __init__(self, model: Embedder, heads: nn.Module | None, method: Method, epoch: int) -> None:
        super().__init__()
        self.model = model
        self.heads = heads
        self._method = method
        self._epoch = epoch

    def forward(self, images: Tensor, targets: Targets, centroids_CSD: Tensor) -> tuple[Features, dict[str, Tensor]]:
        """Features of the group and its loss terms, each [B]."""
        features: Features = self.model(images)
        return features, self._method.losses(features, targets, centroids_CSD, self.heads, self._epoch)


@dataclass(frozen=True)
class Update:
    """What a step did: the mean of each loss term over the global batch, and the rows of the memory that moved."""

    losses: dict[str, Tensor]
    clusters_U: Tensor
    rows_USD: Tensor


class Learner:
    """Trains one epoch's objective on this worker.

    The global batch is a list of BN groups; gradients are sums over groups divided by the global batch, whatever the
    number of workers. Running statistics take every group's in global order. The replica of the centroids is moved
    by the same function of the same gathered features on every rank.
    """

    def __init__(
        self,
        settings: Settings,
        method: Method,
        model: Embedder,
        optimiser: torch.optim.Optimizer,
        centroids_CSD: Tensor,
        *,
        epoch: int,
        ranks: Ranks,
        device: torch.device,
        spans: Spans = OFF,
    ) -> None:
        self._settings = settings
        self._spans = spans
        self._method = method
        self._model = model
        self._optimiser = optimiser
        self._ranks = ranks
        self._device = device
        self.centroids_CSD = centroids_CSD
        heads = method.heads(centroids_CSD)
        self._heads_optimiser = self._adam(heads, optimiser) if heads is not None else None
        self._objective: nn.Module = Objective(model, heads, method, epoch)
        if ranks.size > 1 or torch.distributed.is_initialized():
            self._objective = DistributedDataParallel(
                self._objective, forward_sync_buffers=False, find_unused_parameters=_leaves_parameters_out(settings)
            )
        size = settings.model.bn_group_size
        self._groups = [len(share) for share in shares(settings.num_groups, ranks.size)]
        self._images = [count * size for count in self._groups]

    def _adam(self, heads: nn.Module, optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
        rate = optimiser.param_groups[0]["lr"]
        return torch.optim.Adam(heads.parameters(), lr=rate, weight_decay=self._settings.train.weight_decay)

    def update(self, step: Step, groups: list[Group]) -> Update:
        """One step on the global batch, of which `groups` are this worker's."""
        self._model.train()
        self._zero_grad()
        outputs = [self._backward(group, last=group is groups[-1]) for group in groups]
        features, losses, statistics = zip(*outputs, strict=True)
        with self._spans("gather"):
            features_BSD = self._ranks.gather_rows(torch.cat(features), self._images)
            losses_BT = self._ranks.gather_rows(
                torch.cat([torch.stack(list(terms.values()), 1) for terms in losses]), self._images
            )
            statistics_GM = self._ranks.gather_rows(torch.stack(statistics), self._groups)
        with self._spans("optimise"):
            self._optimiser.step()
            if self._heads_optimiser is not None:
                self._heads_optimiser.step()
            apply_statistics(self._model, statistics_GM)
        with self._spans("memory"):
            clusters_U, rows_USD = self._method.updated_rows(
                self.centroids_CSD,
                features_BSD,
                step.labels_B.to(self._device),
                step.alphas_BL.to(self._device),
                step.uniforms_B.to(self._device),
            )
            self.centroids_CSD[clusters_U] = rows_USD
        means_T = losses_BT.mean(0)
        return Update(dict(zip(losses[0], means_T, strict=True)), clusters_U, rows_USD)

    def _backward(self, group: Group, *, last: bool) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Forward and backward of one group; its features [B, S, D], loss terms [B] and batch statistics [M]."""
        with self._without_sync(not last):
            with self._spans("forward"), autocast(self._device, self._settings.train.precision):
                features, terms = self._objective(
                    as_input(group.pixels_BHW3, self._device), _on(group.targets, self._device), self.centroids_CSD
                )
            statistics_M = take_statistics(self._model)
            total = torch.stack(list(terms.values())).sum()
            # DDP averages over ranks; the objective is the sum over all groups divided by the global batch.
            with self._spans("backward"):  # with DDP's exchange of gradients
                torch.autograd.backward(total * (self._ranks.size / self._settings.batch_size))
        return features.features_BSD.detach(), {name: loss.detach() for name, loss in terms.items()}, statistics_M

    def _without_sync(self, wanted: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients of all groups but a worker's last one wait; DDP exchanges them once a step."""
        if wanted and isinstance(self._objective, DistributedDataParallel):
            return self._objective.no_sync()
        return contextlib.nullcontext()

    def _zero_grad(self) -> None:
        self._optimiser.zero_grad(set_to_none=True)
        if self._heads_optimiser is not None:
            self._heads_optimiser.zero_grad(set_to_none=True)


def _on(targets: Targets, device: torch.device) -> Targets:
    def moved(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, non_blocking=True)

    return Targets(
        targets.labels_B.to(device),
        targets.alphas_BL.to(device),
        targets.weights_BS.to(device),
        moved(targets.masks_BLHW),
        moved(targets.visible_BHW),
    )


def _leaves_parameters_out(settings: Settings) -> bool:
    """Whether no loss looks at the features of any space, so that the necks go without a gradient (an ablation)."""
    scwm = settings.scwm
    weights = (
        scwm.global_memory_weight,
        scwm.part_memory_weight,
        scwm.separation_weight,
        scwm.global_identity_weight,
        scwm.part_identity_weight,
    )
    return settings.method.name == "scwm" and not any(weights)
