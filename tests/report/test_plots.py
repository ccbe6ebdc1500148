"""Curves: drawn from what the folder holds, whatever of it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidray.config import Settings
from reidray.report.plots import _evaluations, _running_mean, draw_plots
from reidray.storage.runfolder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", Settings())


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert np.asarray(image.convert("L")).std() > 1  # not an empty page
        return image.size


def test_a_finished_run_gives_two_wide_pictures(folder: RunFolder):
    folder.add_evaluation({"when": "before", "epoch": None, "mAP": 50.0, "rank1": 70.0})
    for epoch in range(3):
        folder.add_steps(epoch, {"total": [3.0 - epoch, 2.5], "memory": [1.0, 1.0]})
        folder.add_epoch({"epoch": epoch, "clusters": 9, "outliers": 3, "ARI": 0.5, "AMI": 0.75, "purity": None})
    folder.add_evaluation({"when": "after", "epoch": 2, "mAP": 75.0, "rank1": 90.0})
    drawn = draw_plots(folder)
    assert drawn == [folder.pictures / "curves.png", folder.pictures / "clusters.png"]
    assert [size_of(path) for path in drawn] == [(1280, 440), (1280, 440)]


def test_what_is_not_known_is_left_out(folder: RunFolder):
    assert draw_plots(folder) == []
    folder.add_epoch({"epoch": 0, "clusters": 9, "outliers": 3, "ARI": None})
    (clusters,) = draw_plots(folder)
    assert size_of(clusters) == (640, 440)
    folder.add_evaluation({"when": "before", "epoch": None, "mAP": 50.0, "rank1": 70.0})
    curves, _ = draw_plots(folder)
    assert size_of(curves) == (640, 440)


def test_one_epoch_of_one_step_and_many_terms_can_be_drawn(folder: RunFolder):
    folder.add_steps(0, {f"term_{number}": [1.0] for number in range(15)})
    assert size_of(draw_plots(folder)[0]) == (640, 440)


def test_a_term_that_comes_later_and_long_runs_can_be_drawn(folder: RunFolder):
    for epoch in range(40):
        more = {"identity": [1.0] * 10} if epoch > 20 else {}
        folder.add_steps(epoch, {"total": [2.0] * 10, **more})
    assert size_of(draw_plots(folder)[0]) == (640, 440)


def test_evaluations_stand_at_the_number_of_finished_epochs():
    evaluations = [
        {"when": "before", "epoch": None, "mAP": 50.0},
        {"when": "epoch", "epoch": 1, "mAP": 65.0},
        {"when": "after", "epoch": None, "mAP": 70.0},
    ]
    points = _evaluations(evaluations, 2)
    assert {at: figures["mAP"] for at, figures in points.items()} == {0: 50.0, 2: 65.0, 3: 70.0}


def test_running_means_stand_in_the_middle_of_what_they_average():
    means, places = _running_mean(np.array([1.0, 2.0, 3.0, 4.0]), 2)
    np.testing.assert_allclose(means, [1.5, 2.5, 3.5])
    np.testing.assert_allclose(places, [1.5, 2.5, 3.5])
    means, places = _running_mean(np.array([1.0, 2.0]), 1)
    np.testing.assert_allclose(means, [1.0, 2.0])
    np.testing.assert_allclose(places, [1.0, 2.0])
