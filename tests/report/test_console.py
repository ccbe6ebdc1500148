"""The console: a scripted run, event by event, on a clock of its own."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from reidray.config import Settings
from reidray.report.console import Console
from reidray.report.progress import Pace, Stage, duration
from reidray.shared_settings import TrainSettings
from reidray.storage.runfolder import RunFolder

EPOCHS = 3
SETTINGS = Settings(train=TrainSettings(epochs=EPOCHS, steps=4))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A folder, a clock, a stream and a console on them."""

    def __init__(self, path: Path, *, interactive: bool = False) -> None:
        self.folder = RunFolder.open(path) if path.exists() else RunFolder.create(path, SETTINGS)
        self.clock, self.stream = Clock(), io.StringIO()
        self.console = Console(self.folder, SETTINGS, stream=self.stream, interactive=interactive, clock=self.clock)

    def stage(
        self, name: str, epoch: int | None, *, seconds: float, parts: int = 4, unit: str = "images", **more
    ) -> None:
        for part in range(parts + 1):
            done = {"done": 25 * part, "total": 25 * parts, "images_per_second": 50.0 if part else None}
            self.console.handle({"kind": "stage", "stage": name, "epoch": epoch, "unit": unit, **done, **more})
            self.clock.now += seconds / parts if part < parts else 0.0

    def evaluation(self, when: str, epoch: int | None, mAP: float) -> None:
        figures = {"mAP": mAP, "mAP_trapezoid": mAP - 0.5, "rank1": 80.0, "rank5": 90.0, "rank10": 95.0, "mINP": 40.0}
        self.console.handle({"kind": "evaluation", "when": when, "epoch": epoch, **figures, "parsing_mIoU": None})

    def epoch(self, epoch: int) -> None:
        self.stage("extract", epoch, seconds=4.0)
        self.stage("label", epoch, seconds=2.0)
        labels = {"clusters": 40 + epoch, "outliers": 9, "ARI": 0.5, "AMI": 0.75, "purity": None, "pseudo_mIoU": None}
        self.console.handle({"kind": "labels", "epoch": epoch, **labels})
        self.stage("train", epoch, seconds=24.0, unit="steps", losses={"total": 2.5, "memory": 1.5, "parsing": 1.0})
        self.console.handle({"kind": "steps", "epoch": epoch, "losses": {"total": [3.0, 2.5], "memory": [2.0, 1.5]}})
        self.console.handle(
            {"kind": "epoch", "epoch": epoch, "loss_total": 2.5, "loss_memory": 1.5, "seconds": 30, "x": 7}
        )

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    @property
    def logged(self) -> list[str]:
        return (self.folder.path / "log.txt").read_text().splitlines()

    def line(self, *words: str) -> str:
        """The one line that holds all the words."""
        (found,) = [line for line in self.lines if all(word in line for word in words)]
        return found


@pytest.fixture
def run(tmp_path: Path):
    run = Run(tmp_path / "run")
    yield run
    run.console.close()


def test_a_whole_run_in_plain_lines(run: Run):
    run.stage("draw", None, seconds=12.0)
    run.evaluation("before", None, 50.0)
    for epoch in range(3):
        run.epoch(epoch)
    run.evaluation("after", 2, 75.25)
    text = run.stream.getvalue()
    assert "\x1b" not in text
    assert "draw     100 images in 12.0 s  50 images/s" in text
    assert "before training  mAP 50.00  mAP (trapezoid) 49.50  rank-1 80.00" in text
    assert "epoch 1/3  label    40 clusters, 9 outliers in 2.0 s  ARI 0.5  AMI 0.75" in text
    assert "epoch 2/3  train    100 steps in 24.0 s  50 images/s  loss 2.5 (memory 1.5, parsing 1)" in text
    assert "epoch 1/3  done     loss 2.5  in 30.0 s  x 7  run 1:00 left" in text
    assert "left" not in run.line("epoch 3/3", "done")
    assert run.line("mAP      ").split() == ["mAP", "50.00", "75.25", "+25.25"]
    assert "parsing" not in run.lines[-2]
    assert run.logged == run.lines


def test_plain_progress_is_told_only_now_and_then_and_with_time_left(run: Run):
    run.stage("draw", None, seconds=60.0, parts=60)
    going_on = [line for line in run.lines if " left" in line]
    assert 10 <= len(going_on) <= 12
    assert "draw     125/1500 images 8%  50 images/s  0:55 left" in going_on[0]
    assert len(run.lines) == len(going_on) + 1


def test_time_left_of_the_whole_run_comes_from_finished_epochs(run: Run):
    run.epoch(0)
    assert not any("run" in line for line in run.lines if "done" not in line)
    run.epoch(1)
    assert "run 0:48 left" in run.line("epoch 2/3", "train    25/100")  # 60 s for two epochs, 12 s into the first


