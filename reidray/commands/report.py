"""Write the page of a run again: report.html, its thumbnails, and clusters.parquet.

Every run writes them when it ends. This is for runs that were stopped, that ran with run.report=false, or that an
earlier version made. The images must still be where they were packed, or where --packed says.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from reidray.command import parse


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder")
    parser.add_argument("--packed", metavar="DIR", help="packed shards of the run's images, where they were moved")


def main(words: Sequence[str], prog: str) -> None:
    """The command."""
    options = parse(words, prog=prog, description=__doc__, extra=_options, settings=False).options
    from reidray.launch.run_page import report_again  # --help does not need it

    packed = options.packed
    if packed is not None and "://" not in packed:
        packed = str(Path(packed).resolve())
    print(f"open in a browser: {report_again(options.run.resolve(), packed)}")
