"""What can be told wrong about cluster.yaml without an account, and `ray up` does not look at.

`ray up` checks the names and types of its own fields. It does not look at what the cloud is asked for, whether versions
agree, whether files are there, and who can reach what. Every check is a generator of sentences about one matter.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_GROUPS = ("head", "worker")
_SECRETS = (
    (r"\bA(KIA|SIA)[0-9A-Z]{16}\b", "an access key of AWS"),
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----", "a private key"),
    (
        r"(?i)\b[\w-]*(password|passwd|secret_access_key|secret_key|api_?key)\b['\"]?\s*[:=]\s*['\"]?[^\s'\"]",
        "a password or key",
    ),
    (r"\bRAY_AUTH_TOKEN\s*[:=]\s*\S", "a token"),
    (r"\b(gh[pousr]_\w{30,}|hf_\w{30,}|xox[abp]-\w+)", "a token"),
    (r"\b[0-9a-f]{32,}\b", "something like a token"),
    (r"\w+://[^/\s:@]+:[^/\s@]+@", "a password in a URL"),
)

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


@dataclass(frozen=True)
class Written:
    """A file as it stands, and what it is held against.

    text, tree: what the file says, and what that is as YAML.
    root: the repository, in which the commands are given.
    home: the home folder on the machine that gives them.
    """

    text: str
    tree: Mapping[str, Any]
    root: Path
    home: Path

    def pinned(self) -> str | None:
        """Ray's version in constraints.txt."""
        constraints = self.root / "constraints.txt"
        found = re.search(r"^ray==(\S+)$", constraints.read_text(), re.MULTILINE) if constraints.is_file() else None
        return found[1] if found else None


Check = Callable[[Written], Iterator[str]]


def read(path: Path, *, root: Path, home: Path) -> Written:
    """Reads a file of one YAML document.

    Raises:
      ValueError: it is not readable, or holds something else than fields with values.
      OSError: it cannot be read.
    """
    text = path.read_text()
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected fields with values, got {type(tree).__name__}")
    return Written(text, tree, root, home)


def findings(written: Written) -> list[str]:
    """One sentence for everything that is wrong with a description for `ray up`; none when nothing is."""
    checks: tuple[Check, ...] = (
        token, dashboard, images, shared_memory, spilling, cloud_fields, files, packages, secrets, filled_in,
    )  # fmt: skip
    return [sentence for check in checks for sentence in check(written)]


# --- checks -----------------------------------------------------------------------------------------------------------


def token(written: Written) -> Iterator[str]:
    """The token comes to every node, and Ray asks for it where it is started."""
    mounts = _fields(written.tree, "file_mounts")
    sources = [Path(str(mounts[there])) for there in mounts if str(there).endswith("/.ray/auth_token")]
    if not sources:
        yield 'file_mounts lacks "~/.ray/auth_token": "~/.ray/auth_token": the nodes would have no token'
    for group in _GROUPS:
        start = _start(written, group)
        if start is None:
            yield f"{group}_start_ray_commands: expected exactly one command with `ray start`"
        elif not re.search(r"\bexport RAY_AUTH_MODE=token\b.*\bray start\b", start, re.DOTALL):
            yield (
                f"{group}_start_ray_commands: expected `export RAY_AUTH_MODE=token;` before `ray start`, found none: "
                "whoever reaches the node's ports could run code on it"
            )


def dashboard(written: Written) -> Iterator[str]:
    """Dashboard and job API, which run what they are given, listen on the head alone."""
    start = _start(written, "head")
    host = _option(start, "--dashboard-host") if start else "127.0.0.1"
    if host not in ("127.0.0.1", "localhost"):
        yield (
            f"head_start_ray_commands: expected --dashboard-host=127.0.0.1, got {host or 'none'}: the "
            "dashboard runs what it is given; reach it with `ray dashboard`"
        )


def images(written: Written) -> Iterator[str]:
    """All images hold the pinned Ray, and the same Python."""
    docker = _fields(written.tree, "docker")
    used = {f"docker.{name}": docker[name] for name in ("image", "head_image", "worker_image") if docker.get(name)}
    for kind, node in _types(written).items():
        own = _fields(node, "docker").get("worker_image")
        used |= {f"available_node_types.{kind}.docker.worker_image": own} if own else {}
    yield from versions(written, used)


def versions(written: Written, used: Mapping[str, str]) -> Iterator[str]:
    """Images, by the field that names them, hold the pinned Ray and the same Python as each other."""
    pinned = written.pinned()
    if pinned is None:
        yield f"{written.root / 'constraints.txt'}: expected a line ray==VERSION, found none"
        return
    pythons = {}
    for field, image in used.items():
        tag = str(image).rpartition(":")[2]
        if not re.search(rf"(^|[^\d.]){re.escape(pinned)}($|[^\d.])", tag):
            yield f"{field}: expected an image of Ray {pinned}, as in constraints.txt, got {image}"
        python = re.search(r"-py(\d+)", tag)
        pythons[field] = python[1] if python else "none named"
    if len(set(pythons.values())) > 1:
        told = ", ".join(f"{field} {python}" for field, python in pythons.items())
        yield f"images: expected the same Python in all of them, got {told}"


