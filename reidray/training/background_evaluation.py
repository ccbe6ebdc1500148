"""Evaluation of an epoch while the next one trains, on a CPU or GPU that the workers leave free.

At most one evaluation runs at a time. Its figures are waited for before the next checkpoint is written. A checkpoint
that is written while an evaluation runs notes that in its history (`to_evaluate`): a run that resumes from it evaluates
that epoch again. So no figures are lost, and the result does not depend on timing.
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
    """A member whose process may have to be started again, or may have ended for good."""

    def waiting(self) -> bool:
        """Whether its process is still being started, for the first time or again."""
        ...

    def ended(self) -> bool:
        """Whether it has ended and will not be started again."""
        ...


@final
class BackgroundEvaluation:
    """Starts evaluations in another process and collects their figures. Used by rank 0.

    Args:
      member: a `reidray.launch.evaluator.Evaluator` in another process.
      here: evaluates in this process, as a fallback.
      patience: seconds to wait for the other process to start before the fallback is used.
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
