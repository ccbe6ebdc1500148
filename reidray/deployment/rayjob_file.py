"""Checks of kuberay/rayjob.yaml that need no Kubernetes.

KubeRay's resource definition (CRD) is not part of this repository. The field names below were copied by hand from its
versions 1.5 and 1.6, as far as the description of a run needs them. In a pod only what Ray depends on is checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from reidray.deployment.yaml_file import (
    Check,
    YamlFile,
    at,
    fields,
    image_versions,
    listed,
    placeholders,
    secrets,
    unknown_fields,
    words_of,
)

_INSTALLED = PurePosixPath("/home/ray/reidray")  # where the Dockerfile puts the repository
_FIELDS = {
    "spec": (
        "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus "
        "entrypointNumGpus entrypointResources jobId managedBy metadata rayClusterSpec runtimeEnvYAML "
        "shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished"
    ),
    "spec.rayClusterSpec": (
        "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
        "headServiceAnnotations managedBy rayVersion suspend upgradeStrategy workerGroupSpecs"
    ),
    "spec.rayClusterSpec.autoscalerOptions": (
        "env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext upscalingMode version "
        "volumeMounts"
    ),
    "headGroupSpec": "enableIngress headService labels rayStartParams resources serviceType template",
    "workerGroupSpecs": (
        "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts rayStartParams replicas resources "
        "scaleStrategy suspend template"
    ),
}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def findings(file: YamlFile) -> list[str]:
    """One sentence for everything that is wrong with a RayJob; none when nothing is."""
    checks: tuple[Check, ...] = (
        kind, names, token, closed, images, start_parameters, replicas, resources, shared_memory, storage, entrypoint,
        secrets, placeholders,
    )  # fmt: skip
    return [sentence for check in checks for sentence in check(file)]


# --- checks -----------------------------------------------------------------------------------------------------------


def kind(file: YamlFile) -> Iterator[str]:
    """It is a RayJob, and has what KubeRay needs of one."""
    for field, expected in (("apiVersion", "ray.io/v1"), ("kind", "RayJob")):
        if file.tree.get(field) != expected:
            yield f"{field}: expected {expected}, got {file.tree.get(field)}"
    name = at(file.tree, "metadata", "name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", name):
        yield f"metadata.name: expected at most 47 small letters, digits and hyphens, got {name}"
    for field in ("entrypoint", "rayClusterSpec"):
        if not at(file.tree, "spec", field):
            yield f"spec.{field}: expected one, found none"
    for field in ("headGroupSpec", "workerGroupSpecs"):
        if not _cluster(file).get(field):
            yield f"spec.rayClusterSpec.{field}: expected one, found none"


def names(file: YamlFile) -> Iterator[str]:
    """No field that KubeRay does not know, which Kubernetes would drop or refuse."""
    for where in ("spec", "spec.rayClusterSpec", "spec.rayClusterSpec.autoscalerOptions"):
        yield from unknown_fields(fields(file.tree, *where.split(".")), _FIELDS[where].split(), where)
    for where, group in _groups(file):
        yield from unknown_fields(group, _FIELDS[where.split("[")[0]].split(), where)


def token(file: YamlFile) -> Iterator[str]:
    """KubeRay makes a token and every pod asks for it."""
    mode = at(_cluster(file), "authOptions", "mode")
    if mode != "token":
        yield (
            f"spec.rayClusterSpec.authOptions.mode: expected token, got {mode or 'none'}: whoever reaches the "
            "head's service could run code on it"
        )


def closed(file: YamlFile) -> Iterator[str]:
    """Dashboard and job API are not offered outside of Kubernetes."""
    head = fields(_cluster(file), "headGroupSpec")
    service = head.get("serviceType", "ClusterIP")
    if service != "ClusterIP":
        yield f"headGroupSpec.serviceType: expected ClusterIP, got {service}: the dashboard runs what it is given"
    if head.get("enableIngress"):
        yield "headGroupSpec.enableIngress: expected false, got true: the dashboard runs what it is given"
    for where, group in _groups(file):
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if _pod(group).get(field):
                yield f"{where}.template.spec.{field}: expected none, got true: the pod would share it with the machine"


def images(file: YamlFile) -> Iterator[str]:
    """Manifest, images and the Dockerfile they come from are of the pinned Ray."""
    used = {
        f"{where}.template.spec.containers[0].image": str(_ray(group).get("image")) for where, group in _groups(file)
    }
    dockerfile = file.root / "Dockerfile"
    base = re.search(r"^FROM\s+(\S+)", dockerfile.read_text(), re.MULTILINE) if dockerfile.is_file() else None
    yield from image_versions(file, used | ({"Dockerfile: FROM": base[1]} if base else {}))
    stated, pinned = _cluster(file).get("rayVersion"), file.pinned()
    if pinned is not None and stated != pinned:
        yield f"spec.rayClusterSpec.rayVersion: expected {pinned}, as in constraints.txt, got {stated}"


def start_parameters(file: YamlFile) -> Iterator[str]:
    """rayStartParams are texts: Kubernetes refuses numbers and truth values there."""
    for where, group in _groups(file):
        given = fields(group, "rayStartParams")
        for name, value in given.items():
            if not isinstance(value, str):
                yield f"{where}.rayStartParams.{name}: expected a text, got {value}: put it in quotes"
        place = given.get("object-spilling-directory")
        if place is None:
            yield f"{where}.rayStartParams: expected object-spilling-directory, found none: Ray would spill to /tmp"
        elif "emptyDir" not in _mounted(group).get(str(place), {}):
            yield f"{where}: expected an emptyDir at {place}, where Ray spills, found none"


def replicas(file: YamlFile) -> Iterator[str]:
    """Numbers of workers fit together, and something changes them where they may change."""
    for where, group in _groups(file):
        if where == "headGroupSpec":
            continue
        if not group.get("groupName"):
            yield f"{where}.groupName: expected a name, found none"
        least, now, most = (group.get(name) for name in ("minReplicas", "replicas", "maxReplicas"))
        if not (isinstance(least, int) and isinstance(now, int) and isinstance(most, int)):
            yield f"{where}: expected numbers for minReplicas, replicas and maxReplicas, got {least}, {now} and {most}"
        elif not 0 <= least <= now <= most:
            yield f"{where}: expected minReplicas <= replicas <= maxReplicas, got {least}, {now} and {most}"
        elif least < most and not _cluster(file).get("enableInTreeAutoscaling"):
            yield f"{where}: expected enableInTreeAutoscaling for {least} to {most} replicas, found none"


def resources(file: YamlFile) -> Iterator[str]:
    """Ray takes a pod's limits for what is there; GPUs are given whole."""
    for where, group in _groups(file):
        asked, limits = (fields(_ray(group), "resources", name) for name in ("requests", "limits"))
        for name in ("cpu", "memory"):
            if name not in asked or name not in limits:
                yield f"{where}: expected {name} in requests and in limits of the first container"
        gpus = limits.get("nvidia.com/gpu")
        if asked.get("nvidia.com/gpu") != gpus:
            got = f"{asked.get('nvidia.com/gpu')} and {gpus}"
            yield f"{where}: expected as many nvidia.com/gpu in requests as in limits, got {got}"
        if gpus is not None and not re.fullmatch(r"[1-9]\d*", str(gpus)):
            yield f"{where}: expected a whole number of nvidia.com/gpu, got {gpus}"


