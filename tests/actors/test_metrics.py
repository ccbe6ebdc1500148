"""What goes to Ray's metrics, seen by fakes in their place; and its names, as Prometheus wants them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from reidray.actors import metrics
from reidray.bank import BankShard
from reidray.spans import Spans

SENT: list[tuple[str, str, float, dict[str, str]]] = []


def fake(kind: str) -> type:
    """A metric that notes what it is told, and refuses tags that it was not made with."""

    class Metric:
        def __init__(self, name: str, description: str = "", boundaries: Any = None, tag_keys: tuple[str, ...] = ()):
            assert (boundaries is not None) == (kind == "histogram")
            self.name, self.keys, self.tags = name, set(tag_keys), {}

        def set_default_tags(self, tags: dict[str, str]) -> None:
            assert tags.keys() <= self.keys
            self.tags = tags

        def _note(self, value: float, tags: dict[str, str] | None = None) -> None:
            all_tags = {**self.tags, **(tags or {})}
            assert all_tags.keys() == self.keys  # Ray refuses a metric with a tag left out
            SENT.append((kind, self.name, value, all_tags))

        observe = inc = set = _note

    if kind == "counter":

        def inc(self: Any, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
            self._note(value, tags)

        Metric.inc = inc
    return Metric


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    SENT.clear()
    for kind in ("Histogram", "Counter", "Gauge"):
        monkeypatch.setattr(metrics, kind, fake(kind.lower()))


def test_names_are_prometheus_names_with_their_units():
    names = [*metrics.SECONDS, *metrics.SPENT, *metrics.COUNTS, *metrics.QUEUES, *metrics.RUN, metrics.RESTARTS[0]]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"reidray_[a-z]+(_[a-z]+)*", name) for name in names)
    assert all(name.endswith("_seconds") for name in [*metrics.SECONDS, *metrics.SPENT])
    assert {metrics.spent(name): tags for name, (_, tags) in metrics.SECONDS.items()} == {
        name: tags for name, (_, tags) in metrics.SPENT.items()
    }


def test_the_table_of_the_documents_has_every_metric_with_its_tags_and_no_other():
    text = (Path(__file__).resolve().parents[2] / "docs" / "observability.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `reidray_")]
    documented = {name: re.findall(r"`(\w+)`", row[3]) for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    known = {**metrics.SECONDS, **metrics.SPENT, **metrics.COUNTS, **metrics.QUEUES, **metrics.RUN}
    expected = {name: list(tags) for name, (_, tags) in known.items()}
    assert documented == {**expected, metrics.RESTARTS[0]: []}


def test_a_workers_steps_and_stages_are_histograms_of_seconds():
    spans = Spans()
    exporter = metrics.Exporter(spans, metrics.of_worker, {"run": "r", "rank": "1"})
    with spans("train"), spans("forward", 0), spans("unknown", 0):
        pass
    with spans("forward"):  # of extraction: no part of a step
        pass
    exporter.close()
    step, stage = {"run": "r", "rank": "1", "part": "forward"}, {"run": "r", "rank": "1", "stage": "train"}
    assert [(kind, name, tags) for kind, name, _, tags in SENT] == [
        ("histogram", "reidray_step_seconds", step),
        ("histogram", "reidray_stage_seconds", stage),
        ("counter", "reidray_step_spent_seconds", step),
        ("counter", "reidray_stage_spent_seconds", stage),
    ]
    assert all(0 < seconds < 10 for _, _, seconds, _ in SENT)


def test_the_counter_beside_a_histogram_has_the_exact_sum_of_its_seconds():
    spans = Spans()
    exporter = metrics.Exporter(spans, metrics.of_labeller, {"run": "r", "labeller": "0"})
    for _ in range(5):
        with spans("parse"):
            pass
    exporter.close()
    times = [seconds for kind, _, seconds, _ in SENT if kind == "histogram"]
    assert len(times) == 5
    assert [seconds for kind, _, seconds, _ in SENT if kind == "counter"] == [pytest.approx(sum(times))]


def test_counts_are_sent_as_what_was_added_and_queues_as_they_are():
    spans, lengths = Spans(), {"reidray_bank_pending_writes": 3.0}
    exporter = metrics.Exporter(spans, metrics.of_worker, {"run": "r", "rank": "0"}, lambda: lengths)
    spans.count("extracted images", 64)
    exporter.send()
    spans.count("extracted images", 10)
    exporter.send()
    exporter.send()
    lengths["reidray_bank_pending_writes"] = 0.0
    exporter.close()
    assert [value for kind, _, value, _ in SENT if kind == "counter"] == [64, 10]
    queue = [(name, value) for kind, name, value, _ in SENT if kind == "gauge"]
    assert queue == [("reidray_bank_pending_writes", value) for value in (3.0, 3.0, 3.0, 0.0)]


def test_a_measured_shard_is_a_shard_that_sends_its_calls():
    shard = metrics.measured(BankShard, metrics.of_bank, {"run": "r", "shard": "2"})("bank shard 2")
    assert isinstance(shard, BankShard)
    assert type(shard).__name__ == "BankShard"
    shard.mark("0/1", [], 0, [])
    shard._exporter.close()
    (kind, name, _, tags), (other, *_) = SENT
    assert (kind, name, other) == ("histogram", "reidray_bank_seconds", "counter")
    assert tags == {"run": "r", "shard": "2", "call": "mark"}


def test_events_of_a_run_become_its_gauges_and_only_a_second_group_is_a_restart():
    run = metrics.RunMetrics("r")
    run.handle({"kind": "started"})
    run.handle({"kind": "evaluation", "when": "before", "epoch": None, "mAP": 50.0, "rank1": 60.0})
    run.handle({"kind": "stage", "stage": "extract", "epoch": 0, "done": 0, "total": 9, "images_per_second": None})
    run.handle({"kind": "labels", "epoch": 0, "clusters": 12, "outliers": 3})
    run.handle({"kind": "epoch", "epoch": 0, "loss_total": 2.5, "seconds": 3.0})
    run.handle({"kind": "message", "text": "x"})
    assert [entry for entry in SENT if entry[1] == "reidray_restarts"] == []
    run.handle({"kind": "resumed", "epoch": 1, "why": "a worker died", "workers": 2})
    sent = {(name, *sorted(tags.items() - {("run", "r")})): value for _, name, value, tags in SENT}
    assert sent == {
        ("reidray_evaluation_percent", ("figure", "mAP")): 50.0,
        ("reidray_evaluation_percent", ("figure", "rank1")): 60.0,
        ("reidray_epoch",): 0.0,
        ("reidray_clusters",): 12.0,
        ("reidray_outliers",): 3.0,
        ("reidray_loss", ("term", "total")): 2.5,
        ("reidray_restarts",): 1.0,
    }
