"""Checkpoints: a folder each, safetensors and JSON, there whole or not at all.

    epoch_0003/               after the epoch; epoch_0004_step_000120: after 120 updates of the one that follows
      model.safetensors       the network
      optimiser.safetensors   Adam's moments, "<number of parameter>/<name>"
      heads.safetensors       layers that begin with the labels and their moments, where these go on; layers beside
                              the network; the running mean of its weights (train.ema); the network that is reported,
                              where the method chooses one
      rng.safetensors         torch's generator of every rank, "rank/<r>"
      bank-0.safetensors ..   the memory bank's tables, "<table>/<block>", a file a shard, written by the shard itself
      state.json              epoch, step, history, settings, and the SHA-256 of every file above

A checkpoint is written beside its place and renamed into it; where one is written again, the old folder is called
epoch_0003.replaced until the new one is in its place. One whose hashes do not agree is passed over with a sentence,
and the one before it is taken. Writing runs in a thread while training goes on; no pickle is involved.

Where a lost group of workers still writes when the next one begins (its machine may be cut off and alive), the memory
bank refuses it its files, and the first checkpoint of the next one clears away what it was writing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reidray.disk import disk_errors

FORMAT = 4
_FILES = {"model.safetensors", "optimiser.safetensors", "heads.safetensors", "rng.safetensors"}
_BANK = re.compile(r"bank-\d+\.safetensors")
_PREFIX = "epoch_"
_NAME = re.compile(rf"{_PREFIX}(\d+)(?:_step_(\d+))?(\.replaced)?")

Moments = dict[int, dict[str, Tensor]]
"""An optimiser's state of each parameter by its number."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    epoch: the last one that was begun. step: updates done in it, None when it is finished. model: the network's state.
    optimiser: state of each parameter by number. rng: torch's generator state of every rank. history: metrics so far.
    settings: the run's settings tree. heads, heads_optimiser: of layers that begin with the labels, where these go on.
    modules: of layers beside the network. mean: of the network that follows it (train.ema). selected: of the network
    that is reported, where the method chooses one.
    bank, folder: files that the memory bank's shards wrote, and the folder's name, of a checkpoint that was read: that
    of the one before where the writer was killed between two names.
    """

    epoch: int
    model: dict[str, Tensor]
    optimiser: Moments
    rng: list[Tensor]
    history: dict[str, Any]
    settings: dict[str, Any]
    step: int | None = None
    heads: dict[str, Tensor] = field(default_factory=dict)
    heads_optimiser: Moments = field(default_factory=dict)
    modules: dict[str, Tensor] = field(default_factory=dict)
    mean: dict[str, Tensor] = field(default_factory=dict)
    selected: dict[str, Tensor] = field(default_factory=dict)
    bank: list[Path] = field(default_factory=list)
    folder: str = ""

    @property
    def reported(self) -> dict[str, Tensor]:
        """The network that the run reports."""
        return self.selected or self.network

    @property
    def network(self) -> dict[str, Tensor]:
        """The network of this moment: the running mean of the weights where the run has one."""
        return self.mean or self.model

    @property
    def name(self) -> str:
        """Of the folder that it is written to."""
        return f"{_PREFIX}{self.epoch:04d}" + ("" if self.step is None else f"_step_{self.step:06d}")


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
        self._cleared = False

    def save(self, checkpoint: Checkpoint, bank: Callable[[Path], dict[str, str]] | None = None) -> None:
        """Write in the background; waits for the one before, and raises what went wrong with it.

        bank: writes the bank's files into a folder and says their SHA-256 by name (`reidray.bank.Snapshot.write`).
        """
        self.wait()
        copied = replace(
            checkpoint,
            model=_copied(checkpoint.model),
            optimiser={number: _copied(state) for number, state in checkpoint.optimiser.items()},
            rng=[state.clone() for state in checkpoint.rng],
            history=json.loads(json.dumps(checkpoint.history)),
            heads=_copied(checkpoint.heads),
            modules=_copied(checkpoint.modules),
            mean=_copied(checkpoint.mean),
            selected=_copied(checkpoint.selected),
            heads_optimiser={number: _copied(state) for number, state in checkpoint.heads_optimiser.items()},
        )
        self._writing = self._writer.submit(self._write, copied, bank or _no_bank)

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
        for *_, path in reversed(_places(self._folder)):
            try:
                return load_checkpoint(path), passed_over
            except (ValueError, OSError) as error:
                passed_over.append(str(error))
        return None, passed_over

    def load(self, name: str) -> Checkpoint:
        """A checkpoint by its folder, without its bank; `ValueError` where it is missing or damaged."""
        return load_checkpoint(self._folder / name, bank=False)

    def _write(self, checkpoint: Checkpoint, bank: Callable[[Path], dict[str, str]]) -> None:
        place = self._folder / checkpoint.name
        building = self._folder / f".{place.name}.{uuid.uuid4().hex}"
        replaced = self._folder / f"{place.name}.replaced"
        self._clear()
        try:
            building.mkdir(parents=True)
            _write_files(building, checkpoint, bank)
            if place.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                place.rename(replaced)
            building.rename(place)
            _sync_folder(self._folder)
        except BaseException as error:
            if replaced.exists() and not place.exists():
                replaced.rename(place)
            shutil.rmtree(building, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            before = "the one before it is untouched" if _places(self._folder) else "there is none before it"
            raise OSError(
                error.errno or errno.EIO, f"could not write checkpoint {place}: {error.strerror or error}; {before}"
            ) from error
        shutil.rmtree(replaced, ignore_errors=True)
        # Damaged ones of later times, which were passed over, do not count.
        now = _time(checkpoint.epoch, checkpoint.step)
        kept = [path for when, _, path in _places(self._folder) if when <= now]
        for old in kept[: -self._keep]:
            shutil.rmtree(old)

    def _clear(self) -> None:
        """Remove, once, what others were writing: they were killed, or are of a group that is gone."""
        if not self._cleared:
            for left in self._folder.glob(f".{_PREFIX}*"):
                shutil.rmtree(left, ignore_errors=True)
            self._cleared = True


def _no_bank(folder: Path) -> dict[str, str]:  # noqa: ARG001 (it has no files there)
    return {}


def _write_files(folder: Path, checkpoint: Checkpoint, bank: Callable[[Path], dict[str, str]]) -> None:
    heads = {f"layers/{name}": tensor for name, tensor in checkpoint.heads.items()}
    heads.update({f"moments/{name}": tensor for name, tensor in _named(checkpoint.heads_optimiser).items()})
    heads.update({f"modules/{name}": tensor for name, tensor in checkpoint.modules.items()})
    heads.update({f"mean/{name}": tensor for name, tensor in checkpoint.mean.items()})
    heads.update({f"selected/{name}": tensor for name, tensor in checkpoint.selected.items()})
    contents = {
        "model.safetensors": checkpoint.model,
        "optimiser.safetensors": _named(checkpoint.optimiser),
        "heads.safetensors": heads,
        "rng.safetensors": {f"rank/{rank}": state for rank, state in enumerate(checkpoint.rng)},
    }
    for name, tensors in contents.items():
        with disk_errors():
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    state = {
        "format": FORMAT,
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "history": checkpoint.history,
        "settings": checkpoint.settings,
        "files": {**{name: _sha256(folder / name) for name in contents}, **bank(folder)},
    }
    with (folder / "state.json").open("w") as stream:
        json.dump(state, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())


def load_checkpoint(path: Path, *, bank: bool = True) -> Checkpoint:
    """Read a checkpoint folder.

    Args:
      path: of the folder.
      bank: look whether the memory bank's files are whole; what is in them is for the shards to read.

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
    files: dict[str, str] = _whole_list(state.get("files"))
    if not {"epoch", "step", "history", "settings"} <= state.keys() or not files:
        raise ValueError(f"{path} is damaged: state.json lacks entries")
    for name, expected in files.items():
        file = path / name
        if (bank or name in _FILES) and (not file.is_file() or _sha256(file) != expected):
            raise ValueError(f"{path} is damaged: {name} is missing or differs from what was written")
    rng, heads = load_file(path / "rng.safetensors"), load_file(path / "heads.safetensors")
    return Checkpoint(
        epoch=state["epoch"],
        step=state["step"],
        model=load_file(path / "model.safetensors"),
        optimiser=_numbered(load_file(path / "optimiser.safetensors")),
        rng=[rng[f"rank/{rank}"] for rank in range(len(rng))],
        history=state["history"],
        settings=state["settings"],
        heads=_below("layers/", heads),
        heads_optimiser=_numbered(_below("moments/", heads)),
        modules=_below("modules/", heads),
        mean=_below("mean/", heads),
        selected=_below("selected/", heads),
        bank=[path / name for name in files if name not in _FILES],
        folder=path.name,
    )