def shared_memory(file: YamlFile) -> Iterator[str]:
    """Pods get memory at /dev/shm, and less of it than they have."""
    for where, group in _groups(file):
        place = fields(_mounted(group).get("/dev/shm", {}), "emptyDir")  # noqa: S108  (a mount point in a pod)
        if place.get("medium") != "Memory":
            yield f"{where}: expected an emptyDir with medium: Memory at /dev/shm, where Ray's objects lie, found none"
            continue
        size, limit = _bytes(place.get("sizeLimit")), _bytes(at(_ray(group), "resources", "limits", "memory"))
        if size is None or (limit is not None and size >= limit):
            yield f"{where}: /dev/shm needs a sizeLimit below the container's memory, got {place.get('sizeLimit')}"


def storage(file: YamlFile) -> Iterator[str]:
    """All pods see the same volume under the same path, and the run writes there."""
    claims = []
    for _, group in _groups(file):
        mounted = _mounted(group)
        claims.append({
            (place, str(volume["persistentVolumeClaim"].get("claimName")))
            for place, volume in mounted.items() if isinstance(volume.get("persistentVolumeClaim"), Mapping)
        })  # fmt: skip
    common = set.intersection(*claims) if claims else set()
    if not common:
        yield "volumes: expected one persistentVolumeClaim under the same path in all pods, found none"
        return
    for name, value in _settings(file).items():
        places = [place for place, _ in common]
        if name in ("run.dir", "data.packed", "data.root") and "://" not in value and not _below(value, places):
            yield f"spec.entrypoint: expected {name} below {' or '.join(places)}, which all pods see, got {value}"
    if "run.dir" not in _settings(file) and "--resume" not in _words(file):
        yield "spec.entrypoint: expected run.dir=DIR on the shared volume, found none: the run would go with its pod"


