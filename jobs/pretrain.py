"""Make the start weights that ship with reidray: the small network trained with labels on other drawn persons.

The data set, the schedule and the seed are configs/pretrain_small.yaml unless --config says otherwise. The weights
are written as safetensors with the settings, the seed and their SHA-256 inside; the same settings give the same bytes
on the same kind of machine.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path

from reidray.command import parse
from reidray.launch.inference import load_model
from reidray.launch.launch import launch
from reidray.storage.weights import save_weights
from reidray.user_errors import user_errors

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "pretrain_small.yaml"


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="safetensors file to write")


def main() -> None:
    """The job."""
    words = sys.argv[1:]
    if not any(word == "--config" or word.startswith("--config=") for word in words):
        words = ["--config", str(CONFIG), *words]
    with user_errors():
        command = parse(words, prog="jobs/pretrain.py", description=__doc__, extra=_options)
        if command.options.output.exists():
            raise ValueError(f"{command.options.output} exists and is not overwritten: choose another --output")
        if not command.options.output.absolute().parent.is_dir():
            raise ValueError(f"--output {command.options.output}: there is no folder to write it to")
        result = launch(command.settings)
        model, settings = load_model(Path(result["run_dir"]))
        recipe = settings.model_dump(mode="json", exclude={"run": True, "data": {"root", "packed", "cache_dir"}})
        digest = save_weights(model, command.options.output, recipe=recipe, seed=settings.train.seed)
        print(f"{command.options.output}: sha256 {digest}")


if __name__ == "__main__":
    main()
