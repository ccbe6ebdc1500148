"""Compare runs on one page: the settings in which they differ, figures side by side, curves over each other.

Run folders of any methods and data sets can be compared; the page needs nothing beside it and opens from disk.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from reidray.command import parse


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run folders, at least two")
    parser.add_argument(
        "--output", metavar="FILE", type=Path, default=Path("comparison.html"), help="page to write (comparison.html)"
    )


def main(words: Sequence[str], prog: str) -> None:
    """The command."""
    options = parse(words, prog=prog, description=__doc__, extra=_options, settings=False).options
    if len(options.runs) < 2:
        raise ValueError("expected at least two run folders to compare, got one")
    if options.output.exists():
        raise ValueError(f"{options.output} exists and is not overwritten: choose another --output")
    if not options.output.absolute().parent.is_dir():
        raise ValueError(f"--output {options.output}: there is no folder {options.output.absolute().parent}")
    from reidray.launch.run_page import compare_runs  # --help does not need it

    compare_runs([run.resolve() for run in options.runs], options.output)
    print(f"open in a browser: {options.output.absolute()}")
