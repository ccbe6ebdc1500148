"""An epoch's evaluation beside the training of the next one, on a CPU or GPU that the workers leave free.

One evaluation is under way at most. Its figures are there before the next checkpoint is written, and a checkpoint of
the evaluated epoch itself says in its history (`to_evaluate`) that they are still to come: a run that is taken up there
evaluates anew. So nothing is lost and nothing depends on when an answer comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol, final

from reidray.arrays import Array
from reidray.bank import Member, Pending
from reidray.features import Network
from reidray.training.history import Figures

State = Mapping[str, Array]

_LOOK_SECONDS = 0.05


class RestartableMember(Member, Protocol):
    """A member that may have no machine, or be gone for good."""

    def waiting(self) -> bool:
        """Whether it is to be started, for the first time or again, and is not there yet."""
        ...

    def ended(self) -> bool:
        """Whether it answers no more."""
        ...


@final
class BackgroundEvaluation:
    """Rank 0's side of it.

    Args:
      member: a `reidray.launch.evaluator.Evaluator`, in a process of its own.
      here: evaluates in this process, where that one is not there.
      patience: seconds for which a place for it is waited for, once the epoch after has been trained.
    """

    def __init__(self, member: RestartableMember, here: Callable[[State, int], Figures], patience: float) -> None:
        self._member = member
        self._here = here
        self._patience = patience
        self._under_way: tuple[State, int, Pending] | None = None

    def begin(self, model: Network, epoch: int) -> None:
        """Evaluate a copy of the network as it is after this epoch."""
        assert self._under_way is None, "one evaluation at a time"
        state = {name: tensor.to("cpu", copy=True).numpy() for name, tensor in model.state_dict().items()}
        self._under_way = state, epoch, self._member.submit("evaluate", state, epoch)

    def figures(self) -> Figures:
        """The figures of the evaluation that was begun last; waits."""
        assert self._under_way is not None, "no evaluation was begun"
        state, epoch, pending = self._under_way
        self._under_way = None
        deadline = time.monotonic() + self._patience
        while not pending.done() and (time.monotonic() < deadline or not self._member.waiting()):
            time.sleep(_LOOK_SECONDS)
        answered = pending.done() and not self._member.ended()
        return pending.result() if answered else self._here(state, epoch)
