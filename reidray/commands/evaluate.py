"""Evaluate a run on query and gallery images, by Market-1501's protocol.

Without DATA: on the data of the run; the figures are those of the run, to the last digit. With DATA, one or more
folders of data sets or of packed shards: on each of them. The figures go to standard output as JSON; of several data
sets as a table.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reidray.command import parse
from reidray.launch.evaluation import evaluated
from reidray.launch.inference import load_model
from reidray.settings_io import from_words

_COLUMNS = ("mAP", "rank1", "rank5", "rank10", "mINP", "num_valid_queries")


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--run", "--checkpoint", dest="run", metavar="DIR", type=Path, required=True, help="run folder or checkpoint"
    )
    parser.add_argument("--packed", metavar="DIR", help="packed shards to evaluate on, as DATA does; never packed anew")
    parser.add_argument("--split", choices=("test", "validation"), help="short for evaluate.split=...")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="*",
        help="folders of data sets or shards, or data.NAME=value, evaluate.NAME=value",
    )


def main(words: Sequence[str], prog: str) -> None:
    """The command."""
    options = parse(words, prog=prog, description=__doc__, extra=_options, settings=False).options
    if options.json and not options.json.absolute().parent.is_dir():
        raise ValueError(f"--json {options.json}: there is no folder {options.json.absolute().parent}")
    places = [word for word in options.data if not _is_setting(word)]
    given = {
        name: value
        for layer in from_words([w for w in options.data if _is_setting(w)])
        for name, value in layer.values.items()
    }
    if options.packed is not None:
        given |= {"data.packed": options.packed}
    if options.split is not None:
        given |= {"evaluate.split": options.split}
    if places and ("data.root" in given or "data.packed" in given):
        raise ValueError("give data sets as DATA or as data.root=DIR (--packed DIR), not as both")
    network, settings = load_model(options.run.resolve())
    found = {}
    for place in places or [None]:
        found[place or "of the run"] = evaluated(network, settings, options.run, data=place, given=given)
    figures: Mapping[str, Any] = found if len(found) > 1 else next(iter(found.values()))
    print("\n".join(_table(found)) if len(found) > 1 else json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def _is_setting(word: str) -> bool:
    return "=" in word and not Path(word).exists()


def _table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    width = max(map(len, found)) + 2
    lines = ["data".ljust(width) + "".join(f"{name:>10}" for name in (*_COLUMNS[:-1], "queries"))]
    for place, figures in found.items():
        numbers = [f"{figures[name]:10.1f}" for name in _COLUMNS[:-1]]
        lines.append(
            place.ljust(width) + "".join(numbers) + f"{figures['num_valid_queries']:,} of {figures['num_queries']:,}"
        )
    return lines
