"""Search for good settings: many runs on Ray Tune, compared by a criterion that needs no labels.

A search file names the settings to try and their candidates (configs/search_scwm.yaml); every setting can be searched
but those of the data, the evaluation and the machines. Trials that lag behind are stopped early. Ctrl-C leaves a folder
with which --resume goes on.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from reidray.command import parse, user_errors
from reidray.settings_io import Layer
from reidray.tuning.run_search import asked_search, run_search
from reidray.tuning.search_file import settings_of


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--search", metavar="FILE.yaml", type=Path, help="what to search")
    parser.add_argument("--trials", metavar="N", type=int, help="trials in all, instead of the file's")
    parser.add_argument("--objective", metavar="NAME", help="by what to compare trials, instead of the file's")
    parser.add_argument("--concurrent", metavar="N", type=int, help="trials at a time, at most")


def _beneath(options: Namespace) -> list[Layer]:
    return [settings_of(options.search)] if options.search else []


def main() -> None:
    """The job."""
    with user_errors():
        command = parse(
            sys.argv[1:], prog="jobs/tune.py", description=__doc__, extra=_options, resume=True, beneath=_beneath
        )
        given = command.options
        asked = asked_search(given.search, given.resume, given.trials, given.objective)
        status, _ = run_search(command.settings, asked, resume=given.resume, concurrent=given.concurrent)
        sys.exit(status)


if __name__ == "__main__":
    main()