def entrypoint(file: YamlFile) -> Iterator[str]:
    """What is called is in the image, and no shell is needed to call it."""
    words = _words(file)
    for word in words:
        if re.search(r"[;&|<>$`'\"]", word):
            yield f"spec.entrypoint: expected no {word}: the pod that submits would take it for itself"
        if word.startswith("/") and word.endswith((".py", ".yaml")):
            path = PurePosixPath(word)
            there = path.relative_to(_INSTALLED) if path.is_relative_to(_INSTALLED) else None
            if there is None or not (file.root / there).is_file():
                yield f"spec.entrypoint: {word} is not in the image, where the repository is {_INSTALLED}"
        elif word.endswith((".py", ".yaml")):
            yield f"spec.entrypoint: expected {_INSTALLED / word}, got {word}: a job does not begin in that folder"


# --- parts of the file ------------------------------------------------------------------------------------------------


def _cluster(file: YamlFile) -> Mapping[str, Any]:
    return fields(file.tree, "spec", "rayClusterSpec")


def _groups(file: YamlFile) -> list[tuple[str, Mapping[str, Any]]]:
    """The head's group and those of the workers, with where they stand."""
    workers = _cluster(file).get("workerGroupSpecs")
    found = [("headGroupSpec", fields(_cluster(file), "headGroupSpec"))]
    for place, group in enumerate(workers if isinstance(workers, list) else []):
        found.append((f"workerGroupSpecs[{place}]", group if isinstance(group, Mapping) else {}))
    return found


def _pod(group: Mapping[str, Any]) -> Mapping[str, Any]:
    return fields(group, "template", "spec")


def _ray(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container that runs Ray: the first."""
    containers = _pod(group).get("containers")
    first = containers[0] if isinstance(containers, list) and containers else None
    return first if isinstance(first, Mapping) else {}


def _mounted(group: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Volumes by the path at which Ray's container sees them."""
    volumes = {str(one.get("name")): one for one in listed(_pod(group), "volumes") if isinstance(one, Mapping)}
    mounts = [mount for mount in listed(_ray(group), "volumeMounts") if isinstance(mount, Mapping)]
    return {str(mount.get("mountPath")): volumes.get(str(mount.get("name")), {}) for mount in mounts}


def _words(file: YamlFile) -> list[str]:
    return words_of(str(at(file.tree, "spec", "entrypoint") or ""))


def _settings(file: YamlFile) -> dict[str, str]:
    return {name: value for name, equals, value in (word.partition("=") for word in _words(file)) if equals}


def _below(path: str, places: list[str]) -> bool:
    return any(PurePosixPath(path).is_relative_to(place) for place in places)


def _bytes(quantity: Any) -> float | None:
    """A number of bytes as Kubernetes writes it."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?i?)", str(quantity))
    return float(found[1]) * _UNITS[found[2]] if found and found[2] in _UNITS else None
