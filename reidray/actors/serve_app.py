"""Replicas of a model and its gallery on Ray Serve, and the engine that asks them.

The replicas do the work, no more: HTTP, the token and the limits stay with the process that listens
(`reidray.serving`), so that Serve's own proxy, which knows neither, is not started. Every question may be asked again:
when a replica dies, what it was asked goes to another one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayTaskError

from reidray.actors.cluster import connect
from reidray.arrays import Floats
from reidray.config import Settings
from reidray.gallery import Gallery, Match
from reidray.inference import load
from reidray.serving.engine import About, LocalEngine, Upload, Wanted

_WAIT_SECONDS = 0.002
"""For others that come to a batch."""

_AT_ONCE = 64
"""Questions that a replica has at a time."""

_AGAIN_SECONDS = 120.0
"""How long a question is asked again when replicas die."""


class Replica:
    """A process with the model and the gallery.

    Args:
      run: folder of the run or checkpoint.
      gallery: its file.
      threads: of a forward pass.
    """

    def __init__(self, run: str, gallery: str, threads: int) -> None:
        model = load(run)
        self._engine = LocalEngine(model, Gallery(gallery, model), threads=threads, batched=_batched)
        self._engine.warm()

    async def embed(self, uploads: Sequence[Upload]) -> Floats:
        """See `reidray.serving.Engine`."""
        return await self._engine.embed(uploads)

    async def search(self, upload: Upload, wanted: Wanted) -> list[Match]:
        """See `reidray.serving.Engine`."""
        return await self._engine.search(upload, wanted)

    async def about(self) -> About:
        """Its model."""
        return self._engine.about


def _batched(
    work: Callable[[list[Any]], Sequence[Any]],
    *,
    most: int,
    at_once: int,
    size: Callable[[Any], int],
    executor: Executor,
) -> Callable[[Any], Awaitable[Any]]:
    """Serve's batches in place of `reidray.serving.batching.Batcher`."""

    @serve.batch(
        max_batch_size=most,
        batch_wait_timeout_s=_WAIT_SECONDS,
        max_concurrent_batches=at_once,
        batch_size_fn=lambda items: sum(size(item) for item in items),
    )
    async def together(items: list[Any]) -> Sequence[Any]:
        return await asyncio.get_running_loop().run_in_executor(executor, work, items)

    return together


class ReplicaEngine:
    """Asks replicas; a `reidray.serving.Engine`.

    Args:
      handle: of the deployment.
      about: of its model.
    """

    def __init__(self, handle: Any, about: About) -> None:
        self._handle, self.about = handle, about

    async def embed(self, uploads: Sequence[Upload]) -> Floats:
        """See `reidray.serving.Engine`."""
        features_ND: Floats = await self._asked("embed", uploads)
        return features_ND

    async def search(self, upload: Upload, wanted: Wanted) -> list[Match]:
        """See `reidray.serving.Engine`."""
        found: list[Match] = await self._asked("search", upload, wanted)
        return found

    async def _asked(self, method: str, *arguments: Any) -> Any:
        """The answer of a replica, of another one where one has died."""
        until = time.monotonic() + _AGAIN_SECONDS
        wait = 0.05
        while True:
            try:
                return await getattr(self._handle, method).remote(*arguments)
            except RayTaskError as error:
                if isinstance(error.cause, ValueError):
                    raise error.cause from None
                raise
            except RayActorError:
                if time.monotonic() > until:
                    raise ValueError("no replica answers: all have died, and none was started in time") from None
            await asyncio.sleep(wait)
            wait = min(1.0, 2 * wait)


@contextmanager
def replicas(run: Path, gallery: Path, count: int, *, name: str) -> Iterator[ReplicaEngine]:
    """Starts replicas, on the cluster of RAY_ADDRESS or on this machine, and ends them.

    Where the cluster has GPUs each replica gets one, or its share of them. On CPUs each gets its share of the
    machine's.

    Args:
      run, gallery: paths that all machines see.
      count: of replicas.
      name: of Serve's application; another one of the same name would be replaced.

    Raises:
      ValueError: the cluster cannot be joined, or the replicas cannot be started.
    """
    ours = not ray.is_initialized()
    connect(Settings())
    there = ray.cluster_resources()
    gpus = min(1.0, int(there.get("GPU", 0)) / count)
    threads = max(1, int(there.get("CPU", 1)) // count)
    kind = serve.deployment(
        num_replicas=count,
        max_ongoing_requests=_AT_ONCE,
        health_check_period_s=2,
        health_check_timeout_s=10,
        ray_actor_options={
            "num_cpus": min(threads, there.get("CPU", 1) / count),
            "num_gpus": gpus,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}},
        },
    )(Replica)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(proxy_location="Disabled")
    try:
        handle = serve.run(kind.bind(str(run), str(gallery), threads), name=name, route_prefix=None)
        yield ReplicaEngine(handle, handle.about.remote().result(timeout_s=_AGAIN_SECONDS))
    finally:
        if ours and not _joined():
            serve.shutdown()
            ray.shutdown()
        else:
            serve.delete(name)


def _joined() -> bool:
    """Whether the cluster is one that others use as well."""
    return bool(os.environ.get("RAY_ADDRESS"))
