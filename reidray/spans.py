"""Spans: what a process does, from when to when. Sums for the figures of a run, single spans for its timeline.

A process (a worker, a labeller, a shard of the memory bank, the driver) has one recorder, which is passed as an
argument; there is no global one. A span costs a few microseconds, and less than one where the recorder is off.

A span is the time that the **host** spent in a block. CUDA runs asynchronously: a span around a launch ends when the
launch is queued, and the time on the device shows in the span that waits for it (a copy to the host, the
synchronisation of an optimiser or a collective). Spans never synchronise the device.

Instants are nanoseconds of the wall clock, read once and continued by the monotonic clock. Within a process they never
go backwards; processes of one machine can be compared, processes of several machines as far as their clocks agree.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar, final

T = TypeVar("T")
P = ParamSpec("P")

_NOTHING: AbstractContextManager[None] = nullcontext()
_END = object()


class Span(NamedTuple):
    """A block of one thread: what, from when (ns since 1970), how long (ns), and in which epoch and step, if any."""

    name: str
    start: int
    duration: int
    thread: int
    epoch: int | None
    step: int | None


@dataclass(frozen=True)
class Recording:
    """The spans of one process, in the order in which they ended, and the names of its threads."""

    process: str
    spans: list[Span]
    threads: dict[int, str] = field(default_factory=dict)


@dataclass
class Total:
    """How often and how long."""

    count: int = 0
    nanoseconds: int = 0


class Spans:
    """The recorder of one process: `with spans("forward"): ...`. Safe to use from several threads.

    Args:
      process: what the timeline calls it: "worker 0".
      on: False records nothing at all.

    Attributes:
      epoch, step: given to the spans that begin from now on; a step is None outside of training.
    """

    def __init__(self, process: str = "", *, on: bool = True) -> None:
        self.process = process
        self.epoch: int | None = None
        self.step: int | None = None
        self._on = on
        self._lock = threading.Lock()
        self._totals: dict[str, Total] = {}
        self._counts: dict[str, int] = {}
        self._threads: dict[int, str] = {}
        self._taps: tuple[deque[Span], ...] = ()
        self._tracing: deque[Span] | None = None
        self._anchor = time.time_ns() - time.perf_counter_ns()

    def __reduce__(self) -> tuple[Any, ...]:
        return _begun, (self.process, self._on)  # what it holds is of this process

    def __call__(self, name: str, step: int | None = None) -> AbstractContextManager[None]:
        """A context manager that records its block; `step` where the block is of another step than `self.step`."""
        return _Block(self, name, self.step if step is None else step) if self._on else _NOTHING

    def each(self, items: Iterable[T], first: int = 0) -> Iterator[T]:
        """The items of an epoch's steps from `first` on: the wait for each is a span "data", with the work a "step"."""
        iterator = iter(items)
        number = first
        try:
            while True:
                self.step = number
                step, data = _Block(self, "step", number), _Block(self, "data", number)
                step.__enter__()
                data.__enter__()
                item = next(iterator, _END)
                if item is _END:
                    return
                if self._on:
                    data.__exit__(None, None, None)
                yield item  # type: ignore[misc]
                if self._on:
                    step.__exit__(None, None, None)
                number += 1
        finally:
            self.step = None

    def count(self, name: str, amount: int) -> None:
        """Add to a count of things done."""
        if self._on:
            with self._lock:
                self._counts[name] = self._counts.get(name, 0) + amount

    def counts(self) -> dict[str, int]:
        """What was counted so far."""
        with self._lock:
            return dict(self._counts)

    def step_totals(self) -> Mapping[str, Total]:
        """Spans of steps by name, since the last call."""
        with self._lock:
            totals, self._totals = self._totals, {}
        return totals

    # ---- single spans

    def tap(self, most: int | None = None) -> deque[Span]:
        """A queue that receives every span from now on; when it holds more than `most`, the oldest are dropped."""
        tap: deque[Span] = deque(maxlen=most)
        self._taps = (*self._taps, tap)
        return tap

    def trace(self, epoch: int) -> None:
        """Keep every span from now on, until `traced` asks for them."""
        self.epoch = epoch
        self._anchor = time.time_ns() - time.perf_counter_ns()
        if self._tracing is None:
            self._tracing = self.tap()
        self._tracing.clear()

    def traced(self) -> Recording:
        """What was kept since `trace`; nothing is kept any more."""
        tap, self._tracing = self._tracing, None
        self._taps = tuple(other for other in self._taps if other is not tap)
        return Recording(self.process, list(tap or ()), dict(self._threads))

    def _ended(self, name: str, step: int | None, start: int, end: int) -> None:
        thread = threading.get_ident()
        if thread not in self._threads:
            self._threads[thread] = threading.current_thread().name
        if step is not None:
            with self._lock:
                total = self._totals.get(name)
                if total is None:
                    total = self._totals[name] = Total()
                total.count += 1
                total.nanoseconds += end - start
        taps = self._taps
        if taps:
            span = Span(name, start + self._anchor, end - start, thread, self.epoch, step)
            for tap in taps:
                tap.append(span)


def _begun(process: str, on: bool) -> Spans:
    return Spans(process, on=on)


OFF = Spans(on=False)


@final
class _Block:
    __slots__ = ("_name", "_spans", "_start", "_step")

    def __init__(self, spans: Spans, name: str, step: int | None) -> None:
        self._spans, self._name, self._step = spans, name, step

    def __enter__(self) -> None:
        self._start = time.perf_counter_ns()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._spans._ended(self._name, self._step, self._start, time.perf_counter_ns())


class _HasSpans(Protocol):
    spans: Spans


Owner = TypeVar("Owner", bound=_HasSpans)


def spanned(method: Callable[Concatenate[Owner, P], T]) -> Callable[Concatenate[Owner, P], T]:
    """A method whose calls are spans of its object's `spans`, under the method's name."""
    name = method.__name__

    @functools.wraps(method)
    def timed(self: Owner, /, *arguments: P.args, **named: P.kwargs) -> T:
        with self.spans(name):
            return method(self, *arguments, **named)

    return timed


def step_figures(totals: Mapping[str, Total]) -> dict[str, float]:
    """Mean milliseconds of a step and of its parts, as figures of an epoch: "step_ms", "step_ms_forward", ...

    A part that comes several times a step (a forward for each BN group) counts with their sum.
    """
    steps = totals["step"].count if "step" in totals else 0
    if not steps:
        return {}
    names = ["step", *(name for name in STEP_PARTS if name in totals)]
    mean: dict[str, Any] = {name: totals[name].nanoseconds / 1e6 / steps for name in names}
    return {"step_ms" if name == "step" else f"step_ms_{name}": value for name, value in mean.items()}


STEP_PARTS = ("data", "forward", "backward", "gather", "optimise", "memory", "bank")
