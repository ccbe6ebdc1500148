"""Evaluate a run on query and gallery images, by Market-1501's protocol.

Without DATA: on the data of the run; the figures are those of the run, to the last digit. With DATA, one or more
folders of data sets or of packed shards: on each of them. Prints a table in percent; without DATA with the figures
before training, where the run measured them. --json prints JSON in its place, or also writes it to a file.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reidray.command import parse
from reidray.config import Settings
from reidray.counted import counted
from reidray.launch.evaluation import evaluated
from reidray.launch.inference import load_model
from reidray.report.figure_names import alone, comparison
from reidray.settings_io import from_words
from reidray.storage.cache import hide_login
from reidray.storage.runfolder import RunFolder

_COLUMNS = ("mAP", "rank1", "rank5", "rank10", "mINP")


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--run", "--checkpoint", dest="run", metavar="DIR", type=Path, required=True, help="run folder or checkpoint"
    )
    parser.add_argument("--packed", metavar="DIR", help="packed shards to evaluate on, as DATA does; never packed anew")
    parser.add_argument("--split", choices=("test", "validation"), help="short for evaluate.split=...")
    parser.add_argument(
        "--json", metavar="FILE", nargs="?", const="", help="print JSON; with FILE: write it there, beside the table"
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="*",
        help="folders of data sets or shards, or data.NAME=value, evaluate.NAME=value",
    )


def main(words: Sequence[str], prog: str) -> None:
    """The command."""
    options = parse(words, prog=prog, description=__doc__, extra=_options, settings=False).options
    file = Path(options.json) if options.json else None
    if file is not None and (file.is_dir() or _is_setting(str(file))):
        raise ValueError(f"--json {file} is no file: name one, or put --json last to print JSON")
    if file is not None and not file.absolute().parent.is_dir():
        raise ValueError(f"--json {file}: there is no folder {file.absolute().parent}")
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
        try:
            found[place or "of the run"] = evaluated(network, settings, options.run, data=place, given=given)
        except ValueError:
            if found:
                print("\n".join(_table(found)))  # what was measured is not lost with what could not be
            raise
    figures: Mapping[str, Any] = found if len(found) > 1 else next(iter(found.values()))
    if options.json == "":
        print(json.dumps(figures, indent=1))
        return
    if len(found) > 1:
        print("\n".join(_table(found)))
    else:
        own = not places and not any(name.startswith("data.") for name in given)
        print("\n".join(_alone(figures, _before(options.run, settings, given, figures) if own else None)))
    if file is not None:
        file.write_text(json.dumps(figures, indent=1) + "\n")


def _before(
    place: Path, settings: Settings, given: Mapping[str, Any], figures: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """The figures that a run noted before training; None where it noted none, or measures otherwise than was asked for.

    Args:
      place: the run folder, or a checkpoint, which knows of none.
      settings: of the run.
      given: settings that were given to this evaluation.
      figures: of this evaluation.
    """
    asked = {name.partition(".")[2]: value for name, value in given.items() if name.startswith("evaluate.")}
    own = settings.evaluate.model_dump(mode="json")
    if any(own.get(name) != value for name, value in asked.items()) or not (place / "evaluations.jsonl").is_file():
        return None
    noted = next((line for line in RunFolder.open(place).evaluations() if line.get("when") == "before"), None)
    same = noted is not None and noted.get("num_valid_queries") in (None, figures["num_valid_queries"])
    return noted if same else None


def _alone(figures: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> list[str]:
    queries = f"{figures['num_valid_queries']:,} of {counted(figures['num_queries'], 'query', 'queries')}"
    lines = [f"on {hide_login(figures['packed'])}, {queries}, in percent"]
    return [*lines, *(alone(figures) if earlier is None else comparison(earlier, figures)[1:-1])]


def _is_setting(word: str) -> bool:
    return "=" in word and not Path(word).exists()


def _table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Rows of data sets, in percent."""
    queries = [f"{figures['num_valid_queries']:,} of {figures['num_queries']:,}" for figures in found.values()]
    width, last = max(len("in percent"), *map(len, found)) + 2, max(len("queries"), *map(len, queries)) + 3
    lines = ["in percent".ljust(width) + "".join(f"{name:>10}" for name in _COLUMNS) + "queries".rjust(last)]
    for (place, figures), counts in zip(found.items(), queries, strict=True):
        numbers = "".join(f"{figures[name]:10.2f}" for name in _COLUMNS)
        lines.append(place.ljust(width) + numbers + counts.rjust(last))
    return lines
