"""A run whose second epoch is traced: the figures are those of one that is not, and the timeline says what it did."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reidray.config import Settings
from reidray.launch.launch import launch
from tests.report.test_timeline import check_trace
from tests.whole.runs import assert_same_run


def test_a_traced_run_is_the_same_run_and_has_a_timeline(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    launch(tiny_settings("plain"))
    launch(tiny_settings("traced", run={"trace_epoch": 1}))
    assert_same_run(tmp_path / "plain", tmp_path / "traced")
    assert list((tmp_path / "plain").glob("trace_*")) == []
    trace = json.loads((tmp_path / "traced" / "trace_epoch_0001.json").read_text())
    check_trace(trace)
    names = _names(trace)
    assert list(names) == ["driver", "worker 0", "labeller 0", "bank shard 0", "bank shard 1"]
    assert {"extract", "label", "train", "keep", "data", "forward", "backward", "bank", "decode", "prepare"} <= names[
        "worker 0"
    ].keys()
    assert names["worker 0"]["step"] == names["worker 0"]["gather"] == 4
    assert names["worker 0"]["backward"] == 4 * 2  # BN groups
    assert {
        "parse",
        "label",
        "read",
        "neighbours",
        "jaccard",
        "dbscan",
        "difficulty",
        "centroids",
        "write",
        "criteria",
        "look_inside",
        "nearest_others",
    } == names["labeller 0"].keys()
    assert {event["args"]["epoch"] for event in trace["traceEvents"] if event["ph"] == "X"} == {1}
    assert (tmp_path / "traced" / "pictures" / "timeline.png").stat().st_size > 10_000
    line = (tmp_path / "traced" / "log.txt").read_text()
    assert line.count("timeline in trace_epoch_0001.json") == 1


def test_the_epochs_figures_say_where_a_step_spends_its_time(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    launch(tiny_settings("one", train={"epochs": 1}))
    (epoch,) = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    parts = {name: epoch[f"step_ms_{name}"] for name in ("data", "forward", "backward", "gather", "bank")}
    assert all(milliseconds > 0 for milliseconds in parts.values())
    assert sum(parts.values()) <= epoch["step_ms"]


def test_an_epoch_that_will_not_come_cannot_be_traced() -> None:
    with pytest.raises(ValueError, match=r"run\.trace_epoch=3 is no epoch of the run: .* it can be 0 to 2"):
        Settings.model_validate({"train": {"epochs": 3}, "run": {"trace_epoch": 3}})


def _names(trace: dict[str, Any]) -> dict[str, dict[str, int]]:
    """How often each span occurs, by process."""
    events = trace["traceEvents"]
    processes = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    found: dict[str, dict[str, int]] = {name: {} for name in processes.values()}
    for event in events:
        if event["ph"] == "X":
            counts = found[processes[event["pid"]]]
            counts[event["name"]] = counts.get(event["name"], 0) + 1
    return found
