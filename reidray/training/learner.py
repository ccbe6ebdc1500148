"""One update: forward this worker's BN groups, backward, gather, step, move the memory.

B = images, C = clusters, S = spaces, D = feature width, T = loss terms, G = groups, M = batch statistics of a group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reidray.config import Settings
from reidray.features import Embedder, Features, apply_statistics, take_statistics
from reidray.methods import Centroids, Method, Targets
from reidray.spans import OFF, Spans
from reidray.storage.checkpoints import Moments, optimiser_tensors, restore_optimiser
from reidray.training.batches import Group, Step, shares
from reidray.training.extraction import autocast
from reidray.training.images import as_input
from reidray.training.ranks import Ranks
from reidray.training.replica import Replica, rounds


class Objective(nn.Module):
    """Network, heads and losses of a group in one module, so that DDP sees one forward."""

    def __init__(self, model: Embedder, heads: nn.Module | None, method: Method, epoch: int) -> None:
        super().__init__()
        self.model = model
        self.heads = heads
        self._method = method
        self._epoch = epoch

    def forward(self, images: Tensor, targets: Targets, centroids: Centroids) -> tuple[Features, dict[str, Tensor]]:
        """Features of the group and its loss terms, each [B]."""
        features: Features = self.model(images)
        return features, self._method.losses(features, targets, centroids, self.heads, self._epoch)


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

    Where ranks share the rows of the replica out, losses wait for all ranks, and a rank may have fewer groups than
    another. So that nobody waits forever, every rank makes the same exchanges in the same order: it begins a step with
    its own groups, then attends the rounds that are left without images, and only then runs the backward pass of its
    last group, in which DDP exchanges gradients; no backward pass exchanges anything else.
    """

    def __init__(
        self,
        settings: Settings,
        method: Method,
        model: Embedder,
        optimiser: torch.optim.Optimizer,
        replica: Replica,
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
        self._epoch = epoch
        self.replica = replica
        heads = self._heads = method.heads(replica)
        self._heads_optimiser = self._adam(heads, optimiser) if heads is not None else None
        self._objective: nn.Module = Objective(model, heads, method, epoch)
        if ranks.size > 1 or torch.distributed.is_initialized():
            self._objective = DistributedDataParallel(
                self._objective, forward_sync_buffers=False, find_unused_parameters=_leaves_parameters_out(settings)
            )
        size = settings.model.bn_group_size
        self._groups = [len(share) for share in shares(settings.num_groups, ranks.size)]
        self._images = [count * size for count in self._groups]
        self._rounds = rounds(shares(settings.num_groups, ranks.size), size)

    def _adam(self, heads: nn.Module, optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
        rate = optimiser.param_groups[0]["lr"]
        return torch.optim.Adam(heads.parameters(), lr=rate, weight_decay=self._settings.train.weight_decay)

    def heads_state(self) -> tuple[dict[str, Tensor], Moments]:
        """Layers that live for this epoch and their moments, for a checkpoint in its middle; empty without heads."""
        if self._heads is None or self._heads_optimiser is None:
            return {}, {}
        return self._heads.state_dict(), optimiser_tensors(self._heads_optimiser)

    def load_heads(self, heads: dict[str, Tensor], moments: Moments) -> None:
        """Put back what `heads_state` gave."""
        if self._heads is not None and self._heads_optimiser is not None:
            self._heads.load_state_dict(heads)
            restore_optimiser(self._heads_optimiser, moments)

    def update(self, step: Step, groups: list[Group]) -> Update:
        """One step on the global batch, of which `groups` are this worker's."""
        self._model.train()
        self._zero_grad()
        with self._spans("memory"):
            views = self.replica.views(step.labels_B, self._rounds)
        idle = views[len(groups) :] if self.replica.meets else []
        outputs = [
            self._backward(group, view, idle if group is groups[-1] else [], last=group is groups[-1])
            for group, view in zip(groups, views, strict=False)
        ]
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
                views[0],
                features_BSD,
                step.labels_B.to(self._device),
                step.alphas_BL.to(self._device),
                step.uniforms_B.to(self._device),
            )
            self.replica.write(clusters_U, rows_USD)
        means_T = losses_BT.mean(0)
        return Update(dict(zip(losses[0], means_T, strict=True)), clusters_U, rows_USD)

    def _backward(
        self, group: Group, view: Centroids, idle: Sequence[Centroids], *, last: bool
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Forward and backward of one group; its features [B, S, D], loss terms [B] and batch statistics [M].

        Between the two, `idle` rounds of other ranks are attended.
        """
        targets = _on(group.targets, self._device)
        with self._without_sync(not last):
            with self._spans("forward"), autocast(self._device, self._settings.train.precision):
                features, terms = self._objective(as_input(group.pixels_BHW3, self._device), targets, view)
                for other in idle:
                    self._attend(other, features, targets)
            statistics_M = take_statistics(self._model)
            total = torch.stack(list(terms.values())).sum()
            # DDP averages over ranks; the objective is the sum over all groups divided by the global batch.
            with self._spans("backward"):  # with DDP's exchange of gradients
                torch.autograd.backward(total * (self._ranks.size / self._settings.batch_size))
        return features.features_BSD.detach(), {name: loss.detach() for name, loss in terms.items()}, statistics_M

    @torch.no_grad()
    def _attend(self, view: Centroids, features: Features, targets: Targets) -> None:
        """Take part in the exchanges of a round with a group of no images, which is the beginning of another group."""
        self._method.losses(*_without_images(features, targets), view, self._heads, self._epoch)

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


def _without_images(features: Features, targets: Targets) -> tuple[Features, Targets]:
    def none(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[:0]

    return (
        Features(
            features.map_BDHW[:0],
            features.necks_BSD[:0],
            features.features_BSD[:0],
            none(features.part_logits_BLHW),
            none(features.masks_BLHW),
        ),
        Targets(
            targets.labels_B[:0],
            targets.alphas_BL[:0],
            targets.weights_BS[:0],
            none(targets.masks_BLHW),
            none(targets.visible_BHW),
        ),
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
