"""Evaluation of a trained network outside of its run: on the run's data, on packed shards, or on another data set."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reidray.config import Settings
from reidray.events import message
from reidray.features import Network
from reidray.launch.inference import offline_context
from reidray.launch.prepare import IfChanged, packed_place, prepared
from reidray.launch.services import num_cpus
from reidray.report.console import Console
from reidray.settings_io import Layer, from_tree, settings_from
from reidray.training.context import evaluation_splits, split_exists
from reidray.training.evaluation import evaluate, remark

_SECTIONS = ("data", "evaluate", "run")


def evaluated(
    network: Network,
    settings: Settings,
    place: Path,
    *,
    data: str | os.PathLike[str] | None,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """The figures of a network: those of `reidray.training.evaluation.evaluate`, and where they were measured.

    Args:
      network: as `load_model` gives it.
      settings: of its run.
      place: its run folder or checkpoint.
      data: a data set's folder, or packed shards; None: what `given` says, else the run's.
      given: settings of the sections data, evaluate and run, by dotted name.

    Raises:
      ValueError: a setting of another section is given, or there is nothing that can be evaluated.
    """
    settings, on_shards = _asked(settings, data, given)
    with Console(None, settings, stream=sys.stderr) as console:
        packed = packed_place(settings)
        if not on_shards:
            own = data is None and not any(name.startswith("data.") for name in given)
            if_changed: IfChanged = "use" if own else "pack"  # the figures of a run are of what it was trained on
            packed = prepared(
                settings,
                console.handle,
                processes=num_cpus(),
                if_changed=if_changed,
                beside=settings.data.packed is None,
            )
        missing = [name for name in evaluation_splits(settings) if not split_exists(packed, name)]
        if missing:
            wanted = " and ".join(evaluation_splits(settings))
            raise ValueError(
                f"{packed}: expected packed shards with {wanted}, found no {missing[0]}: there is nothing to evaluate "
                "on; name a data set with known persons in query and gallery: reidray evaluate --run RUN DIR"
            )
        context = offline_context(settings, packed, place, console.handle)
        console.handle(message(f"evaluating on {packed}"))
        if (sentence := remark(context)) is not None:
            console.handle(message(f"caution: {sentence}"))
        figures = evaluate(context, network.to(context.device), None)
        queries = context.split(evaluation_splits(settings)[0]).source.count
        return {**figures, "num_queries": queries, "packed": packed}


def _asked(settings: Settings, data: str | os.PathLike[str] | None, given: Mapping[str, Any]) -> tuple[Settings, bool]:
    """The settings to evaluate with, and whether shards were given, which are taken as they are."""
    for name in given:
        if name.partition(".")[0] not in _SECTIONS:
            raise ValueError(
                f"{name} belongs to the model, which is trained: only data.*, evaluate.* and run.* can be given"
            )
    over = dict(given)
    if data is not None:
        text = os.fspath(data)
        shards = "://" in text or (Path(text).expanduser() / "dataset.json").is_file()
        over["data.packed" if shards else "data.root"] = text
    if "data.dataset" in over and "data.root" not in over and over.get("data.packed") is None:
        if over["data.dataset"] != "drawn":
            raise ValueError(f"data.dataset={over['data.dataset']} needs data.root=DIR, or name the folder itself")
        over |= {"data.root": None, "data.packed": None}
    elif "data.root" in over:
        over.setdefault("data.dataset", "auto")
        over.setdefault("data.packed", None)
    base = Layer("", from_tree(settings.model_dump(mode="json"), "").values)
    if data is None and not given and settings.data.packed is not None:
        return settings, False
    changed = settings_from([base, from_tree(over, "")]).resolved(Path.cwd())
    return changed, over.get("data.packed") is not None
