"""What a search has done so far: one line when a trial begins, one when it ends, so that a crash loses neither.

The trials' own run folders hold everything else; `Entry` reads from them what the search compares.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reidray.storage.runfolder import RunFolder

_FIGURES = ("mAP", "rank1")

STATES = ("finished", "stopped", "failed", "crashed")


@dataclass(frozen=True)
class Entry:
    """A trial.

    state: finished; stopped (by the scheduler); failed (the sentence says why; it would fail again); crashed (it will
      be tried again); None while it runs or was interrupted.
    scores: the objective by the number of epochs done, of the epochs where it is defined.
    measures: of its last epoch, and mAP where it was measured.
    """

    trial: int
    values: Mapping[str, Any]
    folder: Path
    state: str | None = None
    sentence: str = ""
    seconds: float = 0.0
    epochs: int = 0
    scores: Mapping[int, float] = field(default_factory=dict)
    measures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether there is no more to do."""
        return self.state in ("finished", "stopped", "failed")

    @property
    def score(self) -> float | None:
        """The objective after the last epoch, None where it is not defined."""
        return self.scores.get(self.epochs)


class Ledger:
    """The lines of `trials.jsonl` in a search folder.

    Args:
      folder: of the search.
      objective: the measure by which trials are compared.
    """

    def __init__(self, folder: Path, objective: str) -> None:
        self._folder = folder
        self._path = folder / "trials.jsonl"
        self._objective = objective

    def began(self, trial: int, values: Mapping[str, Any]) -> None:
        """A trial was handed out for the first time."""
        self._append({"trial": trial, "values": dict(values)})

    def ended(self, trial: int, state: str, sentence: str, seconds: float) -> None:
        """A trial has ended, or crashed."""
        assert state in STATES
        self._append({"trial": trial, "state": state, "sentence": sentence, "seconds": round(seconds, 1)})

    def entries(self) -> list[Entry]:
        """All trials handed out so far, in order, with what their run folders hold."""
        lines = self._path.read_text("utf-8").splitlines(keepends=True) if self._path.exists() else []
        trials: dict[int, dict[str, Any]] = {}
        for line in lines:
            if line.endswith("\n"):  # else a crash cut it short
                told = json.loads(line)
                entry = trials.setdefault(told["trial"], {"seconds": 0.0})
                seconds = entry["seconds"] + told.get("seconds", 0.0)
                entry.update(told, seconds=seconds)
        return [self._entry(told) for _, told in sorted(trials.items())]

    def entry(self, trial: int) -> Entry:
        """One trial."""
        return next(entry for entry in self.entries() if entry.trial == trial)

    def trial_folder(self, trial: int) -> Path:
        """Its run folder."""
        return self._folder / "trials" / f"{trial:03}"

    def _entry(self, told: Mapping[str, Any]) -> Entry:
        folder = self.trial_folder(told["trial"])
        lines = measured_epochs(folder)
        scores = {line["epoch"] + 1: line[self._objective] for line in lines if line.get(self._objective) is not None}
        return Entry(
            trial=told["trial"],
            values=told["values"],
            folder=folder,
            state=told.get("state"),
            sentence=told.get("sentence", ""),
            seconds=told["seconds"],
            epochs=len(lines),
            scores=scores,
            measures=lines[-1] if lines else {},
        )

    def _append(self, line: Mapping[str, Any]) -> None:
        data = self._path.read_bytes() if self._path.exists() else b""
        if data and not data.endswith(b"\n"):  # a crash cut the last line short
            os.truncate(self._path, data.rfind(b"\n") + 1)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def measured_epochs(folder: Path) -> list[dict[str, Any]]:
    """The epochs' measures in a run folder, with mAP and rank-1 where they were evaluated.

    Where a run chose the network that it reports, the last ones are of the labels that judged that network, so that
    they belong to its mAP.
    """
    run = RunFolder(folder)
    lines = run.epochs()
    evaluated = {figures["epoch"]: figures for figures in run.evaluations() if figures["when"] == "epoch"}
    for line in lines:
        line.update({name: evaluated[line["epoch"]][name] for name in _FIGURES if line["epoch"] in evaluated})
    result = run.result()
    chosen = None if result is None else result.get("selected")
    judged = next((line for line in lines if chosen is not None and line["epoch"] == chosen["epoch"] + 1), None)
    if judged is not None:
        lines[-1] = {**judged, "epoch": lines[-1]["epoch"]}
    if lines and result is not None and result["after"] is not None:
        lines[-1].update({name: result["after"][name] for name in _FIGURES})
    return lines
