"""A search between its file and Tune: what is handed out, and what a resumed one may be given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import reidray.actors.cluster
import reidray.actors.tune
from reidray.actors.tune import Share
from reidray.config import Settings
from reidray.tuning import proposals, run_search
from reidray.tuning.ledger import Entry, Ledger
from reidray.tuning.search_file import Search, read_search

TOGETHER = [
    {"method.name": "scwm", "method.update": "average"},
    {"method.name": "cluster_contrast", "method.update": "weighted"},  # weights are SCWM's
]
SPACE = """
search:
  method.name: {choice: [scwm, cluster_contrast]}
  method.update: {choice: [average, weighted]}
searcher: optuna
trials: 4
"""


class Draws:
    """Values that fit together and values that do not, in turn."""

    def __init__(self) -> None:
        self.learnt: list[tuple[int, str | None]] = []

    def values(self, trial: int) -> dict[str, Any]:
        return TOGETHER[trial % 2]

    def learn(self, entry: Entry) -> None:
        self.learnt.append((entry.trial, entry.state))


def asked(folder: Path) -> Search:
    file = folder / "asked.yaml"
    file.write_text(SPACE)
    return read_search(file)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`run_search._run` with a Tune that ends every trial at once; the settings of the trials that it ran."""

    def sitting(settings: Settings, share: Share, searcher: Any) -> list[tuple[int, Settings]]:
        ran: list[tuple[int, Settings]] = []

        def trials(run: Any, ask: Any, *, ended: Any, **_: Any) -> int:
            while (proposed := ask()) is not None:
                ran.append(proposed)
                ended(proposed[0], "finished", "", 1.0)
            return 0

        monkeypatch.setattr(reidray.actors.cluster, "connect", lambda settings: None)
        monkeypatch.setattr(reidray.actors.tune, "trial_share", lambda settings, most: share)
        monkeypatch.setattr(reidray.actors.tune, "run_trials", trials)
        monkeypatch.setattr(proposals, "OptunaSearcher", lambda search, asked_before: searcher)
        ledger = Ledger(tmp_path, "silhouette")
        assert run_search._run(settings, asked(tmp_path), ledger, tmp_path, None, lambda text: None) == 0
        return ran

    return sitting


def test_a_draw_whose_values_do_not_fit_together_is_a_failed_trial_and_the_search_goes_on(
    run: Any, tmp_path: Path
) -> None:
    draws = Draws()
    assert [trial for trial, _ in run(Settings(), Share(1, 0, 1), draws)] == [0, 2]
    entries = Ledger(tmp_path, "silhouette").entries()
    assert [entry.state for entry in entries] == ["finished", "failed", "finished", "failed"]
    assert "method.update" in entries[1].sentence
    assert draws.learnt == [(entry.trial, entry.state) for entry in entries]
    assert run(Settings(), Share(1, 0, 1), draws) == [], "nothing is left, and nothing is tried again"


@pytest.mark.parametrize(
    ("device", "gpus", "takes"),
    [("auto", 0.0, "cpu"), ("auto", 1.0, "cuda"), ("cuda", 1.0, "cuda"), ("cpu", 0.5, "cpu")],
)
def test_trials_are_on_gpus_where_their_networks_are_not_where_a_labeller_is(
    run: Any, device: str, gpus: float, takes: str
) -> None:
    settings = Settings()
    settings = settings.model_copy(update={"run": settings.run.model_copy(update={"device": device})})
    assert {own.run.device for _, own in run(settings, Share(2, gpus, 1), Draws())} == {takes}


def test_a_resumed_search_keeps_the_length_of_its_trials(tmp_path: Path) -> None:
    place = tmp_path / "search"
    run_search._create(place, Settings())
    epochs = Settings().train.epochs
    longer = Settings()
    longer = longer.model_copy(update={"train": longer.train.model_copy(update={"epochs": epochs + 1})})
    with pytest.raises(ValueError, match=rf"goes on with train\.epochs={epochs}, .* not with {epochs + 1}"):
        run_search.run_search(longer, asked(tmp_path), resume=place)
    assert not (place / "search.yaml").exists(), "nothing is written before everything fits"
