"""The replica of a memory that a step is trained against: whole on every rank, or shared out over the ranks.

B = images of a BN group, M = images of all ranks in a round, C = clusters, R = rows on this rank, U = clusters in the
global batch, S = spaces, T = spaces asked for, D = feature width, W = ranks, E = numbers of a partial (3 + D).

A round is one BN group of every rank that has one left. Ranks have different numbers of groups; where the rows are
shared out, all must meet in every round, those without a group with no images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from reidray.losses import centroid_contrast, joined_contrast, partial_contrast, unpacked, with_gradient
from reidray.memory import clusters_in_batch
from reidray.methods.step import Memory, WholeMemory
from reidray.training.ranks import Ranks

# Of each rank, the places of its images in the global batch; an empty range where it has no group.
Round = Sequence[range]


def rounds(groups: Sequence[range], size: int) -> list[Round]:
    """For each round the images of each rank's group, where it has one: `groups` are those of each rank, in order."""

    def images(share: range, number: int) -> range:
        return range(share[number] * size, (share[number] + 1) * size) if number < len(share) else range(0)

    return [[images(share, number) for share in groups] for number in range(max(map(len, groups)))]


class Replica(WholeMemory, Protocol):
    """What the engine asks of the replica of one epoch.

    meets: whether the verbs of a view wait for all ranks, so that a rank without a group must call them too.
    """

    meets: bool

    def views(self, labels_B: Tensor, rounds: Sequence[Round], batch: Round) -> tuple[Sequence[Memory], Memory]:
        """What methods see of it in the step whose batch has these labels: in each round, and of the whole batch.

        batch: the images of each rank. Every rank has the features of all of them when it asks the second view.
        """
        ...

    def write(self, clusters_U: Tensor, rows_USD: Tensor) -> None:
        """Take the rows that a step moved; the views of that step are not used any more."""
        ...

    def held(self) -> tuple[Tensor, Tensor]:
        """The clusters [R] whose rows are on this rank, ascending, and their rows [R, S, D]."""
        ...


@final
class Replicated:
    """All rows on every rank: the fastest, as long as they fit. It is its own view."""

    meets = False

    def __init__(self, centroids_CSD: Tensor) -> None:
        self._centroids_CSD = centroids_CSD

    def views(
        self,
        labels_B: Tensor,  # noqa: ARG002
        rounds: Sequence[Round],
        batch: Round,  # noqa: ARG002
    ) -> tuple[Sequence[Memory], Memory]:
        """Itself, in every round."""
        return [self] * len(rounds), self

    def contrast(self, features_BSD: Tensor, labels_B: Tensor, spaces: Sequence[int], *, temperature: float) -> Tensor:
        """See `Memory.contrast`."""
        losses = [
            centroid_contrast(features_BSD[:, space], labels_B, self._centroids_CSD[:, space], temperature=temperature)
            for space in spaces
        ]
        return torch.stack(losses, 1)

    def rows(self, clusters: Tensor) -> Tensor:
        """See `Memory.rows`."""
        return self._centroids_CSD[clusters]

    def all_rows(self) -> Tensor:
        """All of them."""
        return self._centroids_CSD

    def write(self, clusters_U: Tensor, rows_USD: Tensor) -> None:
        """In place."""
        self._centroids_CSD[clusters_U] = rows_USD

    def held(self) -> tuple[Tensor, Tensor]:
        """All of them."""
        return torch.arange(len(self._centroids_CSD)), self._centroids_CSD


