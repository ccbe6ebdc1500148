"""Check cluster.yaml and kuberay/rayjob.yaml for what `ray up` and Kubernetes do not look at.

Versions that do not agree, a missing token, an open dashboard, misspelt fields of the cloud, files that are not there,
secrets. One sentence for every finding and status 1; nothing is started and nobody is asked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from reidray.command import parse
from reidray.deployment import cluster_file, rayjob_file, yaml_file


def main(words: Sequence[str], prog: str) -> None:
    """The command."""
    command = parse(words, prog=prog, description=__doc__, extra=_arguments, settings=False)
    found = False
    for path in command.options.files:
        file = yaml_file.read(path, root=Path.cwd(), home=Path.home())
        kind = rayjob_file if "apiVersion" in file.tree else cluster_file
        for sentence in kind.findings(file):
            found = True
            print(f"{path}: {sentence}")
    if found:
        raise SystemExit(1)


def _arguments(parser: argparse.ArgumentParser) -> None:
    default = [Path("cluster.yaml"), Path("kuberay/rayjob.yaml")]
    parser.add_argument("files", metavar="FILE", type=Path, nargs="*", default=default, help="what to check")