def shared_memory(written: Written) -> Iterator[str]:
    """Containers get more shared memory than Docker's 64 MB."""
    docker = _fields(written.tree, "docker")
    if not docker:
        return
    for group in _GROUPS:
        if not any(str(option).startswith("--shm-size") for option in _run_options(docker, group)):
            yield (
                f"docker.{group}_run_options: expected --shm-size=SIZE above 30 % of the machine's memory, found "
                "none: Ray's object store would lie on the disk"
            )


def spilling(written: Written) -> Iterator[str]:
    """Objects that do not fit into memory go to a disk of the machine, not into the container."""
    docker = _fields(written.tree, "docker")
    for group in _GROUPS:
        start = _start(written, group)
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


def cloud_fields(written: Written) -> Iterator[str]:
    """AWS knows what node_config asks for; Ray hands it on unseen, and the cloud's answer comes minutes later."""
    if _fields(written.tree, "provider").get("type") != "aws":
        return
    for kind, node in _types(written).items():
        config = _fields(node, "node_config")
        where = f"available_node_types.{kind}.node_config"
        yield from _unknown_ec2(config, "", where)
        if "ImageId" not in config and "LaunchTemplate" not in config:
            yield f"{where}: expected ImageId, found none: Ray's own choice is an image with CUDA 11.2"


def files(written: Written) -> Iterator[str]:
    """What is copied to the nodes is there."""
    for there, here in _fields(written.tree, "file_mounts").items():
        words = str(here)
        place = written.home / words[2:] if words.startswith("~/") else written.root / words
        if not place.exists():
            advice = "; make it with `ray get-auth-token --generate`" if words.endswith("auth_token") else ""
            yield f"file_mounts: {here}, which is to be copied to {there}, is not there{advice}"


def packages(written: Written) -> Iterator[str]:
    """The nodes get the versions that were tested together."""
    commands = [str(command) for command in listed(written.tree, "setup_commands")]
    if not any(
        re.search(r"\bpip install\b.*(-c|--constraint)[ =]\S*constraints\.txt", command) for command in commands
    ):
        yield "setup_commands: expected `pip install -c ~/reidray/constraints.txt ...`, found none"


def secrets(written: Written) -> Iterator[str]:
    """Nothing that looks like a secret, in a file that is meant to be shared; the sentence does not repeat it."""
    for number, line in enumerate(written.text.splitlines(), 1):
        told = {what for pattern, what in _SECRETS if re.search(pattern, line)}
        if told:
            yield f"line {number} holds {' and '.join(sorted(told))}: take it out"


def filled_in(written: Written) -> Iterator[str]:
    """Words in capitals that stand for something of the reader's are gone."""
    for number, line in enumerate(written.text.splitlines(), 1):
        for word in re.findall(r"\b(?:FILE_SYSTEM_ADDRESS|MACHINE_IMAGE|REGISTRY|STORAGE_CLASS)\b", line.split("#")[0]):
            yield f"line {number}: {word} stands for something of yours: fill it in"


# --- parts of the file ------------------------------------------------------------------------------------------------


def unknown_fields(given: Collection[str], known: Collection[str], where: str) -> Iterator[str]:
    """A sentence for every name that is not known, with the nearest one that is."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            yield f"{where}: unknown field {name}" + (f": did you mean {near[0]}?" if near else "")


def listed(tree: Mapping[str, Any], name: str) -> list[Any]:
    """The members of a list of the file; none where it is something else."""
    found = tree.get(name)
    return found if isinstance(found, list) else []


def words_of(command: str) -> list[str]:
    """As a shell takes them; with their quotes where these are not closed."""
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _unknown_ec2(config: Mapping[str, Any], path: str, where: str) -> Iterator[str]:
    yield from unknown_fields(config, (*EC2_FIELDS[path].split(), *_RAYS_OWN), where)
    for name, value in config.items():
        below = f"{path}.{name}" if path else str(name)
        if below in EC2_FIELDS:
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict):
                    yield from _unknown_ec2(one, below, f"{where}.{name}")


def _fields(tree: Any, name: str) -> Mapping[str, Any]:
    """A section of the file; empty where there is none, or something else."""
    found = tree.get(name) if isinstance(tree, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _types(written: Written) -> Mapping[str, Any]:
    return _fields(written.tree, "available_node_types")


def _run_options(docker: Mapping[str, Any], group: str) -> list[Any]:
    return [*listed(docker, "run_options"), *listed(docker, f"{group}_run_options")]


def _start(written: Written, group: str) -> str | None:
    """The one command that starts Ray; None if there is not exactly one."""
    commands = listed(written.tree, f"{group}_start_ray_commands")
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
