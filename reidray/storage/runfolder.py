"""The folder that a run leaves behind: settings, measures, losses, log, pictures; created once, never overwritten.

Everything is JSON or YAML and finite. Whole files are written beside their place and renamed; lines are appended one
at a time, and a line that a crash cut short is dropped when the folder is opened again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from reidray.config import Settings
from reidray.disk import write_whole
from reidray.settings_io import as_yaml, load
from reidray.version import __version__

_README = """\
# A run of reidray {version}: {method}, seed {seed}

| file | what it holds |
|---|---|
| `settings.yaml` | every setting of this run, defaults filled in; `--config` takes it |
| `result.json` | the outcome: mAP and CMC before and after in percent, parsing, clusters, seconds; written at the end |
| `metrics.jsonl` | one JSON object per finished epoch; epochs count from 0 |
| `losses.jsonl` | one JSON object per update: `epoch`, `step` (within the epoch, from 0) and `terms` |
| `evaluations.jsonl` | one JSON object per evaluation: `when` is before, epoch or after; figures in percent |
| `clusters.parquet` | who is in which cluster: name, cluster (-1 outlier), doubt in 0..1, camera, nearest other |
| `report.html`, `report/` | what was found, to look at in a browser: open the file; it needs its folder beside it |
| `labels/` | the clusters of every epoch, in the order of the packed images |
| `log.txt` | what the console said |
| `pictures/` | curves, clusters per epoch, part masks over images, ranked lists |
| `tensorboard/` | the same curves for `tensorboard --logdir`; the axis is the number of updates done |
| `checkpoints/` | the newest states; `--resume` on this folder continues from the last one |
| `trace_epoch_*.json` | where `run.trace_epoch` asked for it: who did what when, for https://ui.perfetto.dev |

