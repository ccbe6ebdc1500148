"""The cluster that a run joins or starts, and how many workers fit there."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping

import ray
from ray.autoscaler.sdk import request_resources
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.util.placement_group import PlacementGroup, remove_placement_group

from reidray.actors.reach import check_head, check_temporary_folder
from reidray.config import Settings

# Read by the controller and the workers of Ray Train from the environment of the driver.
_TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon a dead worker is noticed
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it prints every line twice
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # logs an error at every start
}
_LOOK_SECONDS = 1.0


def connect(settings: Settings) -> None:
    """Join the cluster that RAY_ADDRESS names (as in a submitted job), or start Ray on this machine.

    The dashboard of a local start listens on 127.0.0.1 only; token authentication is Ray's default there.

    Raises:
      ValueError: nobody answers at RAY_ADDRESS within run.start_timeout, another token is asked for there, or Ray's
        sockets do not fit below TMPDIR.
    """
    for name, value in _TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(settings.run.start_timeout))
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; else it warns
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        check_head(address, settings.run.start_timeout)
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise ValueError(
                f"could not join the Ray cluster at RAY_ADDRESS={address}: see that a head runs there, that "
                "RAY_AUTH_MODE=token is set, and that the token in RAY_AUTH_TOKEN or ~/.ray/auth_token is the head's "
                f"(Ray said: {_first_line(error)})"
            ) from error
    else:
        check_temporary_folder()
        ray.init(address="local", dashboard_host="127.0.0.1", log_to_driver=False, logging_level=logging.ERROR)


def awaited_workers(settings: Settings, say: Callable[[str], None]) -> tuple[int, bool]:
    """How many workers, and whether each has a GPU; waits for machines that are still to come to a joined cluster.

    Asks the cluster's autoscaler for them, if it has one, and waits `run.start_timeout` seconds. Afterwards the run's
    own actors keep them, and they may go when these have ended.

    Args:
      settings: the run's.
      say: is handed a sentence when it begins to wait.

    Raises:
      ValueError: as `chosen_workers`, when nothing came.
    """
    deadline = time.monotonic() + (settings.run.start_timeout if os.environ.get("RAY_ADDRESS") else 0.0)
    waited = False
    try:
        while True:
            try:
                return chosen_workers(settings, ray.cluster_resources())
            except ValueError as error:
                if time.monotonic() >= deadline:
                    raise
                if not waited:
                    say(f"{error}; waiting {settings.run.start_timeout:g} s for more machines")
                    _ask_for_machines(settings)
                    waited = True
            time.sleep(_LOOK_SECONDS)
    finally:
        if waited:
            request_resources(bundles=[])  # the autoscaler keeps requests after their process has ended


def chosen_workers(settings: Settings, there: Mapping[str, float]) -> tuple[int, bool]:
    """How many workers, and whether each has a GPU.

    run.workers where it is given; else one for every GPU of the cluster that labellers leave, else two on CPUs (one
    where there is only one), and never more than there are BN groups in a batch. With run.min_workers so many are
    enough to begin.

    Args:
      settings: the run's.
      there: the cluster's resources by name.

    Raises:
      ValueError: the cluster has fewer GPUs or CPUs than asked for.
    """
    run = settings.run
    gpus, cpus = int(there.get("GPU", 0)), int(there.get("CPU", 0) - run.bank_shards * run.bank_cpus)
    for_labellers = math.ceil(run.labellers * run.labeller_gpus)
    if for_labellers > gpus:
        raise ValueError(
            f"run.labellers={run.labellers} x run.labeller_gpus={run.labeller_gpus:g} needs "
            f"{for_labellers} GPUs and the cluster has {gpus}: set run.labeller_gpus=0 to label on CPUs"
        )
    gpus -= for_labellers
    use_gpu = run.device == "cuda" or (run.device == "auto" and gpus > 0)
    most = gpus if use_gpu else min(2, max(1, cpus // run.threads))
    workers = run.workers or max(1, min(most, settings.num_groups))
    needed = min(workers, run.min_workers or workers)
    if use_gpu and needed > gpus:
        raise ValueError(
            f"{needed} workers with run.device={run.device} need as many GPUs; the cluster has {gpus} for "
            "them: lower run.workers or set run.device=cpu"
        )
    if needed * run.threads > cpus:
        raise ValueError(
            f"run.workers={needed} x run.threads={run.threads} needs {needed * run.threads} CPUs "
            f"and the cluster has {cpus} for them: lower run.workers or run.threads"
        )
    return workers, use_gpu


def room_beside(settings: Settings, there: Mapping[str, float], workers: int, *, use_gpu: bool) -> bool:
    """Whether workers, labellers and the memory bank leave a CPU (a GPU, where workers have one) for evaluation.

    An elastic group takes everything that is free, so that nothing is left.

    Args:
      settings: the run's.
      there: the cluster's resources by name.
      workers, use_gpu: as chosen.
    """
    run = settings.run
    if not (run.evaluate_beside and settings.evaluate.every) or run.min_workers is not None:
        return False
    gpus = there.get("GPU", 0) - math.ceil(run.labellers * run.labeller_gpus) - workers
    cpus = there.get("CPU", 0) - run.bank_shards * run.bank_cpus - workers * run.threads
    return cpus >= run.threads and (not use_gpu or gpus >= 1)


def give_back_places(actor: str) -> None:
    """Remove the placement groups that a dead actor made: Ray keeps them until the whole job ends.

    Ray Train has a cleaner of its own for those of its controller, which asks the dashboard whether the controller
    lives, so that it does nothing where none runs, and knows a group only once its workers have started.

    Args:
      actor: the actor's id in hexadecimal digits, as in a RayActorError.
    """
    accessor = ray._private.state.state._connect_and_get_accessor()  # Ray's public table does not say who made a group
    for stored in accessor.get_placement_group_table():
        group = PlacementGroupTableData.FromString(stored)
        if group.creator_actor_id.hex() == actor and not group.is_detached:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))


def _ask_for_machines(settings: Settings) -> None:
    """Tell an autoscaler what workers need; where there is none nothing happens."""
    gpu = {} if settings.run.device == "cpu" else {"GPU": 1}
    bundle = {"CPU": settings.run.threads, **gpu}
    request_resources(bundles=[bundle] * (settings.run.workers or 1))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
