"""One update: forward this worker's BN groups, backward, gather, step, move the memories.

B = images, C = clusters, S = vectors of a feature, D = feature width, T = loss terms, G = groups, M = batch statistics
of a group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reidray.config import Settings
from reidray.features import apply_statistics, recorded_layers, take_statistics
from reidray.features.dropout import KeyedDropout, image_keys, set_keys
from reidray.methods.method import Method
from reidray.methods.step import BatchLosses, Memory, Outputs, Targets
from reidray.spans import OFF, Spans
from reidray.training.batches import Group, Step, shares
from reidray.training.extraction import autocast
from reidray.training.images import as_input
from reidray.training.ranks import Ranks
from reidray.training.replica import Replica, rounds
from reidray.training.state import RunState

Views = Mapping[str, Memory]


class Objective(nn.Module):
    """Network, heads and losses of a group in one module, so that DDP sees one forward."""

    def __init__(self, model: nn.Module, heads: nn.Module | None, method: Method, epoch: int) -> None:
        super().__init__()
        self.model = model
        self.heads = heads
        self._method = method
        self._epoch = epoch

    def forward(self, images: Tensor, targets: Targets, memories: Views) -> tuple[Outputs, dict[str, Tensor]]:
        """Outputs of the network for the group, and its loss terms, each [B]."""
        outputs = self.model(images)
        return outputs, self._method.group_losses(outputs, targets, memories, self.heads, self._epoch)


@dataclass(frozen=True)
class Update:
    """What a step did: the mean over the global batch of each loss term and of each figure, and the rows that moved."""

    losses: dict[str, Tensor]
    moved: dict[str, tuple[Tensor, Tensor]]
    figures: dict[str, Tensor]


@dataclass(frozen=True)
class _Forwarded:
    """A group after its forward pass. gathered: see `Method.to_gather`. total: its part of the objective."""

    outputs: Outputs
    gathered: dict[str, Tensor]
    terms: dict[str, Tensor]
    statistics_M: Tensor
    total: Tensor

    def detached(self) -> _Forwarded:
        """The same without its graph."""
        gathered = {name: rows.detach() for name, rows in self.gathered.items()}
        terms = {name: loss.detach() for name, loss in self.terms.items()}
        return _Forwarded(None, gathered, terms, self.statistics_M, self.total.detach())


class Learner:
    """Trains one epoch's objective on this worker.

    The global batch is a list of BN groups; gradients are sums over groups divided by the global batch, whatever the
    number of workers. Running statistics take every group's in global order. The replicas of the memories are moved
    by the same function of the same gathered outputs on every rank.

    Losses of single groups are done group after group. Where a method has losses of the whole batch as well, the graphs
    of all groups stay alive: outputs are gathered as leaves, the losses of the batch give a gradient at each leaf, and
    that goes into one backward pass of all groups together.

    Where ranks share the rows of a replica out, losses wait for all ranks, and a rank may have fewer groups than
    another. So that nobody waits forever, every rank makes the same exchanges in the same order: it begins a step with
    its own groups, then attends the rounds that are left without images, and only then runs the backward pass of its
    last group, in which DDP exchanges gradients; no backward pass exchanges anything else.

    Args:
      state: what is trained.
      replicas: of each memory, by name.
    """

    def __init__(
        self,
        settings: Settings,
        state: RunState,
        replicas: Mapping[str, Replica],
        *,
        epoch: int,
        ranks: Ranks,
        device: torch.device,
        spans: Spans = OFF,
    ) -> None:
        self._settings = settings
        self._spans = spans
        self._state = state
        self._method = state.method
        self._ranks = ranks
        self._device = device
        self._epoch = epoch
        self.replicas = replicas
        heads = None if state.heads is None else state.heads.layers
        self._objective: nn.Module = Objective(state.model, heads, state.method, epoch)
        if ranks.size > 1 or torch.distributed.is_initialized():
            self._objective = DistributedDataParallel(
                self._objective, forward_sync_buffers=False, find_unused_parameters=state.method.unused_parameters
            )
        self._drops = _drops(self._objective)
        self._modules_drop = state.modules is not None and _drops(state.modules)
        size = settings.model.bn_group_size
        self._shares = shares(settings.num_groups, ranks.size)
        self._groups = [len(share) for share in self._shares]
        self._images = [count * size for count in self._groups]
        self._rounds = rounds(self._shares, size)
        self._batch = [range(share.start * size, share.stop * size) for share in self._shares]

    def update(self, step: Step, groups: list[Group]) -> Update:
        """One step on the global batch, of which `groups` are this worker's."""
        self._state.model.train()
        self._zero_grad()
        with self._spans("memory"):
            views, whole = self._views(step.targets.labels_B)
        targets = step.targets.to(self._device)
        if self._method.has_batch_losses:
            done, of_batch = self._all_groups(step, groups, views, whole, targets)
        else:
            done, of_batch = self._group_by_group(step, groups, views), BatchLosses({})
        with self._spans("gather"):
            gathered = {**self._gathered(done), **of_batch.rows}
            losses = self._mean_losses(done)
            statistics_GM = self._ranks.gather_rows(torch.stack([one.statistics_M for one in done]), self._groups)
        losses.update({name: loss_B.detach().mean() for name, loss_B in of_batch.terms.items()})
        with self._spans("optimise"):
            self._state.optimiser.step()
            if self._state.heads is not None and self._state.heads.optimiser is not None:
                self._state.heads.optimiser.step()
            apply_statistics(self._state.model, statistics_GM)
        with self._spans("memory"), torch.no_grad():
            moved = self._method.moved_rows(whole, gathered, targets, step.uniforms_B.to(self._device))
            for name, (places_U, rows_USD) in moved.items():
                self.replicas[name].write(places_U, rows_USD)
        figures = {name: rows_B.detach().mean() for name, rows_B in of_batch.figures.items()}
        return Update(losses, moved, figures)

    # ---- losses of single groups

    def _group_by_group(self, step: Step, groups: list[Group], views: Sequence[Views]) -> list[_Forwarded]:
        """Forward and backward of each group in turn."""
        done = []
        for number, (group, view) in enumerate(zip(groups, views, strict=False)):
            last = number + 1 == len(groups)
            with self._without_sync(not last):
                one = self._forward(step, number, group, view, views[len(groups) :] if last else [])
                with self._spans("backward"):  # with DDP's exchange of gradients
                    torch.autograd.backward(one.total)
            done.append(one.detached())
        return done

    def _forward(self, step: Step, number: int, group: Group, view: Views, idle: Sequence[Views]) -> _Forwarded:
        """Forward of one group; after it, `idle` rounds of other ranks are attended.

        Its total is the group's part of the objective: DDP averages over ranks, and the objective is the sum over all
        groups divided by the global batch.
        """
        targets = group.targets.to(self._device)
        self._key_dropout(step, number)
        with self._spans("forward"), autocast(self._device, self._settings.train.precision):
            outputs, terms = self._objective(as_input(group.pixels, self._device), targets, view)
            for other in idle if self._must_attend else []:
                self._attend(other, outputs, targets)
        self._check_terms("group_losses", terms, len(targets.labels_B))
        statistics_M = take_statistics(self._state.model)
        total = torch.stack(list(terms.values())).sum() if terms else torch.zeros((), device=self._device)
        total = total * (self._ranks.size / self._settings.batch_size)
        return _Forwarded(outputs, self._method.to_gather(outputs), terms, statistics_M, total)

    # ---- losses of the whole batch as well

    def _all_groups(
        self, step: Step, groups: list[Group], views: Sequence[Views], whole: Views, targets: Targets
    ) -> tuple[list[_Forwarded], BatchLosses]:
        """Forward all groups, take the gradient of the batch's losses at their outputs, backward all groups at once."""
        done = []
        for number, (group, view) in enumerate(zip(groups, views, strict=False)):
            last = number + 1 == len(groups)
            with self._without_sync(not last):
                done.append(self._forward(step, number, group, view, views[len(groups) :] if last else []))
        with self._spans("gather"):
            leaves = {name: rows.requires_grad_() for name, rows in self._gathered(done).items()}
        with self._spans("backward"):
            found = self._batch_losses(step, leaves, targets, whole)
            if found.terms:  # a method may begin with them in a later epoch
                torch.autograd.backward(torch.stack(list(found.terms.values())).sum() / self._settings.batch_size)
            self._settle_modules()
            torch.autograd.backward([one.total + self._pull(one, place, leaves) for place, one in enumerate(done)])
        return done, found

    def _batch_losses(self, step: Step, leaves: Mapping[str, Tensor], targets: Targets, whole: Views) -> BatchLosses:
        modules = self._state.modules
        if modules is not None:
            modules.train()
        if modules is not None and self._modules_drop:
            set_keys(modules, self._keys(step, beside=True))
        found = self._method.batch_losses(leaves, targets, whole, modules, self._epoch)
        self._check_terms("batch_losses", found.terms, len(targets.labels_B))
        # Processors of other kinds may differ in the last bits, and memories must not.
        rows = {name: self._ranks.from_first(rows.detach()) for name, rows in found.rows.items()}
        return BatchLosses(found.terms, rows, found.figures)

    def _pull(self, one: _Forwarded, number: int, leaves: Mapping[str, Tensor]) -> Tensor:
        """A number whose gradient at the group's outputs is what the losses of the batch have there."""
        size = self._settings.model.bn_group_size
        first = (self._shares[self._ranks.rank].start + number) * size
        pulled = [
            (one.gathered[name] * leaf.grad[first : first + size]).sum()
            for name, leaf in leaves.items()
            if leaf.grad is not None
        ]
        return self._ranks.size * torch.stack(pulled).sum() if pulled else torch.zeros_like(one.total)

    def _settle_modules(self) -> None:
        """The modules beside the network saw the same batch on every rank: rank 0's gradients and statistics count."""
        modules = self._state.modules
        if modules is None:
            return
        for parameter in modules.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(self._ranks.from_first(parameter.grad))
        for layer in recorded_layers(modules):  # a step may leave some of them out
            apply_statistics(layer, self._ranks.from_first(take_statistics(layer)).unsqueeze(0))

    # ---- parts of both

    @property
    def _must_attend(self) -> bool:
        return any(replica.meets for replica in self.replicas.values())

    def _views(self, labels_B: Tensor) -> tuple[list[Views], Views]:
        """What the method sees of the memories, round by round, and for the whole batch."""
        by_name = {name: replica.views(labels_B, self._rounds, self._batch) for name, replica in self.replicas.items()}
        seen: list[Views] = [
            {name: views[place] for name, (views, _) in by_name.items()} for place in range(len(self._rounds))
        ]
        return seen, {name: whole for name, (_, whole) in by_name.items()}

    def _gathered(self, done: Sequence[_Forwarded]) -> dict[str, Tensor]:
        """What is gathered of the outputs of all groups of all ranks, without gradients."""
        own = {name: [one.gathered[name].detach() for one in done] for name in done[0].gathered}
        return {name: self._ranks.gather_rows(torch.cat(rows), self._images) for name, rows in own.items()}

    def _mean_losses(self, done: Sequence[_Forwarded]) -> dict[str, Tensor]:
        names = list(done[0].terms)
        if not names:
            return {}
        own_BT = torch.cat([torch.stack([loss.detach() for loss in one.terms.values()], 1) for one in done])
        means_T = self._ranks.gather_rows(own_BT, self._images).mean(0)
        return dict(zip(names, means_T, strict=True))

    @torch.no_grad()
    def _attend(self, view: Views, outputs: Outputs, targets: Targets) -> None:
        """Take part in the exchanges of a round with a group of no images, which is the beginning of another group."""
        heads = None if self._state.heads is None else self._state.heads.layers
        none = type(outputs)(*[None if rows is None else rows[:0] for rows in outputs])
        self._method.group_losses(none, targets.rows(slice(0)), view, heads, self._epoch)

    def _key_dropout(self, step: Step, number: int) -> None:
        if not self._drops:
            return
        size = self._settings.model.bn_group_size
        first = (self._shares[self._ranks.rank].start + number) * size
        set_keys(self._objective, self._keys(step)[first : first + size])

    def _keys(self, step: Step, *, beside: bool = False) -> Tensor:
        """Of dropout, for each image of the global batch; those of the modules beside the network are others."""
        train = self._settings.train
        return image_keys(train.seed, self._epoch, step.number, self._settings.batch_size, beside=beside)

    def _check_terms(self, verb: str, terms: Mapping[str, Tensor], images: int) -> None:
        """Raises ValueError where a term is not a number an image: it would count too much or too little."""
        for name, loss_B in terms.items():
            if loss_B.shape != (images,):
                raise ValueError(
                    f"{type(self._method).__name__}.{verb} must give a number for each of {images} images in "
                    f"{name}, got shape {tuple(loss_B.shape)}"
                )

    def _without_sync(self, wanted: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients of all groups but a worker's last one wait; DDP exchanges them once a step."""
        if wanted and isinstance(self._objective, DistributedDataParallel):
            return self._objective.no_sync()
        return contextlib.nullcontext()

    def _zero_grad(self) -> None:
        self._state.optimiser.zero_grad(set_to_none=True)
        if self._state.heads is not None and self._state.heads.optimiser is not None:
            self._state.heads.optimiser.zero_grad(set_to_none=True)


def _drops(module: nn.Module) -> bool:
    return any(isinstance(layer, KeyedDropout) for layer in module.modules())