Identities are used in `evaluations.jsonl`, in the figures of `result.json`, and for measures such as ARI, AMI, purity
and mIoU; training and the choice of labels never see them (unless `method.labels` is `ground_truth`).
"""


class RunFolder:
    """One run's folder. `RunFolder.create` for a new run, `RunFolder.open` to continue or read one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pictures = path / "pictures"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self._metrics = path / "metrics.jsonl"
        self._losses = path / "losses.jsonl"
        self._evaluations = path / "evaluations.jsonl"
        self._result = path / "result.json"
        self._log = path / "log.txt"

    @classmethod
    def create(cls, path: Path, settings: Settings) -> RunFolder:
        """A new folder with the settings written to it.

        Raises:
          ValueError: the folder exists and is not empty, is a file, or cannot be written.
        """
        if path.is_dir() and any(path.iterdir()):
            raise ValueError(
                f"the run folder {path} exists and is never overwritten: choose another run.dir, or continue it with "
                f"--resume {path}"
            )
        folder = cls(path)
        try:
            for part in (folder.path, folder.pictures, folder.tensorboard, folder.checkpoints):
                part.mkdir(parents=True, exist_ok=True)
            folder.write_settings(settings)
            readme = _README.format(version=__version__, method=settings.method.name, seed=settings.train.seed)
            write_whole(path / "README.md", readme)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ValueError(f"the run folder {path} cannot be written ({reason}): choose another run.dir") from None
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an earlier run.

        Raises:
          ValueError: it is no run folder.
        """
        if not (path / "settings.yaml").is_file():
            raise ValueError(f"{path} is no run folder: it has no settings.yaml")
        if (path / "search.yaml").is_file():
            raise ValueError(f"{path} is the folder of a search: reidray tune --resume {path} goes on with it")
        return cls(path)

    def mend(self) -> None:
        """Before the run goes on: drops lines that a crash cut short, makes folders that are missing."""
        for lines in (self._metrics, self._losses, self._evaluations):
            data = lines.read_bytes() if lines.exists() else b""
            if data and not data.endswith(b"\n"):
                with lines.open("r+b") as file:
                    file.truncate(data.rfind(b"\n") + 1)
        for part in (self.pictures, self.tensorboard, self.checkpoints):
            part.mkdir(exist_ok=True)

    def settings(self) -> Settings:
        """The settings that the run was last started or resumed with; `ValueError` where the file was damaged."""
        return load(self.path / "settings.yaml")

    def write_settings(self, settings: Settings) -> None:
        """Replaces settings.yaml at once."""
        write_whole(self.path / "settings.yaml", as_yaml(settings))

    def trace(self, epoch: int) -> Path:
        """Where the timeline of an epoch lies."""
        return self.path / f"trace_epoch_{epoch:04d}.json"

    # --- written while the run goes on --------------------------------------------------------------------------------

    def add_epoch(self, measures: Mapping[str, Any]) -> None:
        """Appends a finished epoch's measures to metrics.jsonl.

        Args:
          measures: `epoch` (int, larger than the last one's) and any finite JSON values, NumPy scalars included.

        Raises:
          ValueError: a value is not finite or not JSON, or the epoch is not a new one.
        """
        line = _object(measures, self._metrics)
        last = max((done["epoch"] for done in self.epochs()), default=-1)
        if _epoch(line) <= last:
            raise ValueError(
                f"{self._metrics} already holds epoch {last}, got epoch {line['epoch']}: call drop_from first"
            )
        _append(self._metrics, [line])

    def add_steps(self, epoch: int, losses: Mapping[str, Sequence[float]]) -> None:
        """Appends an epoch's updates to losses.jsonl: `losses` holds one list a term, all of one length, finite."""
        lengths = {term: len(values) for term, values in losses.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"every loss term of epoch {epoch} must have one value a step, got {lengths}")
        steps = zip(*losses.values(), strict=True)
        lines = [
            {"epoch": epoch, "step": step, "terms": dict(zip(losses, terms, strict=True))}
            for step, terms in enumerate(steps)
        ]
        _append(self._losses, [_object(line, self._losses) for line in lines])

    def add_evaluation(self, figures: Mapping[str, Any]) -> None:
        """Appends to evaluations.jsonl: `when` (before, epoch or after), `epoch` (int or None) and the figures.

        What was recorded of the same moment is replaced: a run that was taken up may evaluate a network once more.
        """
        line = _object(figures, self._evaluations)
        moment = line["when"], line.get("epoch")
        lines = self.evaluations()
        kept = [earlier for earlier in lines if (earlier["when"], earlier.get("epoch")) != moment]
        if len(kept) != len(lines):
            write_whole(self._evaluations, "".join(json.dumps(earlier, allow_nan=False) + "\n" for earlier in kept))
        _append(self._evaluations, [line])

    def drop_from(self, epoch: int) -> None:
        """Forgets what was recorded of `epoch` and later ones: a resumed run will record them again."""
        for path in (self._metrics, self._losses, self._evaluations):
            lines = list(_lines(path))
            kept = [line for line in lines if line.get("when") == "before" or _before(line, epoch)]
            if len(kept) != len(lines):
                write_whole(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept))

    def start_again(self) -> bool:
        """Forgets all measures, losses and evaluations, if the run has any: it was restarted from its beginning."""
        there = [path for path in (self._metrics, self._losses, self._evaluations) if path.exists()]
        for path in there:
            path.unlink()
        return bool(there)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json, replacing an earlier one at once; `ValueError` names a value that is not finite."""
        write_whole(self._result, json.dumps(_object(result, self._result), indent=2, allow_nan=False) + "\n")

    def log(self, text: str) -> None:
        """Appends a line to log.txt."""
        with self._log.open("a", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n")

    # --- read back ----------------------------------------------------------------------------------------------------

    def traces(self) -> list[Path]:
        """The timelines that there are, by epoch."""
        return sorted(self.path.glob("trace_epoch_*.json"))

    def epochs(self) -> list[dict[str, Any]]:
        """The measures of all finished epochs, in order."""
        return list(_lines(self._metrics))

    def steps(self) -> list[dict[str, Any]]:
        """Epoch, step and loss terms of all updates, in order."""
        return list(_lines(self._losses))

    def evaluations(self) -> list[dict[str, Any]]:
        """All evaluations, in order."""
        return list(_lines(self._evaluations))

    def result(self) -> dict[str, Any] | None:
        """result.json, or None while the run has not ended."""
        return json.loads(self._result.read_text("utf-8")) if self._result.exists() else None


def default_run_dir(base: Path, settings: Settings, now: datetime) -> Path:
    """`dated_folder` of a run, named after its method."""
    return dated_folder(base, settings.method.name, now)


def dated_folder(base: Path, name: str, now: datetime) -> Path:
    """`base`/<date>-<time>-<name>, with -2, -3, ... behind it while such a folder exists; `base` is mostly "runs"."""
    first = base / f"{now:%Y%m%d-%H%M%S}-{name}"
    path, number = first, 1
    while path.exists():
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    return path


def _before(line: Mapping[str, Any], epoch: int) -> bool:
    return line.get("epoch") is not None and line["epoch"] < epoch


def _epoch(line: Mapping[str, Any]) -> int:
    epoch = line.get("epoch")
    if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
        raise ValueError(f"the measures of an epoch must hold its number under 'epoch', got {epoch!r}")
    return epoch


def _object(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    return {str(key): _plain(inner, str(key), path) for key, inner in value.items()}


def _plain(value: Any, name: str, path: Path) -> Any:
    """The value as JSON's own types; a number that is not finite is refused by its name."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, f"{name}.{key}", path) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{name}[{place}]", path) for place, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite to be written to {path}, got {value}: the run has diverged")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{name} must be a JSON value to be written to {path}, got {type(value).__name__}")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_text("utf-8").splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            return  # cut short: still being written, or by a crash
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            raise ValueError(f"line {number} of {path} is not JSON: the file was damaged or edited") from None


def _append(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
