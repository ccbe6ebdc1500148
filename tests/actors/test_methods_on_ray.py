"""Every method on Ray: one worker bit for bit, two up to the order of float sums, one of them killed meanwhile."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reidray.launch.launch import launch
from reidray.report.console import Console
from tests.chaos import processes
from tests.whole.forms import FORMS
from tests.whole.runs import assert_close_losses, assert_same_run

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    import ray

    from reidray.actors.cluster import connect
    from reidray.config import Settings

    connect(Settings())
    yield
    ray.shutdown()


def _tests(kind: str, *quick: str) -> list[Any]:
    """Every form; those that are not named here have the other test in CI and this one where slow tests run."""
    return [pytest.param(form, id=f"{form}, {kind}", marks=() if form in quick else pytest.mark.slow) for form in FORMS]


@pytest.mark.parametrize("form", _tests("one worker", "pplr_cameras", "ihc_tracklets"))
def test_one_worker_gives_the_run_of_one_process_bit_for_bit(
    form: str, tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    sections = {**FORMS[form], "train": {**FORMS[form].get("train", {}), "epochs": 1, "steps": 10}}
    launch(tiny_settings("alone", **sections))
    launch(tiny_settings("one", **sections, run={"workers": 1}))
    assert_same_run(tmp_path / "alone", tmp_path / "one")


@pytest.mark.parametrize("form", _tests("two workers", "acrm", "buc_tracklets"))
def test_two_workers_of_which_one_is_killed_have_within_1e_4_the_losses_of_one_process(
    form: str, tiny_settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {**FORMS[form], "train": {**FORMS[form].get("train", {}), "epochs": 1, "steps": 30}}
    launch(tiny_settings("alone", **sections))
    handle, struck = Console.handle, []

    def kills(console: Console, event: dict[str, Any]) -> None:
        handle(console, event)
        if event["kind"] == "stage" and event["stage"] == "train" and 0 < event["done"] < 30 and not struck:
            struck.append(event["done"])
            os.kill(processes("RayTrainWorker")[0], signal.SIGKILL)

    monkeypatch.setattr(Console, "handle", kills)
    launch(tiny_settings("two", **sections, run={"workers": 2, "checkpoint_steps": 15}))
    assert struck, "the epoch was over before a worker could be killed"
    assert "continuing with epoch" in (tmp_path / "two" / "log.txt").read_text()
    assert_close_losses(tmp_path / "alone", tmp_path / "two")
