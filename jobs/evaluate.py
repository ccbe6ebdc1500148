"""Evaluate a checkpoint on the query and gallery images of its data set, by Market-1501's protocol.

The figures are those of the run, to the last digit, and go to standard output as JSON. The data set, the network and
everything else come from the checkpoint; --packed evaluates on other shards, --split on another split.
"""

import json
import sys
from argparse import ArgumentParser
from pathlib import Path

from reidray.command import parse, user_errors
from reidray.config import Settings
from reidray.launch.inference import load_model, offline_context
from reidray.launch.prepare import packed_place, prepared
from reidray.launch.services import num_cpus
from reidray.report.console import Console
from reidray.training.context import evaluation_splits, split_exists
from reidray.training.evaluation import evaluate


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--checkpoint", metavar="DIR", type=Path, required=True, help="checkpoint or run folder")
    parser.add_argument("--packed", metavar="DIR", help="packed shards to evaluate on, instead of the run's")
    parser.add_argument("--split", choices=("test", "validation"), help="instead of the run's evaluate.split")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to this file")


def main() -> None:
    """The job."""
    with user_errors():
        options = parse(
            sys.argv[1:], prog="jobs/evaluate.py", description=__doc__, extra=_options, settings=False
        ).options
        if options.json and not options.json.absolute().parent.is_dir():
            raise ValueError(f"--json {options.json}: there is no folder {options.json.absolute().parent}")
        model, settings = load_model(options.checkpoint.resolve())
        settings = _with(settings, options.packed, options.split)
        with Console(None, settings, stream=sys.stderr) as console:
            if options.packed:
                packed = _packed(settings, options.packed)
            else:
                packed = prepared(settings, console.handle, processes=num_cpus())
            context = offline_context(settings, packed, options.checkpoint, console.handle)
            figures = evaluate(context, model.to(context.device), None)
        print(json.dumps(figures, indent=1))
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")


def _packed(settings: Settings, given: str) -> str:
    """The shards that were asked for, of whatever data set; nothing is packed in their place."""
    place = packed_place(settings)
    missing = [name for name in evaluation_splits(settings) if not split_exists(place, name)]
    if missing:
        raise ValueError(
            f"--packed {given}: expected packed shards with {' and '.join(evaluation_splits(settings))}, found no "
            f"{missing[0]}; pack with jobs/prepare.py first"
        )
    return place


def _with(settings: Settings, packed: str | None, split: str | None) -> Settings:
    place = packed or packed_place(settings)
    place = place if "://" in place else str(Path(place).resolve())
    data = settings.data.model_copy(update={"packed": place})
    evaluation = settings.evaluate.model_copy(update={"split": split or settings.evaluate.split})
    return settings.model_copy(update={"data": data, "evaluate": evaluation})


if __name__ == "__main__":
    main()
