"""The promises of the engine hold for every method: a resumed run is the uninterrupted one, blocks are the whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reidray.launch.launch import launch
from reidray.methods import METHODS
from reidray.storage.checkpoints import CheckpointStore
from tests.whole.forms import FORMS
from tests.whole.runs import assert_same_run, result


class _StoppedError(RuntimeError):
    """Stands for a machine that goes away."""


def test_every_method_is_tested() -> None:
    tested = {form["method"]["name"] for form in FORMS.values()}
    assert tested | {"scwm", "cluster_contrast"} == set(METHODS)


@pytest.mark.parametrize("form", FORMS)
def test_a_run_that_stops_between_and_within_epochs_ends_like_one_that_does_not(
    form: str, tiny_settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And while the one is labelled at once, the other is labelled block by block."""
    sections = {**FORMS[form], "train": {**FORMS[form].get("train", {}), "steps": 3}}
    launch(tiny_settings("whole", **sections))
    save, stops = CheckpointStore.save, ["epoch_0001_step_000002", "epoch_0000"]

    def saves(store: CheckpointStore, checkpoint: Any, bank: Any = None) -> None:
        save(store, checkpoint, bank)
        if stops and checkpoint.name == stops[-1]:
            store.wait()
            stops.pop()
            raise _StoppedError

    settings = tiny_settings(
        "stopped", run={"checkpoint_steps": 2, "labelling": "blocks", "search_block": 64}, **sections
    )
    monkeypatch.setattr(CheckpointStore, "save", saves)
    with pytest.raises(_StoppedError):
        launch(settings)
    with pytest.raises(_StoppedError):
        launch(settings, resume=tmp_path / "stopped")
    assert not stops
    launch(settings, resume=tmp_path / "stopped")
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_weakly_supervised_run_says_so(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    launch(tiny_settings("one", **FORMS["aac"], train={"epochs": 1, "steps": 2}))
    found = result(tmp_path / "one")
    assert found["supervision"] == "weakly supervised"
    assert found["attribute_vectors"] > 1
    assert found["moved_images"] >= found["split_clusters"]
    log = (tmp_path / "one" / "log.txt").read_text()
    assert f"weakly supervised: 10 attributes of the training images make {found['attribute_vectors']} distinct" in log


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("pplr", "run.replica=sharded has no place for the classifiers"),
        ("pplr_cameras", "run.replica=sharded has no place for the classifiers"),
    ],
)
def test_what_a_method_cannot_do_is_refused_in_a_sentence(
    form: str, words: str, tiny_settings: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match=words):
        tiny_settings("one", **FORMS[form], run={"replica": "sharded"})
