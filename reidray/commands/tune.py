"""Search for good settings: many runs on Ray Tune, compared by a criterion that needs no labels.

SEARCH is a file that names the settings to try and their candidates, or the name of one that comes with reidray
(search_scwm, search_acrm); every setting can be searched but those of the data, the evaluation and the machines. Trials
that lag behind are stopped early. Ctrl-C leaves a folder with which --resume goes on.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from reidray.command import parse
from reidray.packaged import config_file
from reidray.settings_io import Layer
from reidray.tuning.run_search import asked_search, run_search
from reidray.tuning.search_file import settings_of

_EXAMPLES = (
    ("--search search_scwm", "the settings of SCWM, on drawn pedestrians"),
    ("--search search_scwm --trials 8 data.dataset=auto data.root=DIR", "fewer trials, on your data"),
    ("--resume SEARCH_DIR", "continue where a search stopped"),
)


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--search", metavar="SEARCH", help="what to search: a file or a name")
    parser.add_argument("--trials", metavar="N", type=int, help="trials in all, instead of the file's")
    parser.add_argument("--objective", metavar="NAME", help="by what to compare trials, instead of the file's")
    parser.add_argument("--concurrent", metavar="N", type=int, help="trials at a time, at most")


def _file(options: Namespace) -> Path | None:
    return config_file(options.search, "--search") if options.search else None


def _beneath(options: Namespace, _over: Sequence[Layer], _has_config: bool) -> list[Layer]:
    file = _file(options)
    return [settings_of(file)] if file else []


def main(words: Sequence[str], prog: str) -> None:
    """The command."""
    command = parse(
        words, prog=prog, description=__doc__, extra=_options, resume=True, beneath=_beneath, examples=_EXAMPLES
    )
    given = command.options
    asked = asked_search(_file(given), given.resume, given.trials, given.objective)
    status, _ = run_search(command.settings, asked, resume=given.resume, concurrent=given.concurrent)
    sys.exit(status)
