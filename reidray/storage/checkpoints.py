"""Checkpoints: a folder each, safetensors and JSON, there whole or not at all.

    epoch_0003/
      model.safetensors       the network
      optimiser.safetensors   Adam's moments, "<number of parameter>/<name>"
      rng.safetensors         torch's generator of every rank, "rank/<r>"
      bank.safetensors        the memory bank's tables, "<table>/<block>"
      state.json              epoch, history, settings, and the SHA-256 of every file above

A checkpoint is written beside its place and renamed into it; where an epoch is written again, the old folder is called
epoch_0003.replaced until the new one is in its place. One whose hashes do not agree is passed over with a sentence,
and the one before it is taken. Writing runs in a thread while training goes on; no pickle is involved.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor

from reidray.arrays import Array

FORMAT = 1
_FILES = ("model.safetensors", "optimiser.safetensors", "rng.safetensors", "bank.safetensors")
_PREFIX = "epoch_"
_NAME = re.compile(rf"{_PREFIX}(\d+)(\.replaced)?")


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on after an epoch as if it had never stopped.

    epoch: the last finished one. model: the network's state. optimiser: state of each parameter by number.
    rng: torch's generator state of every rank. bank: `MemoryBank.snapshot`. history: metrics so far.
    settings: the run's settings tree.
    """

    epoch: int
    model: dict[str, Tensor]
    optimiser: dict[int, dict[str, Tensor]]
    rng: list[Tensor]
    bank: dict[str, Array]
    history: dict[str, Any]
    settings: dict[str, Any]


class CheckpointStore:
    """The checkpoints of a run.

    Args:
      folder: where they are; made when the first is written.
      keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write in the background; waits for the one before, and raises what went wrong with it."""
        self.wait()
        copied = Checkpoint(
            checkpoint.epoch,
            {name: tensor.detach().cpu().clone() for name, tensor in checkpoint.model.items()},
            {n: {name: t.detach().cpu().clone() for name, t in s.items()} for n, s in checkpoint.optimiser.items()},
            [state.clone() for state in checkpoint.rng],
            checkpoint.bank,
            json.loads(json.dumps(checkpoint.history)),
            checkpoint.settings,
        )
        self._writing = self._writer.submit(self._write, copied)

    def wait(self) -> None:
        """Until what was handed to `save` is on disk."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Finish writing."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, and a sentence for each damaged one that was passed over."""
        passed_over: list[str] = []
        for _, _, path in reversed(_places(self._folder)):
            try:
                return load_checkpoint(path), passed_over
            except (ValueError, OSError) as error:
                passed_over.append(str(error))
        return None, passed_over

    def load(self, epoch: int) -> Checkpoint:
        """The checkpoint of an epoch; `ValueError` where it is missing or damaged."""
        return load_checkpoint(self._folder / f"{_PREFIX}{epoch:04d}")

    def _write(self, checkpoint: Checkpoint) -> None:
        place = self._folder / f"{_PREFIX}{checkpoint.epoch:04d}"
        building = self._folder / f".{place.name}.{os.getpid()}"
        replaced = self._folder / f"{place.name}.replaced"
        shutil.rmtree(building, ignore_errors=True)
        try:
            building.mkdir(parents=True)
            self._write_files(building, checkpoint)
            if place.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                place.rename(replaced)
            building.rename(place)
            _sync_folder(self._folder)
        except (OSError, SafetensorError) as error:
            if replaced.exists() and not place.exists():
                replaced.rename(place)
            shutil.rmtree(building, ignore_errors=True)
            raise OSError(
                getattr(error, "errno", None) or errno.EIO,
                f"could not write checkpoint {place}: {getattr(error, 'strerror', None) or error}; "
                "the one before it is untouched",
            ) from error
        shutil.rmtree(replaced, ignore_errors=True)
        for left in self._folder.glob(f".{_PREFIX}*"):  # by a writer that was killed
            shutil.rmtree(left, ignore_errors=True)
        # Damaged ones of later epochs, which were passed over, do not count.
        kept = [path for epoch, _, path in _places(self._folder) if epoch <= checkpoint.epoch]
        for old in kept[: -self._keep]:
            shutil.rmtree(old)

    def _write_files(self, folder: Path, checkpoint: Checkpoint) -> None:
        save_file(
            {name: tensor.contiguous() for name, tensor in checkpoint.model.items()}, folder / "model.safetensors"
        )
        moments = {
            f"{n}/{name}": tensor.contiguous()
            for n, state in checkpoint.optimiser.items()
            for name, tensor in state.items()
        }
        save_file(moments, folder / "optimiser.safetensors")
        save_file({f"rank/{rank}": state for rank, state in enumerate(checkpoint.rng)}, folder / "rng.safetensors")
        save_arrays(
            {key: np.ascontiguousarray(rows) for key, rows in checkpoint.bank.items()}, folder / "bank.safetensors"
        )
        files = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
        state = {
            "format": FORMAT,
            "epoch": checkpoint.epoch,
            "history": checkpoint.history,
            "settings": checkpoint.settings,
            "files": files,
        }
        with (folder / "state.json").open("w") as stream:
            json.dump(state, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint folder.

    Raises:
      ValueError: it is not one, of another format, or a file is missing or damaged.
    """
    try:
        state = json.loads((path / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a whole checkpoint: state.json is missing or unreadable") from error
    if not isinstance(state, dict) or "format" not in state:
        raise ValueError(f"{path} is not a whole checkpoint: state.json does not say its format")
    if state["format"] != FORMAT:
        raise ValueError(f"{path} has checkpoint format {state['format']}; this version reads format {FORMAT}")
    files = state.get("files")
    if not {"epoch", "history", "settings"} <= state.keys() or not isinstance(files, dict) or set(files) != set(_FILES):
        raise ValueError(f"{path} is damaged: state.json lacks entries")
    for name, expected in files.items():
        file = path / name
        if not file.is_file() or _sha256(file) != expected:
            raise ValueError(f"{path} is damaged: {name} is missing or differs from what was written")
    optimiser: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(path / "optimiser.safetensors").items():
        number, name = key.split("/", 1)
        optimiser.setdefault(int(number), {})[name] = tensor
    rng = load_file(path / "rng.safetensors")
    return Checkpoint(
        epoch=state["epoch"],
        model=load_file(path / "model.safetensors"),
        optimiser=optimiser,
        rng=[rng[f"rank/{rank}"] for rank in range(len(rng))],
        bank=load_arrays(path / "bank.safetensors"),
        history=state["history"],
        settings=state["settings"],
    )


def _places(folder: Path) -> list[tuple[int, bool, Path]]:
    """Epoch, whether it stands in its own place, and folder of all that may be checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    found = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match[1]), match[2] is None, path) for match, path in found)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """An optimiser's state by number of parameter, tensors only."""
    return {
        number: {name: torch.as_tensor(value) for name, value in state.items()}
        for number, state in optimiser.state_dict()["state"].items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[int, dict[str, Tensor]]) -> None:
    """Put back what `optimiser_tensors` took."""
    optimiser.load_state_dict({**optimiser.state_dict(), "state": tensors})


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
