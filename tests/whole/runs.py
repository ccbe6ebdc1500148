"""What two runs are compared by: everything but seconds and places."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

_TIMED = ("seconds", "images_per_second", "run_dir")


def result(folder: Path) -> dict[str, Any]:
    """result.json without what depends on the clock or the place."""
    tree = json.loads((folder / "result.json").read_text())
    return {name: value for name, value in tree.items() if name not in _TIMED}


def losses(folder: Path) -> list[dict[str, Any]]:
    """Every loss term of every step."""
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def assert_close_losses(one: Path, other: Path, epochs: int | None = None) -> None:
    """Every loss term of every step within 1e-4, in the first epochs or all: runs that differ in the order of float
    sums alone."""
    mine, theirs = (
        [step for step in losses(folder) if epochs is None or step["epoch"] < epochs] for folder in (one, other)
    )
    assert mine
    for step, same in zip(mine, theirs, strict=True):
        for name in step["terms"]:
            np.testing.assert_allclose(step["terms"][name], same["terms"][name], rtol=0, atol=1e-4, err_msg=name)


def epochs(folder: Path) -> list[dict[str, Any]]:
    """Every epoch's figures without its seconds."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name != "seconds" and not name.startswith("step_ms")}
        for line in lines
    ]


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """Every evaluation's figures; none where there was nothing to evaluate on."""
    file = folder / "evaluations.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: figures, losses, labels and every tensor of the last epoch's checkpoint."""
    assert result(one) == result(other)
    assert losses(one) == losses(other)
    assert epochs(one) == epochs(other)
    assert evaluations(one) == evaluations(other)
    places = [sorted((run / "checkpoints").glob("epoch_????"))[-1] for run in (one, other)]
    assert places[0].name == places[1].name
    for pattern in ("model", "optimiser", "rng", "bank-*", "heads"):
        first, second = (_tensors(place, pattern) for place in places)
        assert first or pattern == "heads", f"no {pattern} in {places[0]}"
        assert first.keys() == second.keys()
        for name, values in first.items():
            assert (values.dtype, values.shape) == (second[name].dtype, second[name].shape), (pattern, name)
            assert values.tobytes() == second[name].tobytes(), (pattern, name)


def _tensors(folder: Path, pattern: str) -> dict[str, Any]:
    """Everything in the safetensors files whose names fit, together."""
    return {key: rows for file in folder.glob(f"{pattern}.safetensors") for key, rows in load_file(file).items()}
