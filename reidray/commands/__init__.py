"""The command `reidray`: `reidray train crops/`, `reidray embed ...`. A module of this package is a subcommand.

The files in jobs/ are the same commands, for `ray job submit -- python jobs/train.py`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from reidray.version import __version__

COMMANDS = {
    "train": "train without labels: on your crops, a public data set, or drawn pedestrians",
    "tune": "search for good settings, without labels or with them, on Ray Tune",
    "prepare": "pack a data set into shards, or show what would be read (--dry-run)",
    "evaluate": "mAP and CMC of a run, on its data or on other data sets",
    "embed": "write the embeddings of images to a gallery, or add to it",
    "search": "find the images of a gallery that are most like a photo",
    "browse": "a page on this machine to search a gallery by dropping photos, and an HTTP service",
    "export": "write a run's model as ONNX or for torch.export",
    "report": "write the page report.html of a run anew",
    "compare": "one page with several runs beside each other",
    "check-cluster": "check cluster.yaml and kuberay/rayjob.yaml for what their tools do not look at",
}


def main(argv: Sequence[str] | None = None) -> None:
    """What the console script runs."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("--help", "-h", "help"):
        print(_overview())
        return
    if words[0] == "--version":
        print(f"reidray {__version__}")
        return
    name, *rest = words
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean reidray {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        print(f"error: there is no command {name!r}: {hint} (see reidray --help)", file=sys.stderr)
        raise SystemExit(2)
    run(name, rest, prog=f"reidray {name}")


def run(name: str, words: Sequence[str], *, prog: str) -> None:
    """Runs a subcommand; whatever a person can put right ends in one sentence and status 2.

    Args:
      name: a key of COMMANDS.
      words: its arguments.
      prog: how it was called, for its help.
    """
    from reidray.user_errors import user_errors  # `reidray --help` answers at once

    with user_errors():
        import_module(f"reidray.commands.{name.replace('-', '_')}").main(words, prog)


def job(name: str) -> None:
    """The main() of jobs/<name>.py."""
    run(name.replace("_", "-"), sys.argv[1:], prog=f"python jobs/{name}.py")


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [
        "reidray: unsupervised person re-identification, from crops without labels to an embedding.",
        "",
        "usage: reidray COMMAND ...        (reidray COMMAND --help says more)",
        "",
        *(f"  {name:<{width}}{summary}" for name, summary in COMMANDS.items()),
        "",
        "begin with:",
        "  reidray train                 drawn pedestrians: shows that everything works, in minutes",
        "  reidray train crops/          your own images of people, without labels",
    ]
    return "\n".join(lines)
