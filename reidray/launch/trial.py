"""One trial of a search: an ordinary run in a folder of its own, that says after every epoch how it goes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reidray.config import Settings
from reidray.launch.launch import launch
from reidray.storage.ledger import measured_epochs

Tell = Callable[[dict[str, Any]], None]


def run_trial(settings: Settings, objective: str, tell: Tell) -> None:
    """Run it, or go on with it where its folder has an earlier attempt.

    Args:
      settings: of the trial, with absolute paths; run.dir is its folder.
      objective: the measure by which trials are compared.
      tell: is handed {"epochs", "score"} after every epoch, those of earlier attempts included, the score only where
        the objective is defined; at the end {"state", "sentence", ...}: finished, or failed for a reason that would be
        there again. It may not return, where the trial is to stop.
    """
    assert settings.run.dir is not None
    folder = Path(settings.run.dir)
    told = 0

    def tell_epochs(state: Mapping[str, Any] | None = None) -> None:
        nonlocal told
        lines = measured_epochs(folder)
        last = (
            len(lines) if state is not None else min(len(lines), settings.train.epochs - 1)
        )  # the last: once it is over
        for epochs in range(told + 1, last + 1):
            score = lines[epochs - 1].get(objective)
            ends = state if state is not None and epochs == last else {}
            tell({"epochs": epochs, **({} if score is None else {"score": score}), **ends})
            told = epochs

    def watch(event: Mapping[str, Any]) -> None:
        if event["kind"] == "epoch":
            tell_epochs()

    started = time.perf_counter()
    begun = (folder / "settings.yaml").is_file()
    if not begun:
        shutil.rmtree(folder, ignore_errors=True)  # cut short while it was made
    try:
        launch(settings, resume=folder if begun else None, watch=watch)
    except ValueError as error:
        seconds = time.perf_counter() - started
        tell({"epochs": told, "state": "failed", "sentence": str(error), "seconds": seconds})
        return
    tell_epochs({"state": "finished", "sentence": "", "seconds": time.perf_counter() - started})
