"""The console of a run: a live progress bar for each stage on a terminal, plain lines at intervals elsewhere.

The run reports events, plain dicts (see `Console.handle`). The console shows them. It is also the only code that
writes them to files: lines to log.txt, measures to metrics.jsonl, evaluations.jsonl and losses.jsonl, scalars to the
run's loggers. Epochs count from 0 in events and files, and from 1 where people read them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console as Terminal
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from reidray.config import Settings
from reidray.counted import counted
from reidray.report.figure_names import CLUSTERING, FIGURES, comparison, step_words
from reidray.report.loggers import Curves, open_loggers
from reidray.report.progress import Pace, Stage, duration
from reidray.report.timeline import write_trace
from reidray.spans import Spans
from reidray.storage.runfolder import RunFolder

_QUIET_SECONDS = 5.0  # between two plain lines of progress


class Console:
    """Shows the events of one run and writes them to files; a context manager, which resets the terminal at its end.

    Args:
      folder: the run folder; None for jobs that leave none (then nothing is filed).
      settings: of the run: its epochs and steps.
      stream: where lines go; default standard output.
      interactive: live bars; default: where the stream is a terminal.
      clock: seconds, monotonic.

    Raises:
      ValueError: a logger of run.loggers cannot be opened.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        settings: Settings,
        *,
        stream: TextIO | None = None,
        interactive: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        stream = stream or sys.stdout
        interactive = stream.isatty() if interactive is None else interactive
        self._folder, self._settings, self._clock, self._stream = folder, settings, clock, stream
        self._terminal = Terminal(file=stream, force_terminal=True, highlight=False) if interactive else None
        self._live: Live | None = None
        self._spans = Spans("driver")
        self._tracing = False
        loggers = open_loggers(folder, settings) if folder else {}
        self._curves = Curves(loggers, steps_per_epoch=settings.train.steps, complain=self._say)
        self._started = clock()
        self._last_line = self._started
        self._stages: dict[tuple[str, int | None], Stage] = {}
        self._ended: tuple[str, int | None] | None = None
        self._epochs = settings.train.epochs  # until the run says how many its method has
        self._pace = Pace(self._epochs)
        self._labels, self._label_seconds = "", 0.0
        self._starts = 0
        self._labelled: dict[str, Any] = {}
        earlier = folder.evaluations() if folder else []
        self._before = next((figures for figures in earlier if figures.get("when") == "before"), None)

    def handle(self, event: Mapping[str, Any]) -> None:
        """Shows and files one event.

        Args:
          event: its `kind` is one of
            stage: stage, epoch, done, total, unit, images_per_second, losses; repeated, `done` == `total` ends it;
            labels: epoch, clusters, outliers, criteria, and ARI, AMI, purity, pseudo_mIoU where known;
            steps: epoch, losses {term: one value a step};
            evaluation: when (before, epoch, last, after), epoch, and figures in percent;
            epoch: epoch and its measures;
            trace: epoch and the recordings of all processes but this one;
            started: epochs (of the whole run);
            resumed: epoch (the first one to be done again), epochs, why, workers;
            message: text; detail where it is for the log alone.

        Raises:
          ValueError: unknown kind, or a value that is not finite.
        """
        handlers = {
            "stage": self._on_stage,
            "labels": self._on_labels,
            "steps": self._on_steps,
            "evaluation": self._on_evaluation,
            "epoch": self._on_epoch,
            "trace": self._on_trace,
            "started": self._on_started,
            "resumed": self._on_resumed,
            "message": self._on_message,
        }
        kind = event.get("kind")
        if kind not in handlers:
            raise ValueError(f"the kind of an event must be one of {', '.join(handlers)}, got {kind!r}")
        if not self._tracing and event.get("epoch") == self._settings.run.trace_epoch is not None:
            self._tracing = True
            self._spans.trace(event["epoch"])
        with self._spans(f"on {kind}"):
            handlers[kind]({key: value for key, value in event.items() if key != "kind"})

    def close(self, *, failed: bool = False) -> None:
        """Removes the progress bars and writes what is pending."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._curves.close(failed=failed)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(failed=error is not None)

    # --- one method a kind of event -----------------------------------------------------------------------------------

    def _on_stage(self, event: dict[str, Any]) -> None:
        now = self._clock()
        key = (event["stage"], event.get("epoch"))
        ends = event["done"] >= event["total"]
        if ends and key == self._ended:
            return
        if key[1] is not None:
            self._pace.begin(now)
        stage = self._stages.setdefault(key, Stage(key[0], key[1], event["unit"], now, event["done"]))
        stage.update(event["done"], event["total"], event.get("images_per_second"), event.get("losses"))
        self._ended = key if ends else None
        if ends:
            del self._stages[key]
            self._tell_end(stage, now)
        elif self._terminal is None and event["done"] and now - self._last_line >= _QUIET_SECONDS:
            left = self._pace.left(now)
            run = f"  run {duration(left)} left" if left is not None else ""
            self._say(f"{self._place(key[1])}{stage.line(now)}{run}")
        self._refresh()

    def _tell_end(self, stage: Stage, now: float) -> None:
        if stage.name == "label":  # the line about the labels says it
            self._label_seconds = now - stage.started
        else:
            show = self._terminal is None or stage.epoch is None
            self._say(f"{self._place(stage.epoch)}{stage.summary(now)}", show=show)

    def _on_labels(self, event: dict[str, Any]) -> None:
        known = [f"{word} {event[name]:.3g}" for name, word in CLUSTERING.items() if event.get(name) is not None]
        self._labelled = event
        self._labels = f"{counted(event['clusters'], 'cluster')}, {counted(event['outliers'], 'outlier')}"
        self._say(
            "  ".join(
                [f"{self._place(event['epoch'])}{'label':<8} {self._labels} in {self._label_seconds:.1f} s", *known]
            )
        )
        self._refresh()
        self._curves.epoch("labels", event["epoch"], event)

    def _on_steps(self, event: dict[str, Any]) -> None:
        if self._folder:
            self._folder.add_steps(event["epoch"], event["losses"])
            self._curves.steps(event["epoch"], event["losses"])

    def _on_evaluation(self, event: dict[str, Any]) -> None:
        when, epoch = event["when"], event.get("epoch")
        if self._folder:
            self._folder.add_evaluation(event)
            at = {"before": -1, "last": self._epochs - 1}.get(when, epoch)
            self._curves.epoch("evaluation", -1 if at is None else at, event)
        figures = [f"{word} {event[name]:.2f}" for name, word in FIGURES.items() if event.get(name) is not None]
        titles = {"epoch": f"{self._place(epoch)}evaluated", "last": "last network"}
        title = titles.get(when, f"{when} training")
        self._say("  ".join([title, *figures]))
        if when == "before":
            self._before = event
        if when == "after":
            for line in comparison(self._before, event):
                self._say(line, time=False)

    def _on_epoch(self, event: dict[str, Any]) -> None:
        self._pace.finish(event["epoch"], self._clock())
        if self._folder:
            labelled = self._labelled if self._labelled.get("epoch") == event["epoch"] else {}
            self._folder.add_epoch({**labelled, **event})
            own = {name: value for name, value in event.items() if name not in labelled}  # those have curves already
            self._curves.epoch("epoch", event["epoch"], own)
        told = {"epoch", "loss", "loss_total", "seconds", *self._labelled, *FIGURES}  # in lines of their own, or first
        rest = [name for name in event if name not in told and not name.startswith(("loss_", "step_ms"))]
        words = [f"loss {event[name]:.4g}" for name in ("loss", "loss_total") if name in event]
        words += [f"in {event['seconds']:.1f} s"] if "seconds" in event else []
        words += [f"{name} {event[name]:.4g}" for name in rest if type(event[name]) in (int, float)][:6]
        words += step_words(event)
        left = self._pace.left(self._clock())
        if left:
            words.append(f"run {duration(left)} left")
        self._say(f"{self._place(event['epoch'])}done     " + "  ".join(words))

    def _on_trace(self, event: dict[str, Any]) -> None:
        epoch, recordings = event["epoch"], [self._spans.traced(), *event["recordings"]]
        if self._folder:
            path = self._folder.trace(epoch)
            write_trace(path, recordings, epoch)
            self._say(f"{self._place(epoch)}timeline in {path.name}: open it in https://ui.perfetto.dev")

    def _on_started(self, event: dict[str, Any]) -> None:
        self._count_epochs(event["epochs"])
        self._starts += 1
        if self._starts > 1:
            self._say("Ray has started the workers again, before there was a checkpoint")
        if self._folder and self._folder.start_again():  # workers died before there was a checkpoint
            self._curves.resume(0)
            self._pace.resume(0)

    def _on_resumed(self, event: dict[str, Any]) -> None:
        epoch = event["epoch"]
        self._count_epochs(event["epochs"])
        if self._folder:
            self._folder.drop_from(epoch)
            self._curves.resume(epoch)
        self._stages.clear()
        self._tracing = False  # the epoch may come again
        self._pace.resume(epoch)
        self._starts += 1
        if self._starts > 1:
            self._say(f"Ray has started the workers again, {event['workers']} this time")
        self._say(f"continuing with epoch {epoch + 1} of {self._epochs}: {event['why']}")
        self._refresh()

    def _on_message(self, event: dict[str, Any]) -> None:
        self._say(event["text"], show=not event.get("detail", False))

    def _count_epochs(self, epochs: int) -> None:
        """The method's schedule says how many there are."""
        self._epochs = epochs
        self._pace.count(epochs)

    # --- lines and bars -----------------------------------------------------------------------------------------------

    def _place(self, epoch: int | None) -> str:
        total = self._epochs
        return "" if epoch is None else f"epoch {epoch + 1:>{len(str(total))}}/{total}  "

    def _say(self, text: str, *, show: bool = True, time: bool = True) -> None:
        """A line for the stream (where `show`) and for log.txt, behind the time since the start."""
        now = self._clock()
        line = f"{duration(now - self._started):>7}  {text}" if time else f"         {text}"
        if self._folder:
            self._folder.log(line.rstrip())
        if not show:
            return
        self._last_line = now
        if self._terminal is not None:
            self._terminal.print(Text(line.rstrip()))
        else:
            encoding = self._stream.encoding or "utf-8"
            print(line.rstrip().encode(encoding, "replace").decode(encoding), file=self._stream, flush=True)

    def _refresh(self) -> None:
        if self._terminal is None:
            return
        if self._live is None:  # stays until close(): no flicker between stages
            self._live = Live(console=self._terminal, get_renderable=self._bars, refresh_per_second=4, transient=True)
            self._live.start()

    def _bars(self) -> Group:
        now = self._clock()
        stages = list(self._stages.values())  # handle() runs in another thread than the refresh
        bar = 20 if self._terminal is not None and self._terminal.width >= 96 else 10
        table = Table.grid(padding=(0, 1))
        for _ in range(5):
            table.add_column(no_wrap=True)
        for stage in stages:
            table.add_row(
                Text(f"{self._place(stage.epoch)}{stage.name}", style="bold"),
                ProgressBar(total=max(stage.total, 1), completed=stage.done, width=bar),
                Text(stage.count()),
                Text(stage.speed()),
                Text(stage.left_words(now)),
            )
        left = self._pace.left(now)
        words = [f"whole run {duration(left)} left" if left is not None else "", self._labels]
        words += [stage.loss_words() for stage in stages]
        return Group(table, Text("  ".join(word for word in words if word), style="dim"))
