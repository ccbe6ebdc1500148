"""A search from its file to its results: check everything, pack once, run the trials, write what was found."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from reidray.config import Settings
from reidray.disk import write_whole
from reidray.events import message
from reidray.launch.launch import locked
from reidray.launch.prepare import IfChanged, packed_in, prepared, with_places
from reidray.launch.services import num_cpus
from reidray.report.console import Console
from reidray.settings_io import as_yaml, load
from reidray.storage.runfolder import dated_folder
from reidray.training.context import open_split, split_exists
from reidray.tuning.checks import cautions, check_search, in_words, with_values
from reidray.tuning.ledger import Entry, Ledger
from reidray.tuning.proposals import Proposals
from reidray.tuning.results import draw_search, ranked_trials, table, write_results
from reidray.tuning.search_file import Search, override, read_search
from reidray.tuning.trial import run_trial

_README = """\
# A search of reidray

| file | what it holds |
|---|---|
| `search.yaml`, `settings.yaml` | what is searched, and the settings that all trials share |
| `trials.jsonl` | a line when a trial begins, and one when it ends |
| `trials/NNN/` | the run folder of each trial |
| `results.csv`, `results.json` | a row a trial, the best first |
| `best.yaml` | the settings of the best trial; `reidray train --config best.yaml` trains with them |
| `pictures/search.png` | the objective by trial and by setting; where there is mAP, every criterion against it |
| `log.txt` | what the console said |