def _whole_list(files: Any) -> dict[str, str]:
    """The files of a checkpoint with their hashes; empty where it names others or lacks some."""
    known = isinstance(files, dict) and files.keys() >= _FILES
    return files if known and all(_BANK.fullmatch(str(name)) for name in files.keys() - _FILES) else {}


def _time(epoch: int, step: int | None) -> tuple[int, float]:
    """What orders checkpoints: one in the middle of an epoch comes before the one after it."""
    return epoch, math.inf if step is None else step


def _places(folder: Path) -> list[tuple[tuple[int, float], bool, Path]]:
    """When, whether it stands in its own place, and folder of all that may be checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    found = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(
        (_time(int(match[1]), None if match[2] is None else int(match[2])), match[3] is None, path)
        for match, path in found
    )


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _named(moments: Moments) -> dict[str, Tensor]:
    return {f"{number}/{name}": tensor for number, state in moments.items() for name, tensor in state.items()}


def _numbered(tensors: dict[str, Tensor]) -> Moments:
    moments: Moments = {}
    for key, tensor in tensors.items():
        number, name = key.split("/", 1)
        moments.setdefault(int(number), {})[name] = tensor
    return moments


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> Moments:
    """An optimiser's state by number of parameter, tensors only."""
    return {
        number: {name: torch.as_tensor(value) for name, value in state.items()}
        for number, state in optimiser.state_dict()["state"].items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Moments) -> None:
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
