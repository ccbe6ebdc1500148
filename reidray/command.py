"""The command line that every job shares: `--config FILE.yaml`, then `section.name=value`, and the text of --help.

A job's main() begins with `command = parse(sys.argv[1:], prog=..., description=...)` and runs under `user_errors()`,
so that whatever a person can put right ends in one sentence on stderr and status 2, without a traceback.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NoReturn

from reidray.config import Settings
from reidray.disk import DISK_ERRORS
from reidray.packaged import config_file
from reidray.settings_io import (
    Layer,
    Setting,
    as_yaml,
    from_file,
    from_tree,
    from_words,
    known,
    nearest,
    sections,
    settings_from,
)

_NO_BREAK = "\N{NO-BREAK SPACE}"
_COMMON = (
    "data.dataset",
    "data.camera_from",
    "data.height",
    "data.width",
    "model.backbone",
    "model.weights",
    "method.name",
    "method.eps",
    "train.epochs",
    "train.steps",
    "run.dir",
    "run.workers",
)
"""Settings that most people change; `--help all` has the others."""

# In a resumed run, beside the section run.
_MAY_CHANGE = {"train.epochs", "data.root", "data.packed", "data.cache_dir"}


@dataclass(frozen=True)
class Command:
    """What was asked for on the command line.

    settings: defaults, with the file (or the resumed run's settings) and then the command line laid over them.
    config: the file given with --config.
    options: what the job's own `extra` added, and `resume` where the job asked for it.
    """

    settings: Settings
    config: Path | None
    options: argparse.Namespace


def parse(
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    extra: Callable[[argparse.ArgumentParser], object] | None = None,
    resume: bool = False,
    settings: bool = True,
    beneath: Callable[[argparse.Namespace, Sequence[Layer], bool], list[Layer]] | None = None,
    data: bool = False,
    examples: Sequence[tuple[str, str]] | None = None,
) -> Command:
    """Reads a job's command line.

    Args:
      argv: the words after the program's name.
      prog: how the command is called, for the help: "reidray train", "python jobs/train.py".
      description: what the job does, one or more paragraphs.
      extra: adds the job's own arguments to the parser it is given.
      resume: the job knows --resume RUN_DIR. The settings are then those of that run: only the section `run`,
        where the data lie, and train.epochs may be given anew. `options.resume` is the folder or None.
      beneath: given the command's own options, the values of --config and of the command line, and whether there was a
        --config: the values that lie beneath them.
      examples: words that --help shows after the program's name, and what they do; None: those of training.
      data: the command takes DATA, a path that means data.root. `options.data` is the path or None.
      settings: False for jobs whose settings come from a checkpoint: then only `extra`'s arguments are known, and
        the command holds the defaults.

    Returns:
      The command. Paths in its settings are as written: `Settings.resolved` makes them absolute.

    Raises:
      SystemExit: status 0 after --help and --print-config; status 2 after one sentence on stderr.
    """
    parser = _Parser(prog=prog, description=description, add_help=False, allow_abbrev=False)
    parser.lists_settings, parser.examples = settings, examples
    if extra is not None:
        extra(parser)
    if settings:
        _add_settings(parser, resume)
    parser.add_argument(
        "--help", "-h", action=_Help, help="print this and exit" + ("; --help all: every setting" * settings)
    )
    options, unknown = parser.parse_known_intermixed_args(list(argv))
    config, workers, words, print_config = (
        vars(options).pop(own, None) for own in ("config", "workers", "overrides", "print_config")
    )
    try:
        for word in unknown:
            if not settings or not word.startswith("--") or "." not in word:
                raise ValueError(_unknown(word, settings))
        if workers is not None:
            words = [*(words or []), f"run.workers={workers}"]
        if config is not None and len(config) > 1:
            raise ValueError("--config is given twice: settings come from one file, and from section.name=value")
        words = words or []
        if data:
            words, options.data = _without_data(words)
        overlays = from_words([*unknown, *words])
        if data and options.data is not None:
            if any("data.root" in layer.values for layer in overlays):
                raise ValueError("the data are given twice: as DATA and as data.root=")
            overlays.append(from_tree({"data.root": options.data}, ""))
        if resume and options.resume is not None:
            if config is not None:
                raise ValueError("--resume takes the settings of its run: leave --config out")
            tree = _resumed(options.resume, overlays)
        else:
            over = [*([from_file(config_file(config[0]))] if config else []), *overlays]
            tree = settings_from([*(beneath(options, over, bool(config)) if beneath is not None else []), *over])
    except ValueError as error:
        parser.error(str(error))
    if print_config:
        print(as_yaml(tree), end="")
        raise SystemExit(0)
    return Command(tree, config_file(config[0]) if config else None, options)


def _add_settings(parser: argparse.ArgumentParser, resume: bool) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        help="settings laid over the defaults: a YAML file, or a name: scwm_folder",
    )
    parser.add_argument("--workers", metavar="N", help="short for run.workers=N; 0 runs without Ray")
    if resume:
        parser.add_argument("--resume", metavar="RUN_DIR", type=Path, help="continue the run in this folder")
    parser.add_argument("--print-config", action="store_true", help="print every setting as YAML and exit")
    parser.add_argument("overrides", metavar="section.name=value", nargs="*", help="any setting listed below")


def _resumed(folder: Path, overlays: list[Any]) -> Settings:
    stored = folder / "settings.yaml"
    if not stored.is_file():
        raise ValueError(f"--resume {folder}: this is no run folder (it has no settings.yaml)")
    base = from_file(stored)
    before = settings_from([base])
    # Named first: what they would be checked against is not what is wrong with them.
    given = {name: value for layer in overlays for name, value in layer.values.items()}
    kept = {name: value for name, value in given.items() if name in known() and not _may_change(name)}
    fixed = sorted(name for name, value in kept.items() if not _has(before, name, value)) or sorted(kept)
    try:
        settings = settings_from([base, *overlays, *from_words([f"run.dir={folder}"])])
    except ValueError:
        if fixed:
            raise ValueError(_cannot_change(fixed)) from None
        raise
    unchanged = before.model_copy(
        update={"train": before.train.model_copy(update={"epochs": settings.train.epochs})}, deep=False
    )
    if settings.hash() != unchanged.hash():
        raise ValueError(_cannot_change(fixed))
    return settings


def _may_change(name: str) -> bool:
    return name in _MAY_CHANGE or name.startswith("run.")


def _has(settings: Settings, name: str, value: object) -> bool:
    now = reduce(getattr, name.split("."), settings)
    return now == (tuple(value) if isinstance(value, list) else value)


def _cannot_change(names: Sequence[str]) -> str:
    return (
        f"--resume continues a run under its own settings: {', '.join(names)} cannot be changed (only run.*, "
        "train.epochs and where the data lie can); start a new run instead"
    )


def _without_data(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The words that are settings, and the one that is a path."""
    paths = [
        word for word in words if Path(word).expanduser().exists() or ("=" not in word and _looks_like_a_path(word))
    ]
    if len(paths) > 1:
        raise ValueError(f"expected one folder or list of images, got {len(paths)}: {', '.join(paths)}")
    if paths and not Path(paths[0]).expanduser().exists():
        raise ValueError(f"{paths[0]}: expected a folder or a list of images, but nothing is there")
    return [word for word in words if word not in paths], (paths[0] if paths else None)


def _looks_like_a_path(word: str) -> bool:
    return "/" in word or word.startswith((".", "~"))


def _unknown(word: str, settings: bool) -> str:
    """What is said about an option that does not exist; `--epochs` is most likely train.epochs=."""
    name = word.lstrip("-").partition("=")[0].replace("-", "_")
    guess = nearest(name) if settings and word.startswith("--") else None
    hint = f": did you mean {guess}=VALUE? (see --help)" if guess else " (see --help)"
    return f"unknown option {word}{hint}"


class _Help(argparse.Action):
    """--help, and --help all."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs="?", default=argparse.SUPPRESS, metavar="all", **options)

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        assert isinstance(parser, _Parser)
        parser.lists_all = given[1] == "all"
        parser.print_help()
        parser.exit()


class _Parser(argparse.ArgumentParser):
    lists_settings = True
    lists_all = False
    examples: Sequence[tuple[str, str]] | None = None

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")

    def format_usage(self) -> str:
        needed = [self._left(action) for action in self._actions if action.required and action.dest != "overrides"]
        rest = "[options] [section.name=value ...]" if self.lists_settings else "[options]"
        return " ".join([f"usage: {self.prog}", *needed, rest]) + "\n"

    def format_help(self) -> str:
        width = max(50, shutil.get_terminal_size().columns)
        paragraphs = [textwrap.fill(" ".join(text.split()), width) for text in (self.description or "").split("\n\n")]
        parts = [self.format_usage(), *(f"{text}\n" for text in paragraphs)]
        if self.lists_settings:
            parts.append(_examples(self.prog, self.examples or _of_training(self._has_resume())))
        options = [(self._left(action), action.help or "") for action in self._actions]
        parts.append("options:\n" + _table([(left, "", text) for left, text in options], width))
        if not self.lists_settings:
            return "\n".join(parts)
        title = "settings" if self.lists_all else "settings that people change most (--help all lists every one)"
        title += ", each with its default, its meaning, and in brackets its unit and the values it takes:"
        parts.append(textwrap.fill(title, width) + "\n")
        if not self.lists_all:
            common = [setting for _, _, settings in sections() for setting in settings if setting.name in _COMMON]
            parts.append(_table([_row(setting) for setting in common], width, max(map(len, _COMMON))))
            return "\n".join(parts)
        for name, about, settings in sections():
            heading = textwrap.fill(f"{name}: {about}", width)
            parts.append(f"{heading}\n" + _table([_row(setting) for setting in settings], width, _left_width()))
        return "\n".join(parts)

    def _has_resume(self) -> bool:
        return any("--resume" in action.option_strings for action in self._actions)

    def _left(self, action: argparse.Action) -> str:
        names = ", ".join(action.option_strings)
        value = "" if action.nargs == 0 else str(action.metavar or (action.dest.upper() if names else action.dest))
        return f"{names} {value}".strip() + (" ..." if action.nargs in ("*", "+") else "")


def _of_training(resume: bool) -> list[tuple[str, str]]:
    rows = [
        ("", "the defaults: drawn pedestrians"),
        ("train.epochs=3 augment.erase_area=[0.1,0.2]", "any setting by its dotted name"),
        ("--config scwm_market1501 data.root=DIR", "a config that comes with reidray; then settings"),
        ("--print-config > mine.yaml", "every setting, to edit and give back with --config"),
    ]
    return [*rows, ("--resume RUN_DIR", "continue where a run stopped")] if resume else rows


def _examples(prog: str, rows: Sequence[tuple[str, str]]) -> str:
    return "examples:\n" + "".join(f"  {prog} {words}".rstrip() + f"\n      {why}\n" for words, why in rows)


def _row(setting: Setting) -> tuple[str, str, str]:
    default = setting.default
    if isinstance(default, tuple):
        text = "[" + ", ".join(value if isinstance(value, str) else f"{value:g}" for value in default) + "]"
    elif isinstance(default, bool) or default is None:
        text = {True: "true", False: "false", None: "null"}[default]
    else:
        text = f"{default:g}" if isinstance(default, float) else str(default)
    takes = setting.expected.removeprefix("a ").removesuffix(" or null")
    for bound in (">=", ">", "<=", "<"):
        takes = takes.replace(f"{bound} ", f"{bound}{_NO_BREAK}")
    notes = "; ".join(note for note in (setting.unit, takes) if note and note != "text")
    return setting.name, text, f"{setting.meaning} [{notes}]"


def _left_width() -> int:
    return max(len(setting.name) for _, _, settings in sections() for setting in settings)


def _table(rows: list[tuple[str, str, str]], width: int, left: int | None = None) -> str:
    """Rows of name, value and text: aligned, the text wrapped; on a narrow terminal below its name."""
    left = left or max(len(row[0]) for row in rows)
    middle = 0 if not any(row[1] for row in rows) else 12
    indent = 2 + left + 2 + (middle + 2 if middle else 0)
    lines = []
    for name, value, text in rows:
        head = f"  {name:<{left}}  " + (f"{value:<{middle}}  " if middle else "")
        if width - indent < 36:
            lines.append(head.rstrip())
            lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
        else:
            lines += textwrap.wrap(
                text, width, initial_indent=head, subsequent_indent=" " * indent, break_on_hyphens=False
            ) or [head.rstrip()]
    return "\n".join(lines).replace(_NO_BREAK, " ") + "\n"


@contextmanager
def user_errors() -> Iterator[None]:
    """Around a job's main(), as a `with` block or a decorator: turns what a person can put right into one sentence.

    A ValueError, and an OSError about a file, a permission or a full disk, print `error: <sentence>` on stderr and
    exit with status 2; an error that an actor raised on another machine is treated as the error it carries. Every other
    exception passes. REIDRAY_TRACEBACK=1 prints the traceback as well. Ctrl-C ends with status 130 and a word.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of a pipe left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        cause = getattr(error, "cause", None)  # Ray's RayTaskError
        told = cause if isinstance(cause, Exception) else error
        if not _for_people(told):
            raise
        if os.environ.get("REIDRAY_TRACEBACK") == "1":
            traceback.print_exc(file=sys.stderr)
        elif told is error and not _raised_by_us(error):
            print("(REIDRAY_TRACEBACK=1 shows where this came from)", file=sys.stderr)
        print(f"error: {_sentence(told)}", file=sys.stderr)
        raise SystemExit(2) from None


def _for_people(error: Exception) -> bool:
    files = (FileNotFoundError, PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)
    return isinstance(error, (ValueError, *files)) or (isinstance(error, OSError) and error.errno in DISK_ERRORS)


def _raised_by_us(error: Exception) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    last = frames[-1] if frames else None
    name = str(last.f_globals.get("__name__", "")) if last else ""
    return isinstance(error, OSError) or name == "__main__" or name.split(".")[0] in ("reidray", "jobs")


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        told = error.strerror  # of the system, or a sentence of ours with paths in it
        told = told.lower() if error.errno is not None and told == os.strerror(error.errno) else told
        return ": ".join(str(part) for part in (error.filename, told) if part is not None)
    return " ".join(str(error).split()) or type(error).__name__