@final
class Sharded:
    """Rank r of W has the rows of the clusters c with c mod W = r: C / W rows on every rank, no rank has all.

    The remainder rather than contiguous blocks, as in the memory bank: who has a cluster then follows from W alone, any
    number of clusters divides to within one row, and a batch's clusters spread evenly in whatever order labelling
    numbered them.

    A step begins with one exchange, of the rows of the batch's clusters (U x S x D; what a method pulls towards, and
    moves). A call of `contrast` is two: the features of the round go to all ranks, each contrasts them with its own
    rows (`reidray.losses.partial`), and every image's partials come back to its rank, where they are joined in
    rank order. The backward pass exchanges nothing, so nothing can come between DDP's exchanges of gradients.

    Args:
      rows_RSD: this rank's, in the order of their clusters.
      ranks: all of them make the same calls in the same order.
    """

    meets = True

    def __init__(self, rows_RSD: Tensor, ranks: Ranks) -> None:
        self._rows_RSD = rows_RSD
        self._ranks = ranks

    def views(self, labels_B: Tensor, rounds: Sequence[Round], batch: Round) -> tuple[Sequence[Memory], Memory]:
        """A view a round; asks all ranks for the rows of the batch's clusters."""
        clusters_U, _ = clusters_in_batch(labels_B.cpu())
        rows_USD = self._fetched(clusters_U)
        clusters_on = clusters_U.to(self._rows_RSD.device)
        *views, own = (self._view(labels_B.cpu(), clusters_on, rows_USD, places) for places in [*rounds, batch])
        return views, _WholeView(own, batch[self._ranks.rank])

    def write(self, clusters_U: Tensor, rows_USD: Tensor) -> None:
        """In place, this rank's rows of them."""
        mine_U = clusters_U % self._ranks.size == self._ranks.rank
        self._rows_RSD[clusters_U[mine_U] // self._ranks.size] = rows_USD[mine_U]

    def all_rows(self) -> Tensor:
        """Refused."""
        raise ValueError(
            "run.replica=sharded has no place for classifiers with a row a cluster: set run.replica=replicated, or "
            "leave the losses out that need them"
        )

    def held(self) -> tuple[Tensor, Tensor]:
        """Every W-th cluster and its row."""
        places_R = torch.arange(len(self._rows_RSD))
        return self._ranks.rank + self._ranks.size * places_R, self._rows_RSD

    def _fetched(self, clusters_U: Tensor) -> Tensor:
        """The rows [U, S, D] of some clusters, given in the same order on all ranks, from those who have them."""
        size = self._ranks.size
        by_owner_U = torch.argsort(clusters_U % size, stable=True)
        counts = torch.bincount(clusters_U % size, minlength=size).tolist()
        mine = clusters_U[clusters_U % size == self._ranks.rank] // size
        gathered_USD = self._ranks.gather_rows(self._rows_RSD[mine.to(self._rows_RSD.device)], counts)
        return gathered_USD[torch.argsort(by_owner_U).to(gathered_USD.device)]

    def _view(self, labels_B: Tensor, clusters_U: Tensor, rows_USD: Tensor, places: Round) -> _View:
        size = self._ranks.size
        labels_M = torch.cat([labels_B[own.start : own.stop] for own in places])
        places_M = torch.where(labels_M % size == self._ranks.rank, labels_M // size, -1)
        counts = [len(own) for own in places]
        own = places[self._ranks.rank]
        device = self._rows_RSD.device
        labels_own = labels_B[own.start : own.stop].to(device)
        return _View(self._rows_RSD, self._ranks, clusters_U, rows_USD, places_M.to(device), labels_own, counts)


@final
@dataclass(frozen=True)
class _View:
    """A round of a step.

    rows_RSD: this rank's rows. clusters_U, rows_USD: of the batch. places_M: which of this rank's rows is the own one
    of each image of the round, -1 where another rank has it. labels_B: of this rank's images in the round. counts:
    images of each rank in the round.
    """

    rows_RSD: Tensor
    ranks: Ranks
    clusters_U: Tensor
    rows_USD: Tensor
    places_M: Tensor
    labels_B: Tensor
    counts: list[int]

    def contrast(self, features_BSD: Tensor, labels_B: Tensor, spaces: Sequence[int], *, temperature: float) -> Tensor:
        """See `Memory.contrast`."""
        assert len(features_BSD) == self.counts[self.ranks.rank], "all images of the group, and nothing else"
        assert torch.equal(labels_B, self.labels_B), "the row of an image is its cluster's"
        own_BTD = self.rows(labels_B)[:, spaces]
        features_BTD = features_BSD[:, spaces]
        met_MTD = self.ranks.gather_rows(features_BTD.detach(), self.counts)
        partials_MTE = torch.stack(
            [
                partial_contrast(
                    met_MTD[:, place], self.places_M, self.rows_RSD[:, space], temperature=temperature
                ).packed()
                for place, space in enumerate(spaces)
            ],
            1,
        )
        partials_WBTE = self.ranks.exchange_rows(partials_MTE, self.counts)
        joined = [
            joined_contrast([unpacked(part_BE) for part_BE in partials_WBE], own_BTD[:, place], temperature=temperature)
            for place, partials_WBE in enumerate(partials_WBTE.unbind(2))
        ]
        losses, gradients = zip(*joined, strict=True)
        return with_gradient(features_BTD, torch.stack(losses, 1), torch.stack(gradients, 1))

    def rows(self, clusters: Tensor) -> Tensor:
        """See `Memory.rows`."""
        places = torch.searchsorted(self.clusters_U, clusters).clamp_max(len(self.clusters_U) - 1)
        assert bool((self.clusters_U[places] == clusters).all()), "only the rows of the batch's clusters are here"
        return self.rows_USD[places]


@final
@dataclass(frozen=True)
class _WholeView:
    """A step's whole batch, whose features all ranks have: each asks for its own images, and all share the answers.

    view: of this rank's images. own: their places in the batch.
    """

    view: _View
    own: range

    def contrast(self, features_BSD: Tensor, labels_B: Tensor, spaces: Sequence[int], *, temperature: float) -> Tensor:
        """See `Memory.contrast`."""
        counts, ranks = self.view.counts, self.view.ranks
        assert len(features_BSD) == sum(counts), "all images of the batch, and nothing else"
        mine = slice(self.own.start, self.own.stop)
        features_bSD = features_BSD.detach()[mine].requires_grad_()
        with torch.enable_grad():
            loss_bT = self.view.contrast(features_bSD, labels_B[mine], spaces, temperature=temperature)
            (gradient_bSD,) = torch.autograd.grad(loss_bT.sum(), features_bSD)
        loss_BT = ranks.gather_rows(loss_bT.detach(), counts)
        gradient_BTD = ranks.gather_rows(gradient_bSD[:, spaces], counts)
        return with_gradient(features_BSD[:, spaces], loss_BT, gradient_BTD)

    def rows(self, clusters: Tensor) -> Tensor:
        """See `Memory.rows`."""
        return self.view.rows(clusters)
