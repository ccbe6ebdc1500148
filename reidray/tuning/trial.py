"""One trial of a search: an ordinary run in a folder of its own, that says after every epoch how it goes."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reidray.config import Settings
from reidray.errors import PassingError
from reidray.launch.launch import launch
from reidray.tuning.ledger import measured_epochs

Tell = Callable[[dict[str, Any]], None]


def run_trial(settings: Settings, tell: Tell, *, objective: str) -> None:
    """Run it, or go on with it where its folder has an earlier attempt.

    Args:
      settings: of the trial, with absolute paths; run.dir is its folder.
      tell: called with {"epochs", "score"} after every epoch, epochs of earlier attempts included; the score is missing
        where the objective is not defined. At the end also "state" and "sentence": finished; failed, for a reason that
        would occur again; or crashed (error.txt in the folder has the traceback of an unexpected error). A call does
        not return where Tune stops the trial.
      objective: the measure by which trials are compared.
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

    begun = (folder / "settings.yaml").is_file()
    if not begun:
        shutil.rmtree(folder, ignore_errors=True)  # cut short while it was made
    try:
        launch(settings, resume=folder if begun else None, watch=watch)
    except ValueError as error:
        state = "crashed" if isinstance(error, PassingError) else "failed"
        tell({"epochs": told, "state": state, "sentence": str(error)})
        return
    except Exception as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text(traceback.format_exc(), "utf-8")
        tell({"epochs": told, "state": "crashed", "sentence": f"{type(error).__name__}: {error}"})
        return
    tell_epochs({"state": "finished", "sentence": ""})
