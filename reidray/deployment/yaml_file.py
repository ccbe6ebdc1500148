"""A YAML file that describes a deployment, and the checks that all kinds of them share.

A check is a generator of sentences about one matter; none where nothing is wrong.
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


@dataclass(frozen=True)
class YamlFile:
    """A file as it stands, and where the paths in it lead.

    text, tree: what the file says, and what that is as YAML.
    root: the repository, which relative paths are relative to.
    home: the home folder, which `~` stands for.
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


Check = Callable[[YamlFile], Iterator[str]]


def read(path: Path, *, root: Path, home: Path) -> YamlFile:
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
    return YamlFile(text, tree, root, home)


# --- checks -----------------------------------------------------------------------------------------------------------


def unknown_fields(given: Collection[str], known: Collection[str], where: str) -> Iterator[str]:
    """A sentence for every name that is not known, with the nearest one that is."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            yield f"{where}: unknown field {name}" + (f": did you mean {near[0]}?" if near else "")


def image_versions(file: YamlFile, used: Mapping[str, str]) -> Iterator[str]:
    """Images, by the field that names them, hold the pinned Ray and the same Python as each other."""
    pinned = file.pinned()
    if pinned is None:
        yield f"{file.root / 'constraints.txt'}: expected a line ray==VERSION, found none"
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


def secrets(file: YamlFile) -> Iterator[str]:
    """Nothing that looks like a secret, in a file that is meant to be shared; the sentence does not repeat it."""
    for number, line in enumerate(file.text.splitlines(), 1):
        told = {what for pattern, what in _SECRETS if re.search(pattern, line)}
        if told:
            yield f"line {number} holds {' and '.join(sorted(told))}: take it out"


def placeholders(file: YamlFile) -> Iterator[str]:
    """Words in capitals that stand for something of the reader's are gone."""
    for number, line in enumerate(file.text.splitlines(), 1):
        for word in re.findall(r"\b(?:FILE_SYSTEM_ADDRESS|MACHINE_IMAGE|REGISTRY|STORAGE_CLASS)\b", line.split("#")[0]):
            yield f"line {number}: {word} stands for something of yours: fill it in"


# --- parts of the file ------------------------------------------------------------------------------------------------


def at(tree: Any, *path: str) -> Any:
    """What stands under these names, one below the other; None where there is nothing."""
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def fields(tree: Any, *path: str) -> Mapping[str, Any]:
    """The fields that stand there; none where it is something else."""
    found = at(tree, *path)
    return found if isinstance(found, Mapping) else {}


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
