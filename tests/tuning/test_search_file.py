"""Search files: what is drawn, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from reidray.tuning.search_file import override, read_search, settings_of

SPACE = "search: {method.eps: {uniform: [0.3, 0.7]}}\n"


def test_a_file_says_only_what_differs(reading):
    search = reading(SPACE)
    assert (search.objective, search.trials, search.scheduler, search.searcher) == ("silhouette", 20, "asha", "random")
    assert override(search, 7, "silhouette").trials == 7
    assert override(search, None, "silhouette").objective == "silhouette"


def test_draws_keep_to_their_candidates_and_can_be_read(reading):
    search = reading(
        "search: {method.eps: {uniform: [0.3, 0.7]}, train.learning_rate: {loguniform: [1.0e-4, 1.0e-2]}, "
        "method.k1: {uniform: [8, 11]}, method.min_samples: {loguniform: [1, 64]}, "
        "method.update: {choice: [average, hardest]}}"
    )
    drawn = [search.values(trial) for trial in range(300)]
    assert all(0.3 <= values["method.eps"] <= 0.7 and len(str(values["method.eps"])) <= 6 for values in drawn)
    assert {values["method.k1"] for values in drawn} == {8, 9, 10, 11}
    assert {values["method.update"] for values in drawn} == {"average", "hardest"}
    assert all(
        type(values["method.min_samples"]) is int and 1 <= values["method.min_samples"] <= 64 for values in drawn
    )
    below = sum(values["train.learning_rate"] < 1e-3 for values in drawn)
    assert 110 < below < 190  # half of them, were it not for chance (standard deviation 8.7)


def test_more_trials_or_another_setting_leave_the_draws_as_they_were(reading):
    one = reading(SPACE)
    two = reading("search: {train.seed: {choice: [1, 2]}, method.eps: {uniform: [0.3, 0.7]}}\ntrials: 50")
    assert [one.values(trial)["method.eps"] for trial in range(20)] == [
        two.values(trial)["method.eps"] for trial in range(20)
    ]
    assert len({one.values(trial)["method.eps"] for trial in range(20)}) > 15
    other = reading(SPACE + "seed: 1")
    assert one.values(0) != other.values(0)


def test_every_draw_meets_every_combination_of_the_grid(reading):
    search = reading(
        "search: {train.seed: {grid: [1, 2]}, method.k2: {grid: [3, 6, 9]}, method.eps: {uniform: [0.3, 0.7]}}"
    )
    trials = [search.values(trial) for trial in range(12)]
    combinations = [(values["train.seed"], values["method.k2"]) for values in trials]
    assert set(combinations[:6]) == {(seed, k2) for seed in (1, 2) for k2 in (3, 6, 9)}
    assert combinations[:6] == combinations[6:]
    assert len({values["method.eps"] for values in trials[:6]}) == 1
    assert trials[0]["method.eps"] != trials[6]["method.eps"]


def test_what_is_written_down_reads_back_as_the_same_search(reading, tmp_path: Path):
    search = reading(
        "search: {method.update: {choice: [average, hardest]}, augment.erase_area: {choice: [[0.0, 0.1], [0.1, 0.2]]}, "
        "scwm.space: {grid: ['off', forbid]}, train.learning_rate: {loguniform: [1.0e-5, 1.0e-2]}}\nobjective: mAP\n"
    )
    path = tmp_path / "again.yaml"
    path.write_text(search.as_yaml())
    assert read_search(path) == search


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("search: {method.epsilon: {uniform: [0.3, 0.7]}}", "unknown setting method.epsilon: did you mean method.eps?"),
        ("search: {method.eps: {uniform: [0.3, 1.7]}}", "method.eps must be a number > 0 and < 1, got 1.7"),
        ("search: {method.eps: {uniform: [0.7, 0.3]}}", "low < high"),
        ("search: {method.eps: {uniform: [0.3]}}", "low < high"),
        ("search: {train.lr_every: {uniform: [0.5, 20]}}", "whole numbers, or of numbers below 1, which are shares"),
        ("search: {aac.start_epoch: {uniform: [0, 0.9]}}", "whole numbers, or of numbers below 1, which are shares"),
        ("search: {train.weight_decay: {loguniform: [0.0, 0.1]}}", "low < high above 0"),
        ("search: {method.eps: {normal: [0.3, 0.7]}}", "one of choice, grid, uniform, loguniform"),
        ("search: {method.eps: 0.3}", "one of choice, grid, uniform, loguniform"),
        ("search: {method.eps: {choice: []}}", "must have a list of values"),
        ("search: {method.k1: {choice: [20, 20]}}", "has a value twice"),
        ("search: {method.k1: {choice: [20, 20.5]}}", "method.k1 must be a whole number >= 1, got 20.5"),
        ("search: {method.update: {choice: [average, hard]}}", "got 'hard'"),
        ("search: {method.update: {uniform: [1, 2]}}", "uniform draws numbers; take choice"),
        ("search: {data.height: {choice: [96, 128]}}", "cannot be searched: trials on other images"),
        ("search: {evaluate.split: {choice: [test]}}", "cannot be searched: trials that are measured differently"),
        ("search: {run.workers: {choice: [1, 2]}}", "run.workers cannot be searched"),
        ("search: {method.labels: {choice: [ground_truth, dbscan]}}", "training with the truth"),
        ("search: {}", "'search' must name the settings to try"),
        ("trials: 3", "'search' must name the settings to try"),
        (SPACE + "objektive: mAP", "unknown key objektive: did you mean objective?"),
        (SPACE + "objective: rank1", "objective must be one of camera_cycle,"),
        (SPACE + "scheduler: hyperband", "scheduler must be one of asha, none"),
        (SPACE + "trials: 0", "trials must be a whole number >= 1, got 0"),
        (SPACE + "trials: many", "trials must be a whole number >= 1, got many"),
        (SPACE + "grace_epochs: 0", "grace_epochs must be a whole number >= 1"),
        ("search: {train.seed: {grid: [1, 2]}}\nsearcher: optuna", "make it a choice"),
        ("search: {train.epochs: {choice: [3, 6]}}", "set scheduler: none"),
        ("- 1", "expected a mapping"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_sentence(reading, text: str, sentence: str):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the sentence is compared below)
        reading(text)
    assert sentence in str(refused.value)
    assert "search.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_test_split_is_no_objective(reading):
    with pytest.raises(ValueError, match="objective must be one of"):
        reading(SPACE + "objective: test_mAP")


def test_settings_of_the_file_are_checked_as_settings(tmp_path: Path):
    path = tmp_path / "search.yaml"
    path.write_text("settings: {train: {epochs: 3}}\n" + SPACE)
    assert settings_of(path).values == {"train.epochs": 3}
    path.write_text("settings: {train: {epoch: 3}}\n" + SPACE)
    with pytest.raises(ValueError, match=r"unknown setting train.epoch: did you mean train.epochs\?"):
        settings_of(path)


@pytest.mark.parametrize("kind", ["uniform", "loguniform"])
def test_epochs_are_searched_as_whole_numbers_or_as_shares(reading, kind):
    shares = reading(f"search: {{train.lr_every: {{{kind}: [0.2, 0.9]}}}}\ntrials: 30")
    drawn = {shares.values(trial)["train.lr_every"] for trial in range(30)}
    assert len(drawn) > 20
    assert all(0.2 <= value <= 0.9 for value in drawn)
    numbers = reading(f"search: {{train.lr_every: {{{kind}: [2, 9]}}}}\ntrials: 30")
    drawn = {numbers.values(trial)["train.lr_every"] for trial in range(30)}
    assert len(drawn) > 4
    assert drawn <= set(range(2, 10))
    assert all(isinstance(value, int) for value in drawn)
