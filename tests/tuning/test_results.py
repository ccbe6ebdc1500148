"""Tables, files and the picture of a search."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from scipy.stats import spearmanr

from reidray.tuning.ledger import Entry
from reidray.tuning.results import correlations, draw_search, ranked_trials, table, write_results


def entry(trial: int, state: str | None, epochs: int, score: float | None, folder: Path, **measures: float) -> Entry:
    scores = {} if score is None else {epochs: score}
    known = {**({} if score is None else {"stability": score}), **measures}
    values = {"method.eps": 0.3 + trial / 100, "method.update": ["average", "hardest"][trial % 2]}
    return Entry(
        trial, values, folder / "trials" / f"{trial:03}", state, "", 10.0, epochs=epochs, scores=scores, measures=known
    )


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    mAPs = (60.0, 75.0, 71.0, 66.0)
    finished = [
        entry(trial, "finished", 6, score, tmp_path, mAP=mAP, silhouette=1 - score)
        for trial, (score, mAP) in enumerate(zip((0.5, 0.9, 0.7, 0.8), mAPs, strict=True))
    ]
    others = [
        entry(4, "stopped", 2, 0.95, tmp_path),
        entry(5, "stopped", 4, 0.2, tmp_path),
        entry(6, "failed", 0, None, tmp_path),
        entry(7, None, 1, None, tmp_path),
    ]
    return [*others, *finished]


def test_finished_trials_come_before_stopped_ones_however_well_those_began(entries: list[Entry]):
    assert [row.trial for row in ranked_trials(entries)] == [1, 3, 2, 0, 5, 4, 6, 7]


def test_finished_trials_of_different_length_go_by_the_objective(tmp_path: Path):
    """Where train.epochs is what is searched."""
    of_length = [
        entry(trial, "finished", epochs, score, tmp_path)
        for trial, epochs, score in ((0, 6, 0.9), (1, 12, 0.2), (2, 12, 0.3))
    ]
    assert [row.trial for row in ranked_trials(of_length)] == [0, 2, 1]


def test_the_table_names_every_setting_and_counts_every_state(entries: list[Entry]):
    lines = table(entries, "stability")
    assert lines[0] == "8 trials: 2 stopped, 1 failed, 1 unfinished, 4 finished"
    assert lines[1].split()[:4] == ["trial", "state", "epochs", "stability"]
    assert {"silhouette", "mAP", "eps", "update"} <= set(lines[1].split())
    assert lines[2].split()[:4] == ["001", "finished", "6", "0.9"]
    many = [entry(trial, "finished", 6, trial / 30, Path()) for trial in range(25)]
    assert table(many, "stability")[0].endswith("the 10 best are shown")
    assert len(table(many, "stability")) == 12
    assert table([], "stability")


def test_results_hold_a_row_a_trial_and_the_correlations(entries: list[Entry], tmp_path: Path):
    write_results(entries, "stability", tmp_path)
    tree = json.loads((tmp_path / "results.json").read_text())
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in tree["trials"]] == [int(row["trial"]) for row in rows] == [1, 3, 2, 0, 5, 4, 6, 7]
    assert rows[0]["folder"] == "trials/001"
    assert float(rows[0]["method.eps"]) == pytest.approx(0.31)
    expected = spearmanr([0.5, 0.9, 0.7, 0.8], [60.0, 75.0, 71.0, 66.0]).statistic
    assert tree["rho_with_mAP"]["stability"] == pytest.approx(expected)
    assert tree["rho_with_mAP"]["silhouette"] == pytest.approx(-expected)


def test_without_truth_there_is_no_correlation_and_still_a_picture(tmp_path: Path):
    unknown = [entry(trial, "finished", 6, trial / 10, tmp_path) for trial in range(5)]
    assert correlations(unknown) == {}
    draw_search(unknown, "stability", {"method.eps": True, "method.update": False}, tmp_path / "p" / "search.png")
    narrow = width(tmp_path / "p" / "search.png")
    known = [entry(trial, "finished", 6, trial / 10, tmp_path, mAP=50.0 + trial) for trial in range(5)]
    draw_search(known, "stability", {"method.eps": True, "method.update": False}, tmp_path / "p" / "search.png")
    assert width(tmp_path / "p" / "search.png") > narrow  # a panel more


def width(path: Path) -> int:
    with Image.open(path) as image:
        return image.size[0]


def test_nothing_is_drawn_where_nothing_was_scored(entries: list[Entry], tmp_path: Path):
    draw_search(entries[2:4], "stability", {"method.eps": False}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
