"""Checks of cluster.yaml that need no account in a cloud, and that `ray up` does not make.

Names and types of Ray's own fields are checked by the JSON schema that Ray's package carries, as `ray up` does. Nobody
else checks the fields for the cloud, whether versions agree, whether files exist, and who can reach which port. Every
check is a generator of sentences about one matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator

from reidray.deployment.yaml_file import (
    Check,
    YamlFile,
    fields,
    image_versions,
    listed,
    placeholders,
    secrets,
    unknown_fields,
    words_of,
)

_GROUPS = ("head", "worker")

# Fields of EC2's RunInstances and of what is nested in it here, as botocore 1.43.11 has them (ec2/2016-11-15).
EC2_FIELDS = {
    "": (
        "AdditionalInfo BlockDeviceMappings CapacityReservationSpecification ClientToken CpuOptions "
        "CreditSpecification DisableApiStop DisableApiTermination DryRun EbsOptimized ElasticGpuSpecification "
        "ElasticInferenceAccelerators EnablePrimaryIpv6 EnclaveOptions HibernationOptions IamInstanceProfile ImageId "
        "InstanceInitiatedShutdownBehavior InstanceMarketOptions InstanceType Ipv6AddressCount Ipv6Addresses KernelId "
        "KeyName LaunchTemplate LicenseSpecifications MaintenanceOptions MaxCount MetadataOptions MinCount Monitoring "
        "NetworkInterfaces NetworkPerformanceOptions Operator Placement PrivateDnsNameOptions PrivateIpAddress "
        "RamdiskId SecondaryInterfaces SecurityGroupIds SecurityGroups SubnetId TagSpecifications UserData"
    ),
    "BlockDeviceMappings": "DeviceName Ebs NoDevice VirtualName",
    "BlockDeviceMappings.Ebs": (
        "AvailabilityZone AvailabilityZoneId DeleteOnTermination EbsCardIndex Encrypted Iops KmsKeyId OutpostArn "
        "SnapshotId Throughput VolumeInitializationRate VolumeSize VolumeType"
    ),
    "InstanceMarketOptions": "MarketType SpotOptions",
    "InstanceMarketOptions.SpotOptions": (
        "BlockDurationMinutes InstanceInterruptionBehavior MaxPrice SpotInstanceType ValidUntil"
    ),
    "MetadataOptions": "HttpEndpoint HttpProtocolIpv6 HttpPutResponseHopLimit HttpTokens InstanceMetadataTags",
}
_RAYS_OWN = ("SubnetIds",)  # Ray takes one of them


def findings(file: YamlFile) -> list[str]:
    """One sentence for everything that is wrong with a description for `ray up`; none when nothing is."""
    checks: tuple[Check, ...] = (
        schema, token, dashboard, images, shared_memory, spilling, cloud_fields, files, packages, secrets, placeholders,
    )  # fmt: skip
    return [sentence for check in checks for sentence in check(file)]


# --- checks -----------------------------------------------------------------------------------------------------------


def schema(file: YamlFile) -> Iterator[str]:
    """Ray knows the fields, and they have the types that it expects."""
    ray = find_spec("ray")
    for place in (ray.submodule_search_locations or []) if ray is not None else []:
        written = Path(place) / "autoscaler" / "ray-schema.json"
        for error in Draft7Validator(json.loads(written.read_text())).iter_errors(file.tree):
            where = ".".join(str(part) for part in error.absolute_path)
            if error.validator == "additionalProperties" and isinstance(error.instance, dict):
                yield from unknown_fields(error.instance, list(error.schema.get("properties", ())), where or "cluster")
            else:
                got = "a value" if error.validator != "type" else type(error.instance).__name__
                yield f"{where or 'cluster'}: expected {error.validator} {error.validator_value}, got {got}"


def token(file: YamlFile) -> Iterator[str]:
    """The token comes to every node, and Ray asks for it where it is started."""
    mounts = fields(file.tree, "file_mounts")
    sources = [Path(str(mounts[there])) for there in mounts if str(there).endswith("/.ray/auth_token")]
    if not sources:
        yield 'file_mounts lacks "~/.ray/auth_token": "~/.ray/auth_token": the nodes would have no token'
    for group in _GROUPS:
        start = _start(file, group)
        if start is None:
            yield f"{group}_start_ray_commands: expected exactly one command with `ray start`"
        elif not re.search(r"\bexport RAY_AUTH_MODE=token\b.*\bray start\b", start, re.DOTALL):
            yield (
                f"{group}_start_ray_commands: expected `export RAY_AUTH_MODE=token;` before `ray start`, found none: "
                "whoever reaches the node's ports could run code on it"
            )


def dashboard(file: YamlFile) -> Iterator[str]:
    """Dashboard and job API, which run what they are given, listen on the head alone."""
    start = _start(file, "head")
    host = _option(start, "--dashboard-host") if start else "127.0.0.1"
    if host not in ("127.0.0.1", "localhost"):
        yield (
            f"head_start_ray_commands: expected --dashboard-host=127.0.0.1, got {host or 'none'}: the "
            "dashboard runs what it is given; reach it with `ray dashboard`"
        )


def images(file: YamlFile) -> Iterator[str]:
    """All images hold the pinned Ray, and the same Python."""
    docker = fields(file.tree, "docker")
    used = {f"docker.{name}": docker[name] for name in ("image", "head_image", "worker_image") if docker.get(name)}
    for kind, node in _types(file).items():
        own = fields(node, "docker").get("worker_image")
        used |= {f"available_node_types.{kind}.docker.worker_image": own} if own else {}
    yield from image_versions(file, used)


def shared_memory(file: YamlFile) -> Iterator[str]:
    """Containers get more shared memory than Docker's 64 MB."""
    docker = fields(file.tree, "docker")
    if not docker:
        return
    for group in _GROUPS:
        if not any(str(option).startswith("--shm-size") for option in _run_options(docker, group)):
            yield (
                f"docker.{group}_run_options: expected --shm-size=SIZE above 30 % of the machine's memory, found "
                "none: Ray's object store would lie on the disk"
            )


