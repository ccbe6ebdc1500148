"""Plain objects become actors here, and nowhere else."""

from __future__ import annotations

from typing import Any, final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from reidray.bank import Done, Lost, Pending


@final
class OnTheWay:
    """A result of an actor's call, which may be an argument of another's."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def result(self) -> Any:
        """Wait for it; a ValueError of the call is raised as such, without Ray's wrapping.

        Raises:
          Lost: the actor is gone, or what it answered.
        """
        try:
            return ray.get(self.reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ValueError):
                raise ValueError(str(error.cause)) from error
            raise
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
            raise Lost(str(error).strip()) from error


@final
class OnRay:
    """A member that is an actor."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def submit(self, method: str, *arguments: Any) -> Pending:
        """Send the call; an argument that is on its way goes from its actor to this one."""
        sent = [_sent(argument) for argument in arguments]
        return OnTheWay(getattr(self._handle, method).remote(*sent))


def placed(kind: type, *arguments: Any, threads: int, gpus: float = 0.0) -> OnRay:
    """An actor of a plain class, owned by the caller: it lives as long as the driver and outlives worker restarts.

    It lives on the driver's node, without which the job is lost anyway, so that no other node's end takes it along. It
    takes no CPU from the placement of training workers: on a laptop there is none to spare, and it works mostly
    while they wait.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS")}
    remote = ray.remote(
        num_cpus=0,
        num_gpus=gpus,
        max_restarts=0,
        runtime_env={"env_vars": environment},
        scheduling_strategy=here,
    )
    return OnRay(remote(kind).remote(*arguments))


def _sent(argument: Any) -> Any:
    if isinstance(argument, OnTheWay):
        return argument.reference
    return argument.result() if isinstance(argument, Done) else argument