def test_a_stage_that_reports_its_end_twice_ends_once(run: Run):
    event = {"kind": "stage", "stage": "pack", "epoch": None, "done": 5, "total": 5, "unit": "images"}
    run.console.handle(event)
    run.console.handle(event)
    run.console.handle(event | {"done": 0, "total": 0, "stage": "draw"})
    assert len(run.lines) == 2


def test_stages_may_overlap(run: Run):
    event = {"kind": "stage", "epoch": 0, "unit": "images", "total": 10}
    for stage, done in (("extract", 0), ("train", 0), ("extract", 10), ("train", 5), ("train", 10)):
        run.console.handle({**event, "stage": stage, "done": done})
        run.clock.now += 1.0
    assert "extract  10 images in 2.0 s" in run.lines[0]
    assert "train    10 images in 3.0 s" in run.lines[1]
    assert len(run.lines) == 2


def test_events_are_filed_in_the_run_folder(run: Run):
    run.evaluation("before", None, 50.0)
    run.epoch(0)
    run.evaluation("epoch", 0, 60.0)
    (measures,) = run.folder.epochs()
    assert measures["loss_total"] == 2.5
    assert (measures["clusters"], measures["ARI"]) == (40, 0.5)  # of the labels that the epoch trained on
    assert [step["terms"]["memory"] for step in run.folder.steps()] == [2.0, 1.5]
    assert [(line["when"], line["mAP"]) for line in run.folder.evaluations()] == [("before", 50.0), ("epoch", 60.0)]
    assert list(run.folder.tensorboard.iterdir())


def test_a_resumed_run_forgets_what_it_does_again_and_says_so(tmp_path: Path, run: Run):
    run.evaluation("before", None, 50.0)
    run.epoch(0)
    run.epoch(1)
    run.console.handle({"kind": "resumed", "epoch": 1, "epochs": EPOCHS, "why": "1 of 2 workers died", "workers": 2})
    assert "continuing with epoch 2 of 3: 1 of 2 workers died" in run.lines[-1]
    assert [measures["epoch"] for measures in run.folder.epochs()] == [0]
    assert {step["epoch"] for step in run.folder.steps()} == {0}
    run.epoch(1)
    run.console.close()

    again = Run(run.folder.path)  # another process, later
    again.console.handle({"kind": "resumed", "epoch": 2, "epochs": EPOCHS, "why": "--resume", "workers": 2})
    again.epoch(2)
    again.evaluation("after", 2, 70.0)
    again.console.close()
    assert again.line("mAP      ").split() == ["mAP", "50.00", "70.00", "+20.00"]
    assert [measures["epoch"] for measures in again.folder.epochs()] == [0, 1, 2]
    assert again.logged[: len(run.lines)] == run.lines


def test_a_run_that_starts_again_from_its_beginning_forgets_everything(run: Run):
    for mAP in (50.0, 51.0):
        run.console.handle({"kind": "started", "epochs": EPOCHS})
        run.evaluation("before", None, mAP)
        run.epoch(0)
    assert [(line["when"], line["mAP"]) for line in run.folder.evaluations()] == [("before", 51.0)]
    assert [measures["epoch"] for measures in run.folder.epochs()] == [0]
    assert len(run.folder.steps()) == 2


def test_a_run_that_starts_again_within_its_first_epoch_has_each_step_once(run: Run):
    """And nothing to evaluate on, so that its losses are all that there is."""
    for _ in range(2):
        run.console.handle({"kind": "started", "epochs": EPOCHS})
        run.console.handle({"kind": "steps", "epoch": 0, "losses": {"total": [3.0, 2.0]}})
    assert [step["step"] for step in run.folder.steps()] == [0, 1]


def test_without_figures_from_before_there_is_no_gain(run: Run):
    run.evaluation("after", 2, 70.0)
    assert run.line("mAP      ").split() == ["mAP", "-", "70.00", "-"]


def test_a_new_group_of_workers_is_told_and_the_first_one_is_not(run: Run):
    run.console.handle({"kind": "started", "epochs": EPOCHS})
    run.evaluation("before", None, 50.0)
    run.epoch(0)
    run.console.handle(
        {"kind": "resumed", "epoch": 1, "epochs": EPOCHS, "why": "the checkpoint of epoch 1", "workers": 2}
    )
    again = [line for line in run.lines if "started the workers again" in line]
    assert len(again) == 1
    assert run.lines[-2:] == [again[0], run.line("continuing with epoch 2 of 3: the checkpoint of epoch 1")]


def test_the_schedule_of_the_method_says_how_many_epochs_there_are(run: Run):
    run.console.handle({"kind": "started", "epochs": 12})
    run.epoch(0)
    run.epoch(1)
    done = run.line("epoch  2/12", "done")
    assert done.endswith("left")
    run.console.handle({"kind": "resumed", "epoch": 1, "epochs": 11, "why": "a worker died", "workers": 2})
    assert run.line("continuing with epoch 2 of 11: a worker died")


