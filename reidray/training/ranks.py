"""Who else trains: one process, or the ranks of a process group.

The engine asks a `Ranks` to gather; formulas never do. Everything gathered comes in rank order, which is the order of
the global batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, final

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


class Ranks(Protocol):
    """The workers that train together."""

    rank: int
    size: int

    def gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all ranks one after another; `counts` says how many each rank has."""
        ...

    def exchange_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """What all ranks have for this one: [size, counts[rank], ...].

        rows: what this rank has for each, one rank's after another's; `counts` says how many those of each rank are,
        and is the same on all.
        """
        ...

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, on every rank; for small things once in a while."""
        ...

    def broadcast(self, value: Value) -> Value:
        """The value of rank 0, on every rank."""
        ...

    def from_first(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor, of the shape and type of this one, on every rank."""
        ...

    def barrier(self) -> None:
        """Wait for everyone."""
        ...


@final
class OneProcess:
    """Alone."""

    rank = 0
    size = 1

    def gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows themselves."""
        assert counts == [len(rows)]
        return rows

    def exchange_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows themselves, with an axis before them."""
        assert counts == [len(rows)]
        return rows.unsqueeze(0)

    def gather(self, value: Value) -> list[Value]:
        """The value itself."""
        return [value]

    def broadcast(self, value: Value) -> Value:
        """The value itself."""
        return value

    def from_first(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def barrier(self) -> None:
        """Nobody to wait for."""


@final
class ProcessGroup:
    """The ranks of torch.distributed's default process group."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """One all_gather; ranks with fewer rows are padded on the way."""
        assert counts[self.rank] == len(rows)
        longest = max(counts)
        padded = rows.contiguous()
        if len(rows) < longest:
            padded = torch.cat([padded, padded.new_zeros(longest - len(rows), *rows.shape[1:])])
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(gathered, padded)
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])

    def exchange_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """One all_to_all."""
        assert sum(counts) == len(rows)
        received = rows.new_empty(self.size * counts[self.rank], *rows.shape[1:])
        dist.all_to_all_single(received, rows.contiguous(), [counts[self.rank]] * self.size, list(counts))
        return received.view(self.size, counts[self.rank], *rows.shape[1:])

    def gather(self, value: Value) -> list[Value]:
        """all_gather of objects."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Value) -> Value:
        """broadcast of an object."""
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def from_first(self, tensor: Tensor) -> Tensor:
        """broadcast of a tensor."""
        received = tensor.clone()
        dist.broadcast(received, src=0)
        return received

    def barrier(self) -> None:
        """dist.barrier."""
        dist.barrier()
