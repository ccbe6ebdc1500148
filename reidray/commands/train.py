"""Train a person re-identification model without labels.

With no arguments: draws pedestrians, packs them, trains SCWM on two CPU workers, evaluates before and after, and
leaves a run folder. With DATA, a folder of crops or of a public data set: looks which one it is, takes the config that
fits this machine, says what it took and how long it will take, and trains. The same command trains on GPUs, and on a
cluster (ray job submit --working-dir . -- python jobs/train.py ...).
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from reidray.command import parse
from reidray.guess import guessed
from reidray.launch.data_sets import refuse_nothing_there
from reidray.launch.launch import launch
from reidray.settings_io import Layer

_EXAMPLES = (
    ("", "drawn pedestrians: shows that everything works, in minutes"),
    ("crops/", "your own crops, or a public data set: looks which one it is"),
    ("crops/ train.epochs=20 method.eps=0.55", "any setting by its dotted name"),
    ("market/ --config scwm_market1501", "a config that comes with reidray, or a file"),
    ("--print-config > mine.yaml", "every setting, to edit and give back with --config"),
    ("--resume RUN_DIR", "continue where a run stopped"),
)


def main(words: Sequence[str], prog: str) -> None:
    """The command."""
    notes: list[str] = []

    def beneath(options: Namespace, over: Sequence[Layer], has_config: bool) -> list[Layer]:
        if options.data is None or has_config:
            return []
        layers, why = guessed(over)
        notes.extend(why)
        return layers

    command = parse(words, prog=prog, description=__doc__, resume=True, beneath=beneath, data=True, examples=_EXAMPLES)
    refuse_nothing_there(command.settings)
    launch(command.settings, resume=command.options.resume, notes=notes, attended=True)
