"""Training and evaluation from Python: `reidray.train("crops/")`, `reidray.evaluate(model, "market/")`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reidray.guess import guessed
from reidray.inference.model import Model, load
from reidray.launch.evaluation import evaluated
from reidray.launch.launch import launch
from reidray.packaged import config_file
from reidray.settings_io import Layer, from_file, from_tree, settings_from

Figures = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      path: its folder; `report.html` in it is a page to look at.
      result: what result.json says: figures before and after, clusters, seconds.
    """

    path: Path
    result: Mapping[str, Any]

    def load(self) -> Model:
        """The model that it trained."""
        return load(self.path)


def train(
    data: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    watch: Callable[[Mapping[str, Any]], None] | None = None,
) -> Run:
    """Trains without labels, and leaves a run folder.

    Args:
      data: folder of crops or of a known data set, or a list of files (CSV, Parquet). None: pedestrians are drawn.
      config: a settings file, or the name of one that comes with reidray, such as "scwm_folder". None: one that fits
        the data and this machine.
      settings: by dotted name, over those of the file: {"train.epochs": 3, "run.dir": "runs/one"}.
      watch: called with every event of the training: progress, labels, losses, figures.

    Raises:
      ValueError: one sentence for everything that can be put right.
    """
    over: list[Layer] = [from_tree(dict(settings or {}), "")]
    if config is not None:
        over.insert(0, from_file(config_file(os.fspath(config))))
    if data is not None:
        over.append(from_tree({"data.root": os.fspath(data)}, ""))
    under, why = guessed(over) if data is not None and config is None else ([], [])
    result = launch(settings_from([*under, *over]), watch=watch, notes=why)
    return Run(Path(result["run_dir"]), result)


def evaluate(
    model: Model | str | os.PathLike[str],
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
) -> Figures | dict[str, Figures]:
    """mAP, CMC and mINP of a model on query and gallery images, by Market-1501's protocol, in percent.

    Args:
      model: of `reidray.load`, or a run folder.
      data: folder of a data set with identities, or packed shards; several give the figures of each by its place. None:
        the data of the run.
      settings: of the sections data, evaluate and run, by dotted name.

    Raises:
      ValueError: nothing is there that can be evaluated.
    """
    if not isinstance(model, Model):
        model = load(model)
    if data is not None and not isinstance(data, str | os.PathLike):
        return {os.fspath(one): _evaluated(model, one, settings) for one in data}
    return _evaluated(model, data, settings)


def _evaluated(model: Model, data: str | os.PathLike[str] | None, settings: Mapping[str, Any] | None) -> Figures:
    return evaluated(model.network, model.settings, Path(model.place), data=data, given=dict(settings or {}))