def test_nothing_is_said_of_a_stage_of_which_nothing_is_done(run: Run):
    event = {"kind": "stage", "stage": "evaluate", "epoch": None, "total": 9, "unit": "images"}
    run.clock.now += 60.0
    run.console.handle({**event, "done": 0})
    assert run.lines == []
    run.console.handle({**event, "done": 1})
    assert len(run.lines) == 1


def test_the_end_of_an_epoch_says_where_its_steps_spent_their_time(run: Run):
    times = {"step_ms": 100.0, "step_ms_data": 1.0, "step_ms_forward": 30.0, "step_ms_backward": 60.0}
    run.console.handle({"kind": "epoch", "epoch": 0, "seconds": 3.0, "loss_total": 2.0, **times})
    assert run.lines[0].endswith("done     loss 2  in 3.0 s  step 100 ms (backward 60, forward 30)")
    assert run.folder.epochs()[0]["step_ms_data"] == 1.0


def test_messages_are_printed_and_logged(run: Run):
    run.console.handle({"kind": "message", "text": "12 files ignored"})
    assert run.lines == run.logged == ["   0:00  12 files ignored"]


def test_an_unknown_event_and_a_loss_that_is_not_finite_are_refused(run: Run):
    with pytest.raises(ValueError, match=r"kind of an event must be one of stage, .*got 'noise'"):
        run.console.handle({"kind": "noise"})
    with pytest.raises(ValueError, match=r"terms\.total must be finite"):
        run.console.handle({"kind": "steps", "epoch": 0, "losses": {"total": [float("nan")]}})


def test_a_stream_that_knows_only_ascii_is_no_trouble():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with Console(None, SETTINGS, stream=stream, interactive=False) as console:
        console.handle({"kind": "message", "text": "café"})
    stream.flush()
    assert b"caf?" in stream.buffer.getvalue()


def test_without_a_folder_nothing_is_filed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    stream = io.StringIO()
    with Console(None, SETTINGS, stream=stream) as console:
        console.handle({"kind": "labels", "epoch": 0, "clusters": 3, "outliers": 0})
        console.handle({"kind": "steps", "epoch": 0, "losses": {"total": [1.0]}})
        console.handle({"kind": "epoch", "epoch": 0, "loss": 1.0})
        console.handle({"kind": "evaluation", "when": "after", "epoch": 0, "mAP": 1.0})
    assert "3 clusters" in stream.getvalue()
    assert not list(tmp_path.iterdir())


def test_a_terminal_gets_bars_and_the_log_stays_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    run = Run(tmp_path / "run", interactive=True)
    run.evaluation("before", None, 50.0)
    run.epoch(0)
    run.console.handle(
        {"kind": "stage", "stage": "train", "epoch": 1, "done": 1, "total": 4, "unit": "steps",
         "images_per_second": 50.0, "losses": {"total": 2.0}}
    )  # fmt: skip
    run.evaluation("after", 2, 75.0)
    run.console.close()
    shown = run.stream.getvalue()
    for words in ("━", "1/4 steps", "50 images/s", "whole run", "40 clusters, 9 outliers", "loss 2", "+25.00"):
        assert words in shown
    assert "\x1b[?25h" in shown  # the cursor is given back
    log = "\n".join(run.logged)
    assert "\x1b" not in log
    assert "epoch 1/3  train    100 steps in 24.0 s" in log
    assert "+25.00" in log


def test_metrics_are_plain_json_lines(run: Run):
    run.epoch(0)
    for line in (run.folder.path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0:00"), (-3, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (90061, "1d 01:01:01")],
)
def test_durations_in_words(seconds: float, words: str):
    assert duration(seconds) == words


def test_a_stage_seen_from_its_middle_counts_only_what_it_saw():
    stage = Stage("train", 0, "steps", started=10.0, first=50)
    stage.update(50, 100, None, None)
    assert stage.left(12.0) is None
    stage.update(60, 100, None, None)
    assert stage.left(20.0) == pytest.approx(40.0)  # 10 steps in 10 s, 40 to go


def test_the_pace_is_the_median_epoch_and_a_pause_does_not_count():
    pace = Pace(5)
    pace.begin(0.0)
    assert pace.left(0.0) is None
    pace.finish(0, 10.0)
    assert pace.left(10.0) == pytest.approx(40.0)
    assert pace.left(14.0) == pytest.approx(36.0)
    pace.finish(1, 40.0)  # 30 s
    pace.finish(2, 50.0)  # 10 s
    assert pace.left(50.0) == pytest.approx(20.0)
    pace.resume(2)
    pace.begin(1000.0)
    assert pace.left(1000.0) == pytest.approx(30.0)
