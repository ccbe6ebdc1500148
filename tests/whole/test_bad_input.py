"""What a person can get wrong in a run: one sentence each, from the command line, and no traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from reidray.launch.inference import load_model
from reidray.launch.launch import _removed_if_nothing_began, launch
from reidray.storage.checkpoints import _sha256
from reidray.storage.runfolder import RunFolder

JOBS = Path(__file__).resolve().parents[2] / "jobs"


def job(name: str, *words: str) -> str:
    """Run a job that must fail; its message, one sentence on standard error."""
    found = subprocess.run([sys.executable, str(JOBS / name), *words], capture_output=True, text=True)
    assert found.returncode == 2, found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    lines = [line for line in found.stderr.splitlines() if line.strip()]
    assert len(lines) <= 2, found.stderr
    return found.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.epoch=3"], "did you mean train.epochs"),
        pytest.param(["train.epochs=many"], "train.epochs", marks=pytest.mark.slow),
        pytest.param(["data.dataset=market1501", "data.root=nowhere"], "nowhere", marks=pytest.mark.slow),
        (["data.dataset=market1501", "data.packed=nowhere"], "has no dataset.json"),
        (["run.device=cuda", "--workers", "0"], "CUDA"),
        pytest.param(
            ["method.update=weighted", "method.name=cluster_contrast"], "difficulties", marks=pytest.mark.slow
        ),
        pytest.param(["run.workers=5"], "BN groups", marks=pytest.mark.slow),
        (["model.weights=missing.pth", "--workers", "0"], "missing.pth"),
    ],
)
def test_settings_and_places_that_cannot_be(words: list[str], said: str, tmp_path: Path, tiny_root: Path) -> None:
    if "cuda" in words[0] and torch.cuda.is_available():
        pytest.skip("this machine has the GPU that is asked for")
    if not any(word.startswith("data.") for word in words):
        words = [*words, f"data.root={tiny_root}", "data.dataset=folder"]
        (tiny_root).mkdir(exist_ok=True)
    assert said in job("train.py", *words, f"run.dir={tmp_path / 'run'}")


def test_a_run_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in job("train.py", f"run.dir={tmp_path / 'file' / 'run'}")


def test_an_empty_directory_and_one_without_images(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in job("prepare.py", "data.dataset=folder", f"data.root={tmp_path / 'empty'}")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no picture")
    assert "notes" in job("prepare.py", "data.dataset=folder", f"data.root={tmp_path / 'notes'}")


def test_images_that_cannot_be_used_are_skipped_and_counted(tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    crops.mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(generator.integers(0, 255, (64, 32, 3), dtype=np.uint8)).save(crops / f"{number}.png")
    (crops / "zero.jpg").write_bytes(b"")
    (crops / "text.jpg").write_text("a text")
    words = [sys.executable, str(JOBS / "prepare.py"), "data.dataset=folder", f"data.root={crops}"]
    subprocess.run(words, check=True, capture_output=True)
    written = json.loads((tmp_path / "crops-packed" / "dataset.json").read_text())
    assert written["splits"] == {"train": 6}
    assert sum(entry["count"] for entry in written["skipped"].values()) == 2


def test_all_outliers_and_too_few_clusters(tiny_settings: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"all 130 images are outliers: raise method\.eps"):
        launch(tiny_settings("none", method={"eps": 1e-6}))
    fewer = tiny_settings("few", method={"eps": 0.99, "k1": 60}, train={"epochs": 1, "steps": 2})
    assert launch(fewer)["clusters"] < fewer.method.clusters_per_batch


def test_one_identity_is_trained_on_without_a_crash(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    crops = tmp_path / "one"
    crops.mkdir()
    generator = np.random.default_rng(0)
    base = generator.integers(0, 255, (64, 32, 3))
    for number in range(40):
        pixels = np.clip(base + generator.normal(0, 4, base.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(crops / f"{number:02d}.png")
    settings = tiny_settings(
        "run",
        data={"dataset": "folder", "root": str(crops)},
        method={"name": "cluster_contrast", "prefer_other_cameras": True, "eps": 0.9},
        train={"epochs": 1, "steps": 2},
    )
    result = launch(settings)
    assert result["clusters"] >= 1
    assert result["after"] is None


def test_features_that_are_not_finite_stop_the_run(
    tiny_settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launch(tiny_settings("good", train={"epochs": 1}))
    state = load_model(tmp_path / "good")[0].state_dict()
    state["backbone.stem.0.weight"][0] = torch.nan
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "nan.safetensors")
    with pytest.raises(ValueError, match="finite"):
        launch(tiny_settings("bad", model={"weights": str(tmp_path / "nan.safetensors")}))


def test_a_shard_cut_short(tiny_settings: Callable[..., Any], tmp_path: Path, tiny_root: Path) -> None:
    launch(tiny_settings("good", train={"epochs": 1}))
    packed = tmp_path / "packed"
    source = tiny_root.with_name(f"{tiny_root.name}-packed")
    subprocess.run(["cp", "-r", str(source), str(packed)], check=True)
    tar = sorted((packed / "train").glob("*.tar"))[-1]
    os.truncate(tar, tar.stat().st_size // 2)
    with pytest.raises(ValueError, match=tar.name):
        launch(tiny_settings("bad", data={"packed": str(packed)}))


def test_a_checkpoint_of_another_architecture(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    launch(tiny_settings("one", train={"epochs": 1}))
    folder = sorted((tmp_path / "one" / "checkpoints").glob("epoch_*"))[-1]
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("conv1.weight"))
    save_file({**tensors, name: tensors[name][:, :1].contiguous()}, folder / "model.safetensors")
    state = json.loads((folder / "state.json").read_text())
    state["files"]["model.safetensors"] = _sha256(folder / "model.safetensors")
    (folder / "state.json").write_text(json.dumps(state))
    assert "another architecture" in job("evaluate.py", "--checkpoint", str(folder))


def test_a_full_disk_while_a_checkpoint_is_written(
    tiny_settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reidray.bank.shard.save_file", full)
    with pytest.raises(OSError, match="could not write checkpoint"):
        launch(tiny_settings("full"))


def test_a_corrected_command_finds_no_folder_of_the_failed_one_in_its_way(tmp_path: Path) -> None:
    job(
        "train.py",
        "--workers",
        "0",
        "data.dataset=folder",
        f"data.root={tmp_path / 'typo'}",
        f"run.dir={tmp_path / 'r'}",
    )
    assert not (tmp_path / "r").exists()


def test_shards_that_were_packed_otherwise_are_not_taken(tiny_settings: Callable[..., Any], tiny_root: Path) -> None:
    launch(tiny_settings("one", train={"epochs": 1}))
    place = str(tiny_root.with_name(f"{tiny_root.name}-packed"))
    with pytest.raises(ValueError, match=r"was packed with data\.images_per_shard=64"):
        launch(tiny_settings("two", train={"epochs": 1}, data={"images_per_shard": 32, "packed": place}))


def test_resuming_with_damaged_checkpoints_only_does_not_start_over(
    tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    launch(tiny_settings("one", train={"epochs": 1}))
    for path in (tmp_path / "one" / "checkpoints").glob("epoch_*"):
        os.truncate(path / "model.safetensors", 100)
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole"):
        launch(tiny_settings("one", train={"epochs": 2}), resume=tmp_path / "one")
    assert (tmp_path / "one" / "metrics.jsonl").read_text().count("\n") == 1
    assert RunFolder.open(tmp_path / "one").settings().train.epochs == 1, "what did not fit is not the run's"


def test_a_new_run_that_fails_leaves_its_folder_only_with_something_to_go_on_from(
    tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    for name, checkpoints in (("nothing", []), ("something", ["epoch_0000_step_000000"])):
        folder = RunFolder.create(tmp_path / name, tiny_settings(name))
        for checkpoint in checkpoints:
            (folder.checkpoints / checkpoint).mkdir()
        with pytest.raises(ValueError, match="no machine"), _removed_if_nothing_began(folder, None):
            raise ValueError("no machine")
        assert folder.path.exists() == bool(checkpoints)


def test_one_run_folder_has_one_driver(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    import fcntl

    launch(tiny_settings("one", train={"epochs": 1}))
    with (tmp_path / "one" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process"):
            launch(tiny_settings("one", train={"epochs": 2}), resume=tmp_path / "one")
