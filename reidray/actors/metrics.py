"""Metrics for Prometheus, exported by Ray's agent on each node; this module defines all their names.

The training code does not know about metrics. Every process has a recorder of spans (`reidray.spans`); a thread of an
`Exporter` moves its contents to Ray's metrics every two seconds. The driver exports what the events of a run say
(`RunMetrics`). Ray puts `ray_` before every name, and adds its own tags to ours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from reidray.spans import STEP_PARTS, Span, Spans

_EVERY = 2.0  # seconds
_MOST = 100_000  # spans between two sendings; of more the oldest are lost
_SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 100, 300, 1000]
_STAGES = ("extract", "label", "train", "evaluate", "keep")

# Name: what it says, and the tags that are its own. Ray hands histograms on as counts of their buckets, so that their
# sums are rough; beside each goes a counter of the exact seconds (`spent`).
SECONDS = {
    "reidray_step_seconds": ("Time of a training step and of its parts", ("rank", "part")),
    "reidray_stage_seconds": ("Time of the stages of an epoch", ("rank", "stage")),
    "reidray_label_seconds": ("Time of the stages of labelling, and of parsing a shard", ("labeller", "stage")),
    "reidray_bank_seconds": ("Time of the calls of a shard of the memory bank", ("shard", "call")),
}
SPENT = {
    "reidray_step_spent_seconds": ("Time in training steps and in their parts", ("rank", "part")),
    "reidray_stage_spent_seconds": ("Time in the stages of epochs", ("rank", "stage")),
    "reidray_label_spent_seconds": ("Time in the stages of labelling, and in parsing", ("labeller", "stage")),
    "reidray_bank_spent_seconds": ("Time in calls of a shard of the memory bank", ("shard", "call")),
}
COUNTS = {"reidray_extracted_images": ("Images whose features were extracted", ("rank",))}
QUEUES = {
    "reidray_bank_pending_writes": ("Writes to the memory bank that have not arrived", ("rank",)),
    "reidray_bank_lag_steps": ("Steps sent to the memory bank that its shards have not applied", ("rank",)),
    "reidray_labeller_pending_shards": ("Shards handed to labellers and not parsed yet", ("rank",)),
}
RUN = {
    "reidray_epoch": ("Epoch at work, from 0", ()),
    "reidray_images_per_second": ("Images a second of all workers, by stage", ("stage",)),
    "reidray_clusters": ("Clusters of the newest labels", ()),
    "reidray_outliers": ("Images that the newest labels leave out", ()),
    "reidray_loss": ("Loss, the mean of the newest epoch", ("term",)),
    "reidray_evaluation_percent": ("The newest figures of an evaluation", ("figure",)),
}
RESTARTS = ("reidray_restarts", "How often Ray began again with a new group of workers")

Family = Callable[[Span], tuple[str, dict[str, str]] | None]


def of_worker(span: Span) -> tuple[str, dict[str, str]] | None:
    """Steps with their parts, and stages."""
    if span.step is not None and (span.name == "step" or span.name in STEP_PARTS):
        return "reidray_step_seconds", {"part": "whole" if span.name == "step" else span.name}
    return ("reidray_stage_seconds", {"stage": span.name}) if span.name in _STAGES else None


def of_labeller(span: Span) -> tuple[str, dict[str, str]] | None:
    """Every span."""
    return "reidray_label_seconds", {"stage": "whole" if span.name == "label" else span.name}


def of_bank(span: Span) -> tuple[str, dict[str, str]] | None:
    """Every span."""
    return "reidray_bank_seconds", {"call": span.name}


def spent(histogram: str) -> str:
    """The counter of exact seconds beside a histogram."""
    return f"{histogram.removesuffix('_seconds')}_spent_seconds"


class Exporter:
    """Sends what a recorder collects, until it is closed.

    Args:
      spans: the recorder.
      family: which histogram a span goes to, and the tags that depend on it; None: to none.
      tags: of the process: the run, and its rank or number.
      queues: values of the gauges of `QUEUES`, asked for at every sending.
    """

    def __init__(
        self,
        spans: Spans,
        family: Family,
        tags: Mapping[str, str],
        queues: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        self._spans, self._family, self._tags = spans, family, dict(tags)
        self._queues = queues
        self._tap = spans.tap(_MOST)
        self._told: dict[str, int] = {}
        self._metrics: dict[str, Any] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what is left and end the thread."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_EVERY):
            self.send()
        self.send()

    def send(self) -> None:
        """Hand everything collected so far to Ray."""
        self._send_times()
        for name, value in self._spans.counts().items():
            metric = f"reidray_{name.replace(' ', '_')}"
            more = value - self._told.get(name, 0)
            if metric in COUNTS and more:
                self._metric(Counter, metric, COUNTS[metric]).inc(more)
                self._told[name] = value
        for name, length in (self._queues() if self._queues else {}).items():
            self._metric(Gauge, name, QUEUES[name]).set(length)

    def _send_times(self) -> None:
        sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        while self._tap:
            span = self._tap.popleft()
            found = self._family(span)
            if found is not None:
                name, tags = found
                seconds = span.duration / 1e9
                self._metric(Histogram, name, SECONDS[name], boundaries=_SECONDS).observe(seconds, tags)
                key = (spent(name), tuple(tags.items()))
                sums[key] = sums.get(key, 0.0) + seconds
        for (name, own), total in sums.items():
            if total > 0:
                self._metric(Counter, name, SPENT[name]).inc(total, dict(own))

    def _metric(self, kind: Any, name: str, what: tuple[str, tuple[str, ...]], **more: Any) -> Any:
        if name not in self._metrics:
            metric = kind(name, description=what[0], tag_keys=("run", *what[1]), **more)
            metric.set_default_tags({key: value for key, value in self._tags.items() if key in ("run", *what[1])})
            self._metrics[name] = metric
        return self._metrics[name]


def measured(kind: type, family: Family, tags: Mapping[str, str]) -> type:
    """A class like `kind`, whose objects (they have `spans`) export them from the process in which they are made."""

    class Measured(kind):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._exporter = Exporter(self.spans, family, tags)

    Measured.__name__ = Measured.__qualname__ = kind.__name__
    return Measured


class RunMetrics:
    """What the events of a run say, as gauges of the driver."""

    def __init__(self, run: str) -> None:
        self._gauges: dict[str, Any] = {}
        for name, (what, tags) in RUN.items():
            self._gauges[name] = Gauge(name, description=what, tag_keys=("run", *tags))
            self._gauges[name].set_default_tags({"run": run})
        self._restarts = Counter(RESTARTS[0], description=RESTARTS[1], tag_keys=("run",))
        self._restarts.set_default_tags({"run": run})
        self._starts = 0

    def handle(self, event: Mapping[str, Any]) -> None:
        """Take over what an event says."""
        kind = event["kind"]
        if kind == "stage":
            if event["epoch"] is not None:
                self._set("reidray_epoch", event["epoch"])
            if event.get("images_per_second") is not None:
                self._set("reidray_images_per_second", event["images_per_second"], stage=event["stage"])
        elif kind == "labels":
            self._set("reidray_clusters", event["clusters"])
            self._set("reidray_outliers", event["outliers"])
        elif kind == "epoch":
            for name, value in event.items():
                if name.startswith("loss_"):
                    self._set("reidray_loss", value, term=name.removeprefix("loss_"))
        elif kind == "evaluation":
            for name in ("mAP", "rank1", "mINP", "parsing_mIoU"):
                if event.get(name) is not None:
                    self._set("reidray_evaluation_percent", event[name], figure=name)
        elif kind in ("started", "resumed"):
            if self._starts:
                self._restarts.inc()
            self._starts += 1

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._gauges[name].set(float(value), tags)
