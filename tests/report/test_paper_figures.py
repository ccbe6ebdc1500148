"""Figures from several runs: rows of parts, maps of persons, a grid of two settings."""

import json

import numpy as np
import pytest
from PIL import Image

from reidray.report.paper_figures import draw_part_rows, draw_person_maps, draw_setting_grid
from reidray.tuning import grid_figure
from reidray.tuning.ledger import Ledger

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 96, 48, 3), np.uint8)


def parts(num_parts, seed=1):
    return np.random.default_rng(seed).integers(0, num_parts, (3, 96, 48))


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_row_of_parts_for_each_run_below_the_images(tmp_path):
    one, two = tmp_path / "one.png", tmp_path / "deep" / "two.png"
    draw_part_rows(one, IMAGES, [("baseline", parts(4), 4)])
    draw_part_rows(two, IMAGES, [("baseline", parts(4), 4), ("with seven parts and a long title", parts(7), 7)])
    first, second = pixels(one), pixels(two)
    assert second.shape[1] == first.shape[1]
    assert second.shape[0] - first.shape[0] == 202  # a row and a gap
    assert np.array_equal(first[:404], second[:404])


def test_the_background_has_no_colour(tmp_path):
    draw_part_rows(tmp_path / "one.png", IMAGES, [("all background", np.full((3, 96, 48), 3), 4)])
    row = pixels(tmp_path / "one.png")[220:400, 160:240]
    assert np.ptp(row, axis=2).max() == 0  # grey


def test_parts_of_other_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"odd: parts \(3, 96, 40\) do not fit images \(3, 96, 48, 3\)"):
        draw_part_rows(tmp_path / "one.png", IMAGES, [("odd", np.zeros((3, 96, 40), int), 4)])


def test_a_panel_for_each_run_with_a_colour_for_each_person(tmp_path):
    random = np.random.default_rng(0)
    persons_N, cameras_N = np.repeat([3, 5, 9], 8), np.tile([0, 1], 12)
    points = [random.standard_normal((24, 2)) for _ in range(2)]
    for count in (1, 2):
        draw_person_maps(tmp_path / f"{count}.png", list(zip("ab"[:count], points, strict=False)), persons_N, cameras_N)
    one, two = pixels(tmp_path / "1.png"), pixels(tmp_path / "2.png")
    assert two.shape[1] == 2 * one.shape[1]
    for colour in ((0, 114, 178), (213, 94, 0), (0, 158, 115)):
        assert (np.abs(one - colour).sum(2) < 12).sum() > 20


def test_a_grid_leaves_pairs_empty_that_were_not_run(tmp_path):
    scores_YX = np.array([[70.0, np.nan, 74.0], [71.0, 72.0, 73.0]])
    draw_setting_grid(tmp_path / "one.png", ("l", "eta"), ([2, 3, 4], [0.25, 0.5]), scores_YX, "mAP")
    full = np.array([[70.0, 72.0, 74.0], [71.0, 72.0, 73.0]])
    draw_setting_grid(tmp_path / "two.png", ("l", "eta"), ([2, 3, 4], [0.25, 0.5]), full, "mAP")
    assert not np.array_equal(pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png"))


def searched(folder, names=("scwm.num_parts", "scwm.max_distance")):
    """A search folder with a trial for each of some pairs of values, one of them twice."""
    ledger = Ledger(folder, "silhouette")
    for trial, pair in enumerate(((3, 0.3), (3, 0.5), (4, 0.5), (4, 0.5))):
        ledger.began(trial, dict(zip(names, pair, strict=True)))
        run = ledger.trial_folder(trial)
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text(json.dumps({"epoch": 0, "silhouette": 0.1 * trial}) + "\n")


def test_a_search_becomes_the_grid_of_its_means(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(grid_figure, "draw_setting_grid", lambda *arguments: drawn.append(arguments))
    searched(tmp_path)
    names = ("scwm.num_parts", "scwm.max_distance")
    grid_figure.draw_search(tmp_path / "x.png", tmp_path, names, "silhouette")
    ((_, shown, (across, up), scores_YX, label),) = drawn
    assert (shown, across, up, label) == (names, [3.0, 4.0], [0.3, 0.5], "silhouette")
    np.testing.assert_allclose(scores_YX, [[0.0, np.nan], [0.1, 0.25]])


def test_what_is_no_such_search_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"is no search folder: it has no trials\.jsonl"):
        grid_figure.draw_search(tmp_path / "x.png", tmp_path, ("a", "b"), "mAP")
    searched(tmp_path)
    with pytest.raises(
        ValueError, match=r"did not vary method\.eps and scwm\.num_parts, but scwm\.max_distance, scwm\.num"
    ):
        grid_figure.draw_search(tmp_path / "x.png", tmp_path, ("method.eps", "scwm.num_parts"), "mAP")
    with pytest.raises(ValueError, match=r"no trial of .* has mAP"):
        grid_figure.draw_search(tmp_path / "x.png", tmp_path, ("scwm.num_parts", "scwm.max_distance"), "mAP")


def test_parts_that_are_all_background_are_said() -> None:
    from reidray.config import Settings
    from reidray.launch.pictures import part_caution
    from reidray.methods import make_method

    settings = Settings()
    background = make_method(settings).num_parts - 1
    cells = [[background, background], [background, background]]
    said = part_caution(settings, {"parts": [cells, cells]})
    assert said is not None
    assert "calls every cell of the examples background" in said
    assert part_caution(settings, {"parts": [cells, [[0, background], [background, background]]]}) is None
    assert part_caution(settings, {"parts": []}) is None
    assert part_caution(settings, None) is None
