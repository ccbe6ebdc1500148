"""What a trial tells while it runs, and after it was interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reidray.config import Settings
from reidray.errors import PassingError
from reidray.storage.runfolder import RunFolder
from reidray.tuning import trial
from reidray.tuning.checks import with_values

STABILITY = (None, 0.5, 0.6)


class Pulled(BaseException):
    """The plug."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return with_values(Settings(), {"train.epochs": 3, "run.dir": str(tmp_path / "trial")})


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch):
    """A launch that writes what a run writes, from `first` on, and may be interrupted or fail."""

    def prepare(*, until: int = 3, error: BaseException | None = None) -> None:
        def launch(settings: Settings, *, resume: Path | None, watch: Callable[[Any], None]) -> None:
            place = Path(settings.run.dir or "")
            folder = RunFolder.open(place) if resume else RunFolder.create(place, settings)
            for epoch in range(len(folder.epochs()), until):
                value = STABILITY[epoch]
                folder.add_epoch({"epoch": epoch, **({} if value is None else {"stability": value})})
                watch({"kind": "epoch", "epoch": epoch})
            if error is not None:
                raise error
            folder.write_result({"after": {"mAP": 70.0, "rank1": 80.0}})

        monkeypatch.setattr(trial, "launch", launch)

    return prepare


def told_by(settings: Settings, objective: str = "stability") -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    trial.run_trial(settings, lambda report: told.append({**report}), objective=objective)
    return told


def test_every_epoch_is_told_once_and_the_last_one_when_the_run_is_over(pretended, settings: Settings):
    pretended()
    assert told_by(settings) == [
        {"epochs": 1},
        {"epochs": 2, "score": 0.5},
        {"epochs": 3, "score": 0.6, "state": "finished", "sentence": ""},
    ]


def test_a_trial_that_goes_on_tells_its_earlier_epochs_too(pretended, settings: Settings):
    pretended(until=2, error=Pulled())
    with pytest.raises(Pulled):
        told_by(settings)
    pretended()
    assert [report["epochs"] for report in told_by(settings)] == [1, 2, 3]


def test_mAP_of_the_last_epoch_comes_from_the_evaluation_after_training(pretended, settings: Settings):
    pretended()
    assert told_by(settings, "mAP")[-1] == {"epochs": 3, "score": 70.0, "state": "finished", "sentence": ""}


def test_a_failure_that_would_be_there_again_is_told_as_a_sentence(pretended, settings: Settings):
    pretended(until=1, error=ValueError("all images are outliers"))
    assert told_by(settings) == [
        {"epochs": 1},
        {"epochs": 1, "state": "failed", "sentence": "all images are outliers"},
    ]


def test_what_may_pass_is_tried_again(pretended, settings: Settings):
    pretended(until=1, error=PassingError("no machine came"))
    assert told_by(settings) == [{"epochs": 1}, {"epochs": 1, "state": "crashed", "sentence": "no machine came"}]
    pretended()
    assert told_by(settings)[-1]["state"] == "finished"


def test_what_only_we_can_break_is_told_as_a_crash_and_leaves_its_traceback(
    pretended, settings: Settings, tmp_path: Path
):
    pretended(until=1, error=KeyError("bug"))
    assert told_by(settings)[-1] == {"epochs": 1, "state": "crashed", "sentence": "KeyError: 'bug'"}
    assert "Traceback" in (tmp_path / "trial" / "error.txt").read_text()


def test_a_folder_that_was_cut_short_while_it_was_made_is_made_again(pretended, settings: Settings, tmp_path: Path):
    (tmp_path / "trial" / "pictures").mkdir(parents=True)
    pretended()
    assert told_by(settings)[-1]["state"] == "finished"
