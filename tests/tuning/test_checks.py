"""A search and the settings it is laid over: what cannot run is refused, what is doubtful is said."""

from __future__ import annotations

import pytest

from reidray.config import Settings
from reidray.tuning.checks import cautions, check_search, with_values

SPACE = "search: {method.eps: {uniform: [0.3, 0.7]}}\n"


def test_a_draw_that_does_not_fit_the_other_settings_is_found_before_anything_starts(reading):
    search = reading("search: {method.clusters_per_batch: {choice: [16, 3]}}\ntrials: 8")
    with pytest.raises(ValueError, match=r"a trial with method.clusters_per_batch=3 cannot run: .*bn_group_size"):
        check_search(search, Settings())


def test_an_objective_that_is_not_defined_for_the_settings_is_refused(reading):
    baseline = with_values(Settings(), {"method.name": "cluster_contrast"})
    for parts in ("scwm", "pplr"):
        check_search(reading(SPACE + "objective: agreement"), with_values(Settings(), {"method.name": parts}))
    with pytest.raises(ValueError, match="has no parts"):
        check_search(reading(SPACE + "objective: agreement"), baseline)
    with pytest.raises(ValueError, match="has none: set objective: mAP"):
        check_search(reading(SPACE), with_values(Settings(), {"method.labels": "ground_truth"}))
    with pytest.raises(ValueError, match=r"without their cameras: set method.camera_centring=true"):
        check_search(reading(SPACE + "objective: camera_cycle"), baseline)
    check_search(reading(SPACE + "objective: camera_cycle"), with_values(baseline, {"method.camera_centring": True}))
    with pytest.raises(ValueError, match=r"train.epochs to 2 or more"):
        check_search(reading(SPACE + "objective: stability"), with_values(Settings(), {"train.epochs": 1}))


def test_a_setting_that_enters_the_objective_is_cautioned_about(reading):
    assert cautions(reading(SPACE + "objective: stability"), Settings()) == []
    (sentence,) = cautions(reading("search: {method.k1: {choice: [8, 20]}}\nobjective: silhouette"), Settings())
    assert "method.k1 enters the computation of silhouette" in sentence
    centred = "search: {method.camera_centring: {choice: [true, false]}}\nobjective: "
    for objective in ("silhouette", "assigned"):
        (sentence,) = cautions(reading(centred + objective), Settings())
        assert f"method.camera_centring enters the computation of {objective}" in sentence
    (sentence,) = cautions(
        reading("search: {scwm.cluster_feature: {choice: [global, concat]}}\nobjective: camera_cycle"), Settings()
    )
    assert "scwm.cluster_feature enters the computation of camera_cycle" in sentence


def test_a_search_by_silhouette_is_cautioned_about_where_camera_cycle_is_known(reading):
    centring = with_values(Settings(), {"method.camera_centring": True})
    space = "search: {method.temperature: {choice: [0.05, 0.1]}}\nobjective: "
    (sentence,) = cautions(reading(space + "silhouette"), centring)
    assert "objective: camera_cycle, for data with known cameras" in sentence
    assert cautions(reading(space + "silhouette"), Settings()) == []
    assert cautions(reading(space + "camera_cycle"), centring) == []


def test_a_grid_that_the_trials_do_not_walk_to_its_end_is_cautioned_about(reading):
    grid = "search: {method.k1: {grid: [8, 20]}, method.eps: {grid: [0.4, 0.5, 0.6]}}\nobjective: stability\ntrials: "
    assert cautions(reading(grid + "6"), Settings()) == []
    (sentence,) = cautions(reading(grid + "5"), Settings())
    assert "6 combinations, and trials: 5 leaves the others out" in sentence


def test_a_setting_that_the_method_does_not_read_is_cautioned_about(reading):
    search = reading("search: {method.momentum: {choice: [0.1, 0.2]}}\nobjective: stability")
    assert cautions(search, Settings()) == []
    (sentence,) = cautions(search, with_values(Settings(), {"method.name": "pplr"}))
    assert sentence.startswith("caution: method.momentum has no effect under method.name=pplr: trials that")
    both = "search: {method.name: {choice: [pplr, scwm]}, method.momentum: {choice: [0.1, 0.2]}}\nobjective: stability"
    assert cautions(reading(both), with_values(Settings(), {"method.name": "pplr"})) == []


def test_a_setting_that_another_searched_one_brings_to_life_is_not(reading):
    alone = "search: {scwm.beta: {choice: [0.2, 0.4]}}\nobjective: stability"
    both = (
        "search: {scwm.beta: {choice: [0.2, 0.4]}, scwm.global_identity_weight: {choice: [1, 2]}}\nobjective: stability"
    )
    assert len(cautions(reading(alone), Settings())) == 1
    assert cautions(reading(both), Settings()) == []


def test_values_are_laid_over_settings():
    base = with_values(Settings(), {"method.k1": 15, "augment.erase_area": [0.1, 0.2]})
    assert (base.method.k1, base.augment.erase_area) == (15, (0.1, 0.2))
    assert base.train == Settings().train
