"""MLflow and W&B by fakes that take what the real ones take, and what happens where one is missing or fails.

The fakes' signatures are those of mlflow-skinny 3.17.2 and wandb 0.31.0, as `inspect.signature` gives them; where the
packages are installed, the fakes are compared with them.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from reidray.config import Settings
from reidray.report.console import Console
from reidray.report.loggers import Curves, check_loggers, open_loggers
from reidray.storage.runfolder import RunFolder


class Metric:
    def __init__(self, key, value, timestamp, step, model_id=None, dataset_name=None, dataset_digest=None, run_id=None):
        self.key, self.value, self.timestamp, self.step = key, value, timestamp, step


class Param:
    def __init__(self, key, value):
        assert isinstance(value, str)
        self.key, self.value = key, value


class MlflowClient:
    batches: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, tracking_uri=None, registry_uri=None, workspace_store_uri=None):
        pass

    def log_batch(self, run_id, metrics=(), params=(), tags=(), synchronous=None):
        assert len(metrics) <= 1000  # MLflow's limits
        assert len(params) <= 100
        self.batches.append({"run_id": run_id, "metrics": list(metrics), "params": list(params)})


def start_run(
    run_id=None,
    experiment_id=None,
    run_name=None,
    nested=False,
    parent_run_id=None,
    tags=None,
    description=None,
    log_system_metrics=None,
):
    MLFLOW_RUNS.append((run_id, run_name))
    return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "m1"))


def end_run(status="FINISHED"):
    MLFLOW_RUNS.append(status)


MLFLOW_RUNS: list[Any] = []


class WandbRun:
    def __init__(self, id):
        self.id = id or "w1"
        self.said: list[Any] = []

    def define_metric(self, name, step_metric=None, step_sync=None, hidden=None, summary=None, overwrite=None):
        self.said.append(("metric", name, step_metric))

    def log(self, data, step=None, commit=None):
        self.said.append(data)

    def finish(self, exit_code=None):
        self.said.append(("finish", exit_code))


WANDB_RUNS: list[Any] = []


def init(
    entity=None,
    project=None,
    dir=None,
    id=None,
    name=None,
    notes=None,
    tags=None,
    config=None,
    config_exclude_keys=None,
    config_include_keys=None,
    allow_val_change=None,
    group=None,
    job_type=None,
    mode=None,
    force=None,
    reinit=None,
    resume=None,
    resume_from=None,
    fork_from=None,
    save_code=None,
    tensorboard=None,
    sync_tensorboard=None,
    monitor_gym=None,
    settings=None,
    anonymous=None,
):
    WANDB_RUNS.append({"project": project, "name": name, "id": id, "resume": resume, "config": config, "mode": mode})
    WANDB_RUNS[-1]["run"] = WandbRun(id)
    return WANDB_RUNS[-1]["run"]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """mlflow and wandb as modules that note what they are told."""
    for noted in (MLFLOW_RUNS, WANDB_RUNS, MlflowClient.batches):
        noted.clear()
    mlflow, entities, wandb = ModuleType("mlflow"), ModuleType("mlflow.entities"), ModuleType("wandb")
    mlflow.__dict__.update(MlflowClient=MlflowClient, start_run=start_run, end_run=end_run, entities=entities)
    entities.__dict__.update(Metric=Metric, Param=Param)
    wandb.__dict__.update(init=init, Settings=lambda console, silent: None)
    for module in (mlflow, entities, wandb):
        module.__spec__ = importlib.util.spec_from_loader(module.__name__, None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for variable in ("WANDB_PROJECT", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)


def folder_and_settings(path: Path, *loggers: str) -> tuple[RunFolder, Settings]:
    settings = Settings.model_validate({"run": {"loggers": loggers}, "train": {"epochs": 2, "steps": 2}})
    return RunFolder.open(path) if path.exists() else RunFolder.create(path, settings), settings


def points() -> list[tuple[int, str, float]]:
    return [(metric.step, metric.key, metric.value) for batch in MlflowClient.batches for metric in batch["metrics"]]


def test_mlflow_gets_settings_once_and_every_point_with_its_number_of_updates(fakes: None, tmp_path: Path):
    folder, settings = folder_and_settings(tmp_path / "one", "mlflow")
    curves = Curves(open_loggers(folder, settings), steps_per_epoch=2)
    curves.epoch("evaluation", -1, {"mAP": 50.0, "when": "before"})
    curves.steps(0, {"total": [4.0, 3.0], "parsing": [1.0, 0.5]})
    curves.close()
    assert MLFLOW_RUNS == [(None, "one"), "FINISHED"]
    parameters = {param.key: param.value for batch in MlflowClient.batches for param in batch["params"]}
    assert len(parameters) > 100
    assert (parameters["train.epochs"], parameters["data.drawn.num_cameras"]) == ("2", "6")
    assert points() == [
        (0, "evaluation/mAP", 50.0),
        (1, "loss/total", 4.0),
        (1, "loss/parsing", 1.0),
        (2, "loss/total", 3.0),
        (2, "loss/parsing", 0.5),
    ]
    assert {batch["run_id"] for batch in MlflowClient.batches} == {"m1"}


def test_mlflow_has_an_epoch_when_it_has_ended(fakes: None, tmp_path: Path):
    with Console(*folder_and_settings(tmp_path / "one", "mlflow"), stream=io.StringIO()) as console:
        MlflowClient.batches.clear()
        console.handle({"kind": "steps", "epoch": 0, "losses": {"total": [1.0, 2.0]}})
        console.handle({"kind": "epoch", "epoch": 0, "loss_total": 1.5})
        assert sum(name == "loss/total" for _, name, _ in points()) == 2
        assert points()[-1][1:] == ("epoch/loss_total", 1.5)


def test_mlflow_is_sent_many_points_in_batches_that_it_takes(fakes: None, tmp_path: Path):
    folder, settings = folder_and_settings(tmp_path / "one", "mlflow")
    curves = Curves(open_loggers(folder, settings), steps_per_epoch=3000)
    curves.steps(0, {"total": [1.0] * 3000})
    assert len(points()) >= 2500  # the last ones wait
    curves.close(failed=True)
    assert len(points()) == 3000
    assert MLFLOW_RUNS[-1] == "FAILED"


def test_wandb_gets_settings_and_every_point_on_an_axis_of_its_own(fakes: None, tmp_path: Path):
    folder, settings = folder_and_settings(tmp_path / "one", "wandb")
    curves = Curves(open_loggers(folder, settings), steps_per_epoch=2)
    curves.steps(1, {"total": [4.0, 3.0]})
    curves.close()
    (made,) = WANDB_RUNS
    assert (made["project"], made["name"], made["id"], made["mode"]) == ("reidray", "one", None, None)
    assert made["config"]["train"]["epochs"] == 2
    assert made["run"].said == [
        ("metric", "updates", None),
        ("metric", "*", "updates"),
        {"loss/total": 4.0, "updates": 3},
        {"loss/total": 3.0, "updates": 4},
        ("finish", 0),
    ]


def test_the_users_own_project_is_left_to_wandb(fakes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    open_loggers(*folder_and_settings(tmp_path / "one", "wandb"))
    assert WANDB_RUNS[0]["project"] is None


def test_a_resumed_run_goes_on_in_the_same_runs_of_its_loggers(fakes: None, tmp_path: Path):
    open_loggers(*folder_and_settings(tmp_path / "one", "wandb", "mlflow"))
    assert json.loads((tmp_path / "one" / "loggers.json").read_text()) == {"wandb": "w1", "mlflow": "m1"}
    MlflowClient.batches.clear()
    open_loggers(*folder_and_settings(tmp_path / "one", "mlflow", "wandb"))
    assert MLFLOW_RUNS[-1] == ("m1", None)
    assert MlflowClient.batches == []  # MLflow refuses settings that change
    assert (WANDB_RUNS[-1]["id"], WANDB_RUNS[-1]["resume"]) == ("w1", "allow")


def test_a_missing_package_is_one_sentence_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find_spec(name) if name == "tensorboard" else None)
    check_loggers(["tensorboard"])
    for name in ("mlflow", "wandb"):
        with pytest.raises(ValueError, match=rf"run\.loggers={name} needs .* pip install -e '\.\[{name}\]'"):
            check_loggers(["tensorboard", name])


def test_a_logger_that_cannot_be_opened_is_one_sentence(fakes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuses(**_: Any) -> None:
        raise RuntimeError("No API key configured.\nmore")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuses)
    with pytest.raises(ValueError, match=r"run\.loggers=wandb cannot be opened: No API key configured\. \(log in"):
        open_loggers(*folder_and_settings(tmp_path / "one", "wandb"))


def test_a_logger_that_fails_is_left_out_and_the_run_goes_on(
    fakes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails(*_: Any, **__: Any) -> None:
        raise ConnectionError("the server is gone")

    folder, settings = folder_and_settings(tmp_path / "one", "wandb", "tensorboard")
    stream = io.StringIO()
    with Console(folder, settings, stream=stream) as console:
        monkeypatch.setattr(WandbRun, "log", fails)
        for epoch in range(2):
            console.handle({"kind": "steps", "epoch": epoch, "losses": {"total": [1.0, 2.0]}})
    (line,) = stream.getvalue().splitlines()
    assert "wandb fails and is left out from now on (the server is gone)" in line
    assert len(folder.steps()) == 4
    assert list(folder.tensorboard.iterdir())


def test_a_run_that_ends_with_an_error_has_failed_for_its_loggers_too(fakes: None, tmp_path: Path):
    folder, settings = folder_and_settings(tmp_path / "one", "wandb", "mlflow")
    with pytest.raises(KeyError), Console(folder, settings, stream=io.StringIO()):
        raise KeyError
    assert WANDB_RUNS[0]["run"].said[-1] == ("finish", 1)
    assert MLFLOW_RUNS[-1] == "FAILED"


@pytest.mark.filterwarnings("ignore")
def test_the_fakes_take_what_the_real_packages_take():
    """Only where these are installed."""
    mlflow = pytest.importorskip("mlflow")
    wandb = pytest.importorskip("wandb")
    pairs = [
        (Metric.__init__, importlib.import_module("mlflow.entities").Metric.__init__),
        (MlflowClient.log_batch, mlflow.MlflowClient.log_batch),
        (start_run, mlflow.start_run),
        (end_run, mlflow.end_run),
        (init, wandb.init),
        (WandbRun.log, wandb.Run.log),
        (WandbRun.define_metric, wandb.Run.define_metric),
        (WandbRun.finish, wandb.Run.finish),
    ]
    for fake, real in pairs:
        assert list(inspect.signature(fake).parameters) == list(inspect.signature(real).parameters), real