`reidray tune --resume` on this folder goes on: ended trials are kept, interrupted ones continue from their
checkpoints. Figures of retrieval are of the validation split; the test split is not looked at.
"""


def run_search(
    settings: Settings, asked: Search, *, resume: Path | None = None, concurrent: int | None = None
) -> tuple[int, list[Entry]]:
    """Run a search to its end.

    Args:
      settings: that all trials share; run.dir is the search folder (default runs/<date>-search).
      asked: what is searched.
      resume: a search folder to go on with.
      concurrent: trials at a time, at most; default as many as there is room for.

    Returns:
      status, 0 or that of the signal that interrupted the search; and the trials.

    Raises:
      ValueError: one sentence for everything a person can put right; also when every trial failed.
    """
    beside = settings.data.packed is None  # nobody asked for a place of the shards
    settings = _shared(with_places(settings.resolved(Path.cwd())), asked)
    check_search(asked, settings)
    if concurrent is not None and concurrent < 1:
        raise ValueError(f"--concurrent must be 1 or more, got {concurrent}")
    place = (resume or Path(settings.run.dir or dated_folder(Path.cwd() / "runs", "search", datetime.now()))).resolve()
    if resume is None:
        _create(place, settings)
    else:
        _check_length(settings, resume)
    with locked(place), Console(None, settings) as console, _removed_if_nothing_began(place, resume):
        write_whole(place / "search.yaml", asked.as_yaml())
        say = partial(_say, console, place)
        say(f"search folder {place}")
        for sentence in cautions(asked, settings):
            say(sentence)
        if_changed: IfChanged = "use" if resume else "pack"
        packed = prepared(settings, console.handle, processes=num_cpus(), if_changed=if_changed, beside=beside)
        settings = packed_in(settings, packed)
        _check_data(settings, asked, packed)
        ledger = Ledger(place, asked.objective)
        status = _run(settings, asked, ledger, place, concurrent, say)
        entries = ledger.entries()
        _write(settings, asked, entries, place)
        for line in table(entries, asked.objective):
            say(line)
        if status:
            say(f"interrupted: reidray tune --resume {shlex.quote(str(place))} goes on")
        elif all(entry.state in ("failed", "crashed") for entry in entries):
            raise ValueError(f"every trial failed, the first one because: {entries[0].sentence}")
    return status, entries


@contextmanager
def _removed_if_nothing_began(place: Path, resume: Path | None) -> Iterator[None]:
    """A new search that fails before its first trial leaves no folder in the way of the corrected command."""
    try:
        yield
    except (ValueError, OSError):
        if resume is None and not (place / "trials.jsonl").exists():
            shutil.rmtree(place, ignore_errors=True)
        raise


def asked_search(file: Path | None, resume: Path | None, trials: int | None, objective: str | None) -> Search:
    """The search of a file, or of the folder of an earlier one; trials and objective as given beside it.

    Raises:
      ValueError: neither or both are given, or what is given cannot be; one sentence.
    """
    if (file is None) == (resume is None):
        raise ValueError(
            "give --search FILE.yaml to begin a search (such as one of configs/search_*.yaml), or --resume FOLDER"
        )
    if file is not None:
        return override(read_search(file), trials, objective)
    assert resume is not None
    if not (resume / "search.yaml").is_file():
        raise ValueError(f"--resume {resume}: this is no search folder (it has no search.yaml)")
    stored = read_search(resume / "search.yaml")
    begun = len(Ledger(resume, stored.objective).entries())
    if objective is not None and objective != stored.objective:
        raise ValueError(f"--resume goes on by {stored.objective}: leave --objective out, or begin a new search")
    if trials is not None and trials < begun:
        raise ValueError(f"--trials {trials}: {begun} trials have begun already in {resume}")
    return override(stored, trials, None)


def _shared(settings: Settings, asked: Search) -> Settings:
    """Trials are one process each unless asked otherwise, and are measured on the validation split, never on test.

    Epochs are evaluated before the next one trains: a trial is judged when its epoch ends.
    """
    every_epoch = asked.objective == "mAP" and asked.scheduler == "asha"
    evaluate = {"split": "validation", **({"every": 1} if every_epoch else {})}
    return settings.model_copy(
        update={
            "evaluate": settings.evaluate.model_copy(update=evaluate),
            "run": settings.run.model_copy(
                update={"workers": settings.run.workers or 0, "evaluate_beside": False, "report": False}
            ),
        }
    )


def _check_data(settings: Settings, asked: Search, packed: str) -> None:
    """What the objective needs must be in the data set."""
    if asked.objective == "mAP" and not all(
        split_exists(packed, f"validation_{name}") for name in ("query", "gallery")
    ):
        raise ValueError(
            f"objective: mAP is measured on the validation split, and {packed} has none: take a criterion that needs "
            "no identities, such as stability"
        )
    if asked.objective in ("camera_cycle", "camera_mixing"):
        cameras_N = open_split(settings, packed, "train").source.cameras_N
        if len(set(cameras_N[cameras_N >= 0].tolist())) < 2:
            raise ValueError(
                f"objective: {asked.objective} needs images of two known cameras or more, and {packed} has fewer: take "
                "objective: silhouette"
            )


def _run(
    settings: Settings, asked: Search, ledger: Ledger, place: Path, concurrent: int | None, say: Callable[[str], None]
) -> int:
    """Run the trials that are left; 0, or the status of the signal that interrupted them."""
    from reidray.actors.cluster import connect  # Ray is slow to import
    from reidray.actors.tune import Asha, run_trials, trial_share

    before = ledger.entries()
    proposals = Proposals(asked, before, ledger.began)
    if not proposals.left:
        say(f"all {asked.trials} trials have ended: --trials N asks for more")
        return 0
    say("starting Ray")
    connect(settings)
    share = trial_share(settings, concurrent)
    on = f" and {share.gpus:g} GPUs" if share.gpus else ""
    say(
        f"{proposals.left} of {asked.trials} trials to run, {share.concurrent} at a time: "
        f"a trial takes {share.cpus} CPUs{on}"
    )
    device = "cuda" if share.gpus and settings.run.device != "cpu" else "cpu"  # a labeller alone may have a GPU
    epochs = settings.train.epochs
    told_of = epochs + (settings.run.keep_best != "none")  # one more labels the last network
    grace = asked.grace_epochs or max(2, epochs // 4)
    stops = asked.scheduler == "asha" and grace < epochs  # else a trial is too short to be stopped

    def ask() -> tuple[int, Settings] | None:
        while (proposed := proposals.ask()) is not None:
            trial, values = proposed
            say(f"trial {trial:03}  {in_words(values)}")
            try:
                own = with_values(settings, values)
            except ValueError as error:  # drawn values may not fit together; the searcher learns from it
                ended(trial, "failed", str(error), 0.0)
                continue
            run = own.run.model_copy(update={"dir": str(ledger.trial_folder(trial)), "device": device})
            return trial, own.model_copy(update={"run": run})
        return None

    def told(trial: int, report: Mapping[str, Any]) -> None:
        if report.get("epochs"):
            score = report.get("score")
            value = f"{asked.objective} {score:.4f}" if score is not None else f"no {asked.objective} yet"
            say(f"trial {trial:03}  epoch {report['epochs']}/{told_of}  {value}")

    def ended(trial: int, state: str, sentence: str, seconds: float) -> None:
        ledger.ended(trial, state, sentence, seconds)
        entry = ledger.entry(trial)
        if entry.ended:
            proposals.learn(entry)
        say(f"trial {trial:03}  {state} after {seconds:.0f} s" + (f": {sentence}" if sentence else ""))

    return run_trials(
        partial(run_trial, objective=asked.objective),
        ask,
        count=proposals.left,
        share=share,
        in_workers=settings.run.workers != 0,
        asha=Asha(epochs, grace, asked.reduction) if stops else None,
        past=[entry.scores for entry in before if entry.state in ("finished", "stopped")],
        folder=place,
        told=told,
        ended=ended,
        max_failures=settings.run.max_failures,
    )


def _write(settings: Settings, asked: Search, entries: Sequence[Entry], place: Path) -> None:
    write_results(entries, asked.objective, place)
    ranked = [entry for entry in ranked_trials(entries) if entry.score is not None]
    if ranked:
        best = with_values(settings, ranked[0].values)
        free = best.run.model_copy(update={"dir": None, "workers": None, "report": True})
        measured = settings.evaluate.model_copy(update={"every": 0, "split": "test"})
        header = f"# Trial {ranked[0].trial:03} of the search in {place}: {asked.objective} {ranked[0].score:.4f}\n"
        best = best.model_copy(update={"run": free, "evaluate": measured})
        write_whole(place / "best.yaml", header + as_yaml(best))
    log = {name: one.kind == "loguniform" for name, one in asked.space.items()}
    draw_search(entries, asked.objective, log, place / "pictures" / "search.png")


def _check_length(settings: Settings, resume: Path) -> None:
    """Trials are compared after the same number of epochs, so a resumed search keeps train.epochs."""
    epochs = load(resume / "settings.yaml").train.epochs
    if settings.train.epochs != epochs:
        raise ValueError(
            f"--resume goes on with train.epochs={epochs}, by which the trials in {resume} were compared, not with "
            f"{settings.train.epochs}: leave train.epochs out, or begin a new search"
        )


def _create(place: Path, settings: Settings) -> None:
    if place.is_dir() and any(place.iterdir()):
        raise ValueError(
            f"the search folder {place} exists and is never overwritten: choose another run.dir, or --resume {place}"
        )
    (place / "trials").mkdir(parents=True)
    write_whole(place / "settings.yaml", as_yaml(settings))
    write_whole(place / "README.md", _README)


def _say(console: Console, place: Path, text: str) -> None:
    console.handle(message(text))
    with (place / "log.txt").open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now():%H:%M:%S}  {text}\n")
