"""Makes Ray actors of plain objects; no other module does."""

from __future__ import annotations

from typing import Any, final

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from reidray.bank import Done, Pending

_BESIDE = "beside"  # the group of calls that run in a thread of their own
_A_BYTE = 1  # of memory: Ray sends actors that ask for nothing to any machine, whatever their strategy


@final
class OnTheWay:
    """The pending result of an actor's call, which may be an argument of another call."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def result(self) -> Any:
        """Wait for it; a ValueError or OSError of the call is raised as such, without Ray's wrapping."""
        try:
            return ray.get(self.reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OSError):
                raise OSError(error.cause.errno, error.cause.strerror or str(error.cause)) from error
            if isinstance(error.cause, ValueError):
                raise ValueError(str(error.cause)) from error
            raise

    def done(self) -> bool:
        """Whether the call has ended."""
        return bool(ray.wait([self.reference], timeout=0, fetch_local=False)[0])


@final
class OnRay:
    """A member that is an actor.

    Args:
      handle: of the actor.
      beside: methods whose calls run beside all others; calls of other methods run in order, one at a time.
    """

    def __init__(self, handle: Any, beside: frozenset[str] = frozenset()) -> None:
        self._handle = handle
        self._beside = beside

    def submit(self, method: str, *arguments: Any) -> Pending:
        """Send the call; an argument that is on its way goes from its actor to this one."""
        call = getattr(self._handle, method)
        if method in self._beside:
            call = call.options(concurrency_group=_BESIDE)
        return OnTheWay(call.remote(*[_sent(argument) for argument in arguments]))

    def waiting(self) -> bool:
        """Whether it is to be started, for the first time or again, and is not there yet."""
        return self._state() not in ("ALIVE", "DEAD")

    def ended(self) -> bool:
        """Whether it will not be started again."""
        return self._state() == "DEAD"

    def _state(self) -> str:
        known = ray._private.state.actors(self._handle._actor_id.hex())  # Ray's public list needs a dashboard
        return str(known.get("State"))

    def end(self) -> None:
        """End the actor. Ray would keep it as long as the driver lives, since other actors have its handle as bytes."""
        ray.kill(self._handle)


def placed(
    kind: type,
    *arguments: Any,
    threads: int,
    restarts: int,
    cpus: float = 0.0,
    gpus: float = 0.0,
    spread: bool = True,
    label: str | None = None,
    beside: tuple[str, ...] = (),
) -> OnRay:
    """An actor of a plain class, owned by the caller: it lives as long as the driver and outlives worker restarts.

    A process that dies is started again with the same arguments, on another machine if its own is gone, and the pending
    calls are made again. So repeating a call must do no harm, and the object must notice that it has lost its state.

    Args:
      kind, arguments: of the object.
      threads: of each pool of its process.
      restarts: how often it is started again; -1: always.
      cpus, gpus: taken from the placement of training workers. Without CPUs it works beside them: on a laptop there
        are none to spare, and it works mostly while they wait.
      spread: over the machines; else it lives on the driver's, without which the job is lost anyway.
      label: name=value that its machine must have (Ray's label selector).
      beside: methods that run in a thread of their own.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS")}
    remote = ray.remote(
        num_cpus=cpus,
        num_gpus=gpus,
        memory=_A_BYTE,
        max_restarts=restarts,
        max_task_retries=-1,
        runtime_env={"env_vars": environment},
        scheduling_strategy="SPREAD" if spread else here,
        concurrency_groups={_BESIDE: 1},
        **({"label_selector": dict([label.split("=")])} if label else {}),
    )
    return OnRay(remote(_opening(kind)).remote(cloudpickle.dumps(arguments)), frozenset(beside))


def _opening(kind: type) -> type:
    """A class like `kind` that is constructed from the pickled bytes of its arguments.

    Ray reports an error on the console, at every start, where the arguments of an actor that may be restarted contain
    handles of other actors, because these might be gone by then. Here the caller keeps those actors as long as this
    one. Unpickling adds no risk: the bytes arrive in a message of Ray, which is itself a pickle.
    """

    class Opening(kind):
        def __init__(self, arguments: bytes) -> None:
            super().__init__(*cloudpickle.loads(arguments))

    Opening.__name__ = Opening.__qualname__ = kind.__name__
    return Opening


def _sent(argument: Any) -> Any:
    if isinstance(argument, OnTheWay):
        return argument.reference
    return argument.result() if isinstance(argument, Done) else argument
