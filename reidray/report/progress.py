"""Progress of a stage and of the whole run: counts, rates and time left, as numbers and as words."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours and days where there are any: 0:42, 1:05:00, 2d 03:00:00."""
    whole = round(max(seconds, 0.0))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours >= 24:
        return f"{hours // 24}d {hours % 24:02}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass
class Stage:
    """One stage of the work as last reported. first: its count when it was first seen, at the time `started`."""

    name: str
    epoch: int | None
    unit: str
    started: float
    first: int
    done: int = 0
    total: int = 0
    images_per_second: float | None = None
    losses: dict[str, float] = field(default_factory=dict)

    def update(
        self, done: int, total: int, images_per_second: float | None, losses: Mapping[str, float] | None
    ) -> None:
        """Takes the values of a report; a rate or losses that are missing stay as they were."""
        self.done, self.total = done, total
        self.images_per_second = images_per_second if images_per_second is not None else self.images_per_second
        self.losses = dict(losses) if losses else self.losses

    def left(self, now: float) -> float | None:
        """Seconds to the end of the stage at its rate so far; None until some progress was seen."""
        seen = self.done - self.first
        if seen <= 0:
            known = self.unit != "steps" and self.images_per_second
            return (self.total - self.done) / self.images_per_second if known and self.images_per_second else None
        return (now - self.started) * (self.total - self.done) / seen

    def count(self) -> str:
        """Done of total."""
        return f"{self.done}/{self.total} {self.unit}"

    def speed(self) -> str:
        """Images (or tracklets, where these are counted) a second, or nothing where unknown."""
        rate, unit = self.images_per_second, "tracklets" if self.unit == "tracklets" else "images"
        return "" if rate is None else f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.2g} {unit}/s"

    def left_words(self, now: float) -> str:
        """Time left, or nothing where unknown."""
        left = self.left(now)
        return "" if left is None else f"{duration(left)} left"

    def loss_words(self) -> str:
        """The loss and its terms."""
        if not self.losses:
            return ""
        terms = {name: value for name, value in self.losses.items() if name != "total"}
        inner = ", ".join(f"{name} {value:.3g}" for name, value in terms.items())
        total = self.losses.get("total", sum(terms.values()))
        return f"loss {total:.4g}" + (f" ({inner})" if inner else "")

    def line(self, now: float) -> str:
        """A plain line on a stage that goes on."""
        share = f"{100 * self.done / max(self.total, 1):.0f}%"
        words = [f"{self.name:<8} {self.count()} {share}", self.speed(), self.left_words(now), self.loss_words()]
        return "  ".join(word for word in words if word)

    def summary(self, now: float) -> str:
        """A plain line on a stage that has ended."""
        words = [
            f"{self.name:<8} {self.total} {self.unit} in {now - self.started:.1f} s",
            self.speed(),
            self.loss_words(),
        ]
        return "  ".join(word for word in words if word)


class Pace:
    """Time left of the whole run, from the median time of the last five epochs."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._finished = 0
        self._seconds: list[float] = []
        self._since: float | None = None

    def count(self, epochs: int) -> None:
        """The run has so many epochs."""
        self._epochs = epochs

    def begin(self, now: float) -> None:
        """An epoch shows activity: its time starts, unless an epoch is being timed already."""
        self._since = now if self._since is None else self._since

    def finish(self, epoch: int, now: float) -> None:
        """Epoch `epoch` (from 0) has ended."""
        if self._since is not None:
            self._seconds = [*self._seconds, now - self._since][-5:]
        self._since, self._finished = now, epoch + 1

    def resume(self, epoch: int) -> None:
        """The run goes on with `epoch`; the interruption is not counted as time of an epoch."""
        self._since, self._finished = None, epoch

    def left(self, now: float) -> float | None:
        """Seconds to the end of the last epoch; None before the first one has ended."""
        if not self._seconds:
            return None
        spent = 0.0 if self._since is None else now - self._since
        return max((self._epochs - self._finished) * statistics.median(self._seconds) - spent, 0.0)
