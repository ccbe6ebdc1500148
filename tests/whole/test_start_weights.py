"""The start weights: what ships is what its recipe says, and the recipe gives the same bytes again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

import reidray
from reidray.settings_io import load
from reidray.storage.weights import weights_hash

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = Path(reidray.__file__).parent / "weights" / "small.safetensors"
EARLY = SHIPPED.with_name("small_early.safetensors")
SHORT = [
    *("train.epochs=1", "train.steps=3", "data.drawn.train_persons=16", "data.drawn.validation_persons=4"),
    *("data.drawn.test_persons=2", "data.drawn.fresh_scenes=5"),
]


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        found: dict[str, str] = file.metadata()
        return found


@pytest.mark.parametrize(("path", "changes"), [(SHIPPED, {}), (EARLY, {"epochs": 1})], ids=["shipped", "early"])
def test_the_shipped_weights_carry_their_recipe_seed_and_hash_in_less_than_3_mb(
    path: Path, changes: dict[str, int]
) -> None:
    told = metadata(path)
    assert told["sha256"] == weights_hash(load_file(path))
    assert path.stat().st_size < 3e6
    settings = load(ROOT / "configs" / "pretrain_small.yaml")
    settings = settings.model_copy(update={"train": settings.train.model_copy(update=changes)})
    assert told["seed"] == str(settings.train.seed)
    now = settings.model_dump(mode="json", exclude={"run": True, "data": {"root", "packed", "cache_dir"}})
    then = json.loads(told["recipe"])
    now["data"]["drawn"] = {name: now["data"]["drawn"][name] for name in then["data"]["drawn"]}  # some came since
    for section in ("data", "augment", "model", "train"):
        assert {name: now[section].get(name) for name in then[section]} == then[section], section
    shared = ("name", "labels", "clusters_per_batch", "images_per_cluster", "temperature", "momentum", "update")
    assert {name: now["method"][name] for name in shared} == {name: then["method"][name] for name in shared}


@pytest.mark.slow
def test_a_shortened_recipe_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("one", "two"):
        words = ["--output", str(tmp_path / f"{name}.safetensors"), f"run.dir={tmp_path / name}", *SHORT]
        words += [f"data.root={tmp_path / 'drawn'}", "data.dataset=drawn"]
        subprocess.run([sys.executable, str(ROOT / "jobs" / "pretrain.py"), *words], check=True, capture_output=True)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


@pytest.mark.slow
def test_the_recipe_gives_the_shipped_weights(tmp_path: Path) -> None:
    """Minutes; equal bytes are promised on one kind of machine only, so this is for the one that made the file."""
    words = [
        "--output",
        str(tmp_path / "new.safetensors"),
        f"run.dir={tmp_path / 'run'}",
        f"data.root={tmp_path / 'd'}",
        "data.dataset=drawn",
    ]
    subprocess.run([sys.executable, str(ROOT / "jobs" / "pretrain.py"), *words], check=True, capture_output=True)
    assert metadata(tmp_path / "new.safetensors")["sha256"] == metadata(SHIPPED)["sha256"]
