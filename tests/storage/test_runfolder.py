"""The run folder: never overwritten, always finite, whole lines only."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from reidray.config import Settings
from reidray.settings_io import load
from reidray.shared_settings import RunSettings, TrainSettings
from reidray.storage.runfolder import RunFolder, default_run_dir


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "deep" / "run", Settings())


def files(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_a_new_folder_holds_settings_a_readme_and_its_rooms(tmp_path: Path):
    settings = Settings(train=TrainSettings(epochs=3), run=RunSettings(threads=2))
    folder = RunFolder.create(tmp_path / "run", settings)
    assert files(folder.path) == {"settings.yaml", "README.md", "pictures", "tensorboard", "checkpoints"}
    assert load(folder.path / "settings.yaml") == settings
    assert RunFolder.open(folder.path).settings() == settings


def test_the_readme_explains_every_file(folder: RunFolder):
    folder.add_epoch({"epoch": 0})
    folder.add_steps(0, {"total": [1.0]})
    folder.add_evaluation({"when": "before", "epoch": None, "mAP": 1.0})
    folder.write_result({"seed": 0})
    folder.log("hello")
    text = (folder.path / "README.md").read_text()
    for name in files(folder.path) - {"README.md"}:
        assert f"`{name}" in text


def test_a_folder_is_never_overwritten(folder: RunFolder):
    with pytest.raises(ValueError, match=f"the run folder {folder.path} exists and is never overwritten") as refused:
        RunFolder.create(folder.path, Settings())
    assert "--resume" in str(refused.value)


def test_an_empty_folder_may_be_used(tmp_path: Path):
    assert RunFolder.create(tmp_path, Settings()).epochs() == []


def test_a_place_that_cannot_be_written_is_refused_in_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match=r"cannot be written .*choose another run\.dir") as refused:
            RunFolder.create(place, Settings())
        assert "\n" not in str(refused.value)
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_full_disk_is_told_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ValueError, match="no space left on device"):
        RunFolder.create(tmp_path / "run", Settings())
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]


def test_only_a_run_folder_can_be_opened(tmp_path: Path):
    with pytest.raises(ValueError, match="is no run folder"):
        RunFolder.open(tmp_path)
    with pytest.raises(ValueError, match="is no run folder"):
        RunFolder.open(tmp_path / "none")


def test_epochs_are_one_json_object_a_line(folder: RunFolder):
    folder.add_epoch({"epoch": 0, "loss": np.float32(0.5), "clusters": np.int64(7), "ARI": None})
    folder.add_epoch({"epoch": 1, "loss": 0.25, "seconds": {"train": 3.0}})
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == folder.epochs()
    assert folder.epochs()[0] == {"epoch": 0, "loss": 0.5, "clusters": 7, "ARI": None}


def test_an_epoch_is_recorded_once_and_in_order(folder: RunFolder):
    folder.add_epoch({"epoch": 1})
    for epoch in (0, 1):
        with pytest.raises(ValueError, match="already holds epoch 1"):
            folder.add_epoch({"epoch": epoch})
    for wrong in ({}, {"epoch": "2"}, {"epoch": -1}, {"epoch": True}):
        with pytest.raises(ValueError, match="'epoch'"):
            folder.add_epoch(wrong)


def test_losses_are_one_json_object_a_step(folder: RunFolder):
    folder.add_steps(2, {"total": [3.0, 2.0], "memory": np.array([1.0, 0.5], dtype=np.float32)})
    assert folder.steps() == [
        {"epoch": 2, "step": 0, "terms": {"total": 3.0, "memory": 1.0}},
        {"epoch": 2, "step": 1, "terms": {"total": 2.0, "memory": 0.5}},
    ]
    with pytest.raises(ValueError, match="one value a step"):
        folder.add_steps(3, {"total": [3.0, 2.0], "memory": [1.0]})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("-inf")])
def test_what_is_not_finite_is_refused_by_name_and_not_written(folder: RunFolder, bad: float):
    with pytest.raises(ValueError, match="loss must be finite"):
        folder.add_epoch({"epoch": 0, "loss": bad})
    with pytest.raises(ValueError, match=r"terms\.memory must be finite"):
        folder.add_steps(0, {"memory": [1.0, bad]})
    with pytest.raises(ValueError, match=r"after\.mAP must be finite"):
        folder.write_result({"after": {"mAP": bad}})
    with pytest.raises(ValueError, match="JSON value"):
        folder.write_result({"model": object()})
    assert folder.epochs() == folder.steps() == []
    assert folder.result() is None


def test_dropping_epochs_keeps_the_earlier_ones(folder: RunFolder):
    for epoch in range(4):
        folder.add_epoch({"epoch": epoch})
        folder.add_steps(epoch, {"total": [1.0, 2.0]})
        folder.add_evaluation({"when": "epoch", "epoch": epoch, "mAP": 1.0})
    folder.add_evaluation({"when": "after", "epoch": 3, "mAP": 2.0})
    folder.drop_from(2)
    assert [line["epoch"] for line in folder.epochs()] == [0, 1]
    assert [line["epoch"] for line in folder.steps()] == [0, 0, 1, 1]
    assert [(line["when"], line["epoch"]) for line in folder.evaluations()] == [("epoch", 0), ("epoch", 1)]
    folder.add_epoch({"epoch": 2})
    folder.add_evaluation({"when": "after", "epoch": 2, "mAP": 2.0})
    folder.drop_from(3)  # nothing is left to do: the outcome stays
    assert folder.evaluations()[-1]["when"] == "after"
    folder.drop_from(0)
    assert folder.epochs() == []


def test_dropping_keeps_the_evaluation_before_training_and_drops_the_one_after(folder: RunFolder):
    folder.add_evaluation({"when": "before", "epoch": None, "mAP": 1.0})
    folder.add_evaluation({"when": "after", "epoch": None, "mAP": 2.0})
    folder.drop_from(0)
    assert [line["when"] for line in folder.evaluations()] == ["before"]


def test_a_line_cut_short_by_a_crash_is_dropped(folder: RunFolder):
    folder.add_epoch({"epoch": 0})
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "lo')
    assert [line["epoch"] for line in folder.epochs()] == [0]
    again = RunFolder.open(folder.path)
    again.mend()
    again.add_epoch({"epoch": 1})
    assert [line["epoch"] for line in again.epochs()] == [0, 1]


def test_a_damaged_line_is_named(folder: RunFolder):
    (folder.path / "metrics.jsonl").write_text('{"epoch": 0}\nnonsense\n{"epoch": 2}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*metrics\.jsonl is not JSON"):
        folder.epochs()


def test_the_result_is_replaced_whole(folder: RunFolder):
    folder.write_result({"seed": 0, "after": {"mAP": 80.0}})
    folder.write_result({"seed": 1})
    assert folder.result() == {"seed": 1}
    assert files(folder.path) >= {"result.json"}
    assert not [name for name in files(folder.path) if name.startswith(".")]


def test_the_log_grows_by_lines(folder: RunFolder):
    folder.log("one")
    folder.log("two – with a dash\n")
    assert (folder.path / "log.txt").read_text("utf-8") == "one\ntwo – with a dash\n"


def test_the_default_folder_is_named_by_date_and_method_and_is_new(tmp_path: Path):
    now = datetime(2026, 2, 3, 4, 5, 6)
    path = default_run_dir(tmp_path / "runs", Settings(), now)
    assert path == tmp_path / "runs" / "20260203-040506-scwm"
    RunFolder.create(path, Settings())
    assert default_run_dir(tmp_path / "runs", Settings(), now).name == "20260203-040506-scwm-2"
