"""The same run on Ray: one worker bit for bit, two up to the order of sums, and a worker that is killed."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reidray.bank import read_snapshot
from reidray.launch.inference import load_model, offline_context
from reidray.launch.launch import launch
from reidray.launch.prepare import packed_place
from reidray.report.console import Console
from reidray.storage.checkpoints import load_checkpoint
from reidray.training.evaluation import evaluate
from tests.chaos import processes
from tests.whole.runs import assert_close_losses, assert_same_run, epochs, result

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    import ray

    from reidray.actors.cluster import connect
    from reidray.config import Settings

    connect(Settings())
    yield
    ray.shutdown()


def test_one_worker_gives_the_run_without_ray_bit_for_bit(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    """And with a processor left free, the first epoch is evaluated there."""
    launch(tiny_settings("alone", evaluate={"every": 1}))
    launch(tiny_settings("ray", evaluate={"every": 1}, run={"workers": 1}))
    assert "evaluated beside training" in (tmp_path / "ray" / "log.txt").read_text()
    assert_same_run(tmp_path / "alone", tmp_path / "ray")


@pytest.mark.slow  # the killed run below is compared with one process as well
def test_two_workers_have_the_labels_and_within_1e_4_the_losses_of_one(
    tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    launch(tiny_settings("one", train={"epochs": 1, "steps": 50}))
    launch(tiny_settings("two", train={"epochs": 1, "steps": 50}, run={"workers": 2}))
    places = [tmp_path / name / "checkpoints" / "epoch_0000" for name in ("one", "two")]
    one, two = (read_snapshot(load_checkpoint(place).bank) for place in places)
    labels = [key for key in one if key.startswith("train/labels/")]
    assert labels
    assert all(one[key].tobytes() == two[key].tobytes() for key in labels)
    assert_close_losses(tmp_path / "one", tmp_path / "two")
    assert result(tmp_path / "one")["before"] == result(tmp_path / "two")["before"]
    assert _evaluated_again(tmp_path / "two") == result(tmp_path / "two")["after"]


@pytest.mark.slow  # tests/training/test_replica.py has the same without Ray
def test_two_workers_with_a_share_of_the_centroids_each_have_within_1e_4_the_losses_of_one_with_all(
    tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    three_groups = {"method": {"clusters_per_batch": 6}, "model": {"bn_group_size": 8}, "train": {"epochs": 1}}
    launch(tiny_settings("one", **three_groups))
    launch(tiny_settings("two", **three_groups, run={"workers": 2, "replica": "auto", "replica_mb": 1e-3}))
    assert "sharded (1 of 2 rows on each worker)" in (tmp_path / "two" / "log.txt").read_text()
    assert_close_losses(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    ("left", "groups"),
    [
        pytest.param({0: "RayTrainWorker", 1: "BankShard"}, 3, id="worker, shard"),  # a labeller: test_labellers.py
        pytest.param(
            {0: "RayTrainWorker", 1: "BankShard", 2: "Labeller"},
            3,
            id="worker, shard, labeller",
            marks=pytest.mark.slow,
        ),
        pytest.param({1: "TrainController"}, 2, id="controller", marks=pytest.mark.slow),
        pytest.param({1: "Mailbox"}, 2, id="mailbox", marks=pytest.mark.slow),
    ],
)
def test_killed_processes_change_nothing(
    tiny_settings: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: dict[int, str],
    groups: int,
) -> None:
    """One of each, in the middle of an epoch; other kinds and moments: tests/chaos.py.

    Two labellers share what one does in the undisturbed run, and begin while features still come in. One process has
    the labels of the first epoch and, within 1e-4, its losses.
    """
    many = {"epochs": 1 + max(left), "steps": 30}
    launch(tiny_settings("whole", train=many, run={"workers": 2}))
    launch(tiny_settings("alone", train={**many, "epochs": 1}))
    assert_close_losses(tmp_path / "alone", tmp_path / "whole", epochs=1)
    alone, whole = (epochs(tmp_path / name)[0] for name in ("alone", "whole"))
    assert all(alone[name] == whole[name] for name in ("clusters", "outliers", "ARI", "silhouette"))
    left = dict(left)
    handle = Console.handle

    def kills(console: Console, event: dict[str, Any]) -> None:
        handle(console, event)
        epoch = event.get("epoch")
        if event["kind"] == "stage" and event["stage"] == "train" and epoch in left and 0 < event["done"] < 30:
            os.kill(processes(left.pop(epoch))[0], signal.SIGKILL)

    monkeypatch.setattr(Console, "handle", kills)
    several = {"labellers": 2, "search_block": 64, "label_early": True}
    launch(tiny_settings("struck", train=many, run={"workers": 2, "checkpoint_steps": 15, **several}))
    assert not left, f"an epoch was over before {left} could be killed"
    assert (tmp_path / "struck" / "log.txt").read_text().count("continuing with epoch") == groups - 1
    assert_same_run(tmp_path / "whole", tmp_path / "struck")


@pytest.mark.slow
def test_a_labeller_that_is_lost_for_good_is_done_without(
    tiny_settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reidray.actors import train_group

    several = {"workers": 1, "labellers": 2, "search_block": 64, "checkpoint_steps": 2}
    launch(tiny_settings("whole", train={"epochs": 3}, run=several))
    labellers: list[Any] = []
    make, handle = train_group._labellers, Console.handle

    def made(*arguments: Any) -> list[Any]:
        labellers.extend(make(*arguments))
        return list(labellers)

    def loses(console: Console, event: dict[str, Any]) -> None:
        handle(console, event)
        if event["kind"] == "epoch" and event["epoch"] == 0:
            labellers[1].end()

    monkeypatch.setattr(train_group, "_labellers", made)
    monkeypatch.setattr(Console, "handle", loses)
    launch(tiny_settings("left", train={"epochs": 3}, run=several))
    assert "continuing with epoch" in (tmp_path / "left" / "log.txt").read_text()
    assert_same_run(tmp_path / "whole", tmp_path / "left")


def test_what_a_user_can_put_right_is_said_in_one_sentence_and_not_tried_again(
    tiny_settings: Callable[..., Any],
) -> None:
    with pytest.raises(ValueError, match=r"all .* images are outliers: raise method\.eps"):
        launch(tiny_settings("bad", method={"eps": 1e-6}, run={"workers": 1}))


def test_more_workers_than_processors_are_refused(tiny_settings: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"needs .* CPUs and the cluster has"):
        launch(tiny_settings("many", run={"workers": 2, "threads": 64}))


def _evaluated_again(run_dir: Path) -> dict[str, float]:
    """The figures of a run's newest checkpoint, measured in this process."""
    model, settings = load_model(run_dir)
    packed = packed_place(settings)
    figures = evaluate(offline_context(settings, packed, run_dir, lambda event: None), model, None)
    return {name: figures[name] for name in result(run_dir)["after"]}