def spilling(file: YamlFile) -> Iterator[str]:
    """Objects that do not fit into memory go to a disk of the machine, not into the container."""
    docker = fields(file.tree, "docker")
    for group in _GROUPS:
        start = _start(file, group)
        if start is None:
            continue
        place = _option(start, "--object-spilling-directory")
        if place is None:
            yield f"{group}_start_ray_commands: expected --object-spilling-directory=DIR, found none"
        elif docker and not any(
            words[:1] == ["-v"] and words[-1].split(":")[1:2] == [place]
            for words in (str(option).split() for option in _run_options(docker, group))
        ):
            yield f"docker.run_options: expected -v DIR:{place}, found none: spilled objects would fill the container"


def cloud_fields(file: YamlFile) -> Iterator[str]:
    """AWS knows what node_config asks for; Ray hands it on unseen, and the cloud's answer comes minutes later."""
    if fields(file.tree, "provider").get("type") != "aws":
        return
    for kind, node in _types(file).items():
        config = fields(node, "node_config")
        where = f"available_node_types.{kind}.node_config"
        yield from _unknown_ec2(config, "", where)
        if "ImageId" not in config and "LaunchTemplate" not in config:
            yield f"{where}: expected ImageId, found none: Ray's own choice is an image with CUDA 11.2"


def files(file: YamlFile) -> Iterator[str]:
    """What is copied to the nodes is there."""
    for there, here in fields(file.tree, "file_mounts").items():
        words = str(here)
        place = file.home / words[2:] if words.startswith("~/") else file.root / words
        if not place.exists():
            advice = "; make it with `ray get-auth-token --generate`" if words.endswith("auth_token") else ""
            yield f"file_mounts: {here}, which is to be copied to {there}, is not there{advice}"


def packages(file: YamlFile) -> Iterator[str]:
    """The nodes get the versions that were tested together."""
    commands = [str(command) for command in listed(file.tree, "setup_commands")]
    if not any(
        re.search(r"\bpip install\b.*(-c|--constraint)[ =]\S*constraints\.txt", command) for command in commands
    ):
        yield "setup_commands: expected `pip install -c ~/reidray/constraints.txt ...`, found none"


# --- parts of the file ------------------------------------------------------------------------------------------------


def _unknown_ec2(config: Mapping[str, Any], path: str, where: str) -> Iterator[str]:
    yield from unknown_fields(config, (*EC2_FIELDS[path].split(), *_RAYS_OWN), where)
    for name, value in config.items():
        below = f"{path}.{name}" if path else str(name)
        if below in EC2_FIELDS:
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict):
                    yield from _unknown_ec2(one, below, f"{where}.{name}")


def _types(file: YamlFile) -> Mapping[str, Any]:
    return fields(file.tree, "available_node_types")


def _run_options(docker: Mapping[str, Any], group: str) -> list[Any]:
    return [*listed(docker, "run_options"), *listed(docker, f"{group}_run_options")]


def _start(file: YamlFile, group: str) -> str | None:
    """The one command that starts Ray; None if there is not exactly one."""
    commands = listed(file.tree, f"{group}_start_ray_commands")
    starts = [str(command) for command in commands if re.search(r"\bray start\b", str(command))]
    return starts[0] if len(starts) == 1 else None


def _option(command: str, name: str) -> str | None:
    """What follows `--name=` or `--name `."""
    words = words_of(command.replace(";", " ; "))
    for place, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name and place + 1 < len(words):
            return words[place + 1]
    return None
