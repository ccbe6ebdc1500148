"""Which trial comes next, after any number of interruptions; with Optuna where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from reidray.tuning.ledger import Entry
from reidray.tuning.proposals import OptunaSearcher, Proposals
from reidray.tuning.search_file import Candidates, Search


def search(**more: Any) -> Search:
    given: dict[str, Any] = {
        "space": {
            "method.eps": Candidates("uniform", (0.3, 0.7)),
            "method.k1": Candidates("uniform", (8, 30), whole=True),
            "augment.erase_area": Candidates("choice", ([0.0, 0.1], [0.1, 0.3])),
        },
        "objective": "stability",
        "trials": 6,
        "scheduler": "asha",
        "grace_epochs": None,
        "reduction": 3,
        "searcher": "random",
        "seed": 0,
    }
    return Search(**{**given, **more})


def all_of(proposals: Proposals) -> list[tuple[int, Any]]:
    asked = []
    while (proposed := proposals.ask()) is not None:
        asked.append(proposed)
    return asked


def entry(trial: int, values: Any, state: str | None, scores: dict[int, float] | None = None) -> Entry:
    return Entry(trial, values, Path("x"), state=state, epochs=max(scores or {0: 0}), scores=scores or {})


def test_every_trial_is_handed_out_once_and_told_to_the_ledger():
    told: list[tuple[int, Any]] = []
    proposals = Proposals(search(), [], lambda trial, values: told.append((trial, values)))
    assert proposals.left == 6
    asked = all_of(proposals)
    assert [trial for trial, _ in asked] == list(range(6))
    assert told == asked
    assert proposals.left == 0


def test_a_resumed_search_begins_with_what_was_interrupted_or_crashed_and_draws_the_rest_as_before():
    whole = all_of(Proposals(search(), [], lambda trial, values: None))
    states = ["finished", None, "crashed", "failed"]
    before = [entry(trial, values, state) for (trial, values), state in zip(whole, states, strict=False)]
    told: list[int] = []
    proposals = Proposals(search(), before, lambda trial, values: told.append(trial))
    assert proposals.left == 4
    assert all_of(proposals) == [whole[1], whole[2], whole[4], whole[5]]
    assert told == [4, 5]


def test_a_search_that_is_given_more_trials_goes_on_behind_the_last():
    whole = all_of(Proposals(search(trials=8), [], lambda trial, values: None))
    before = [entry(trial, values, "finished") for trial, values in whole[:6]]
    assert all_of(Proposals(search(trials=8), before, lambda trial, values: None)) == whole[6:]


def test_without_optuna_there_is_a_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"not installed: pip install .*\[search\]"):
        OptunaSearcher(search(searcher="optuna"), 0)


@pytest.mark.filterwarnings("default")
def test_optuna_finds_better_values_than_chance_and_keeps_to_the_candidates():
    pytest.importorskip("optuna")

    def score(values: Any) -> float:
        return -abs(values["method.eps"] - 0.62) - abs(values["method.k1"] - 12) / 100

    searcher = OptunaSearcher(search(searcher="optuna"), 0)
    scores = []
    for trial in range(60):
        values = searcher.values(trial)
        assert 0.3 <= values["method.eps"] <= 0.7
        assert type(values["method.k1"]) is int
        assert values["augment.erase_area"] in ([0.0, 0.1], [0.1, 0.3])
        scores.append(score(values))
        searcher.learn(entry(trial, values, "finished", {3: scores[-1]}))
    assert sum(scores[40:]) / 20 > sum(scores[:20]) / 20 + 0.02


@pytest.mark.filterwarnings("default")
def test_optuna_learns_from_earlier_sittings_whatever_became_of_their_trials():
    optuna = pytest.importorskip("optuna")
    before = [
        entry(0, {"method.eps": 0.5, "method.k1": 9, "augment.erase_area": [0.1, 0.3]}, "finished", {2: 0.1, 3: 0.4}),
        entry(1, {"method.eps": 0.4, "method.k1": 8, "augment.erase_area": [0.0, 0.1]}, "stopped", {2: 0.2}),
        entry(2, {"method.eps": 0.3, "method.k1": 8, "augment.erase_area": [0.0, 0.1]}, "failed"),
    ]
    proposals = Proposals(search(searcher="optuna"), before, lambda trial, values: None)
    known = proposals._optuna._study.trials
    states = optuna.trial.TrialState
    assert [trial.state for trial in known] == [states.COMPLETE, states.PRUNED, states.FAIL]
    assert known[0].value == 0.4
    assert known[1].intermediate_values == {2: 0.2}
    first, second = proposals.ask(), proposals.ask()
    assert first is not None
    assert second is not None
    assert (first[0], second[0]) == (3, 4)
    proposals.learn(entry(3, first[1], "stopped", {2: 0.3}))
    proposals.learn(entry(4, second[1], "failed"))
    assert [trial.state for trial in proposals._optuna._study.trials[3:]] == [states.PRUNED, states.FAIL]
