"""run.keep_best: the network is reported that the criterion preferred, whatever the truth says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from reidray.config import Settings
from reidray.launch.launch import launch
from reidray.methods import method as methods
from reidray.storage.kept_labels import read_labels, read_last
from tests.whole.runs import assert_same_run, epochs, evaluations, result


def given(monkeypatch: pytest.MonkeyPatch, *cycles: float) -> None:
    """The criterion of one labelling after the other; the last one stays."""
    left = list(cycles)
    monkeypatch.setattr(methods, "camera_cycle", lambda *_: left.pop(0) if len(left) > 1 else left[0])


@pytest.mark.parametrize(("cycles", "best"), [((0.9, 0.5, 0.3, 0.2), 0), ((0.1, 0.2, 0.3, 0.4), 2)])
def test_the_network_with_the_highest_criterion_is_reported(
    cycles: tuple[float, ...],
    best: int,
    tiny_settings: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given(monkeypatch, *cycles)
    launch(
        tiny_settings(
            "one",
            method={"name": "cluster_contrast", "camera_centring": True},
            train={"epochs": 3},
            evaluate={"every": 1, "ranked_lists": 0},
            run={"keep_best": "camera_cycle"},
        )
    )
    found = result(tmp_path / "one")
    assert found["selected"] == {"epoch": best, "criterion": cycles[best + 1]}  # the start weights are not chosen
    measured = {(line["when"], line["epoch"]): line["mAP"] for line in evaluations(tmp_path / "one")}
    assert found["after"]["mAP"] == measured["epoch", best]
    assert found["last"]["mAP"] == measured["epoch", 2]
    assert [line["epoch"] for line in epochs(tmp_path / "one")] == [0, 1, 2, 3]  # the last one labels and ends
    assert "loss_contrast" not in epochs(tmp_path / "one")[3]
    shown = read_last(tmp_path / "one")
    assert shown is not None
    assert shown.epoch == best + 1  # the labels that the reported network gave
    table = pq.read_table(tmp_path / "one" / "clusters.parquet")
    assert table["cluster"].to_pylist() == read_labels(tmp_path / "one")[best + 1].tolist()
    assert (found["advice"] is None) == (best == 2)
    said = (tmp_path / "one" / "log.txt").read_text()
    assert said.count("caution: images are found again from another camera less often") == (0 if best == 2 else 2)


def test_a_run_that_goes_on_chooses_the_same_network(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    def settings(name: str, epochs: int) -> Settings:
        kept = {"keep_best": "camera_cycle", "keep_checkpoints": 9}
        one: Settings = tiny_settings(
            name, method={"name": "cluster_contrast", "camera_centring": True}, train={"epochs": epochs}, run=kept
        )
        return one

    launch(settings("whole", 2))
    launch(settings("cut", 2))
    cut = tmp_path / "cut"
    for name in ("epoch_0001", "epoch_0002"):
        for file in (cut / "checkpoints" / name).iterdir():
            file.unlink()
        (cut / "checkpoints" / name).rmdir()
    (cut / "result.json").unlink()
    launch(settings("cut", 2), resume=cut)
    assert_same_run(tmp_path / "whole", cut)
    assert result(cut)["selected"] == result(tmp_path / "whole")["selected"]


def test_cameras_are_judged_in_every_run_that_knows_them(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    launch(tiny_settings("one", method={"name": "pplr", "camera_centring": True}, train={"epochs": 1}))
    (line,) = epochs(tmp_path / "one")
    assert 0 < line["camera_cycle"] <= 1
    assert result(tmp_path / "one")["camera_cycle"] == line["camera_cycle"]
    assert json.loads((tmp_path / "one" / "result.json").read_text())["advice"] is None


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"method": {"name": "buc"}}, "chooses the network that is reported by a criterion of its own"),
        ({"method": {"labels": "ground_truth"}}, "method.labels=ground_truth has none"),
        ({"method": {"name": "cluster_contrast"}}, "set method.camera_centring"),
    ],
)
def test_what_cannot_be_chosen_by_the_criterion_is_refused(
    sections: dict[str, Any], sentence: str, tiny_settings: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match=sentence):
        launch(tiny_settings("one", **sections, run={"keep_best": "camera_cycle"}))


def test_a_finished_run_that_is_given_more_epochs_trains_in_all_of_them(
    tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    """Its last epoch only labelled; in the longer run that one trains."""

    def settings(name: str, epochs: int) -> Settings:
        kept = {"keep_best": "camera_cycle"}
        one: Settings = tiny_settings(
            name, method={"name": "cluster_contrast", "camera_centring": True}, train={"epochs": epochs}, run=kept
        )
        return one

    launch(settings("whole", 2))
    launch(settings("longer", 1))
    launch(settings("longer", 2), resume=tmp_path / "longer")
    assert_same_run(tmp_path / "whole", tmp_path / "longer")
    assert result(tmp_path / "longer")["selected"] == result(tmp_path / "whole")["selected"]


def test_a_run_that_goes_on_without_choosing_reports_its_last_network(
    tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    method = {"name": "cluster_contrast", "camera_centring": True}
    run = {"checkpoint_every": 1, "keep_checkpoints": 9}
    launch(tiny_settings("one", method=method, train={"epochs": 2}, run={**run, "keep_best": "camera_cycle"}))
    launch(tiny_settings("one", method=method, train={"epochs": 3}, run=run), resume=tmp_path / "one")
    found = result(tmp_path / "one")
    assert "selected" not in found
    assert [line["epoch"] for line in epochs(tmp_path / "one")] == [0, 1, 2]
    assert all("loss_contrast" in line for line in epochs(tmp_path / "one"))
