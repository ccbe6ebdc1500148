"""Machines that a run waits for, as far as that goes without Ray."""

from typing import Any

import pytest

from reidray.config import Settings
from reidray.tuning.checks import with_values

pytestmark = pytest.mark.filterwarnings("default")


def test_machines_are_asked_for_once_and_no_longer_when_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from reidray.actors import cluster

    there = iter([{"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 4.0}])
    asked: list[Any] = []
    monkeypatch.setenv("RAY_ADDRESS", "somewhere")
    monkeypatch.setattr(cluster, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: next(there))
    monkeypatch.setattr(cluster, "request_resources", lambda bundles: asked.append(bundles))
    said: list[str] = []
    settings = with_values(Settings(), {"run.workers": 2, "run.device": "cpu"})
    assert cluster.awaited_workers(settings, said.append) == (2, False)
    assert asked == [[{"CPU": 1}] * 2, []]
    assert len(said) == 1
    assert "waiting 60 s for more machines" in said[0]


def test_machines_that_do_not_come_are_no_longer_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from reidray.actors import cluster

    asked: list[Any] = []
    monkeypatch.setenv("RAY_ADDRESS", "somewhere")
    monkeypatch.setattr(cluster, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr(cluster, "request_resources", lambda bundles: asked.append(bundles))
    settings = with_values(Settings(), {"run.workers": 2, "run.device": "cpu", "run.start_timeout": 0.01})
    with pytest.raises(ValueError, match="needs 2 CPUs and the cluster has 1"):
        cluster.awaited_workers(settings, lambda _: None)
    assert asked[-1] == []
