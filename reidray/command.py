"""The command line that all commands share: `--config FILE`, then `section.name=value`.

A command begins with `command = parse(words, prog=..., description=...)` and runs under `user_errors()`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from reidray.config import Settings
from reidray.help_text import CommandParser, HelpAction
from reidray.packaged import config_file
from reidray.settings_io import (
    Layer,
    as_yaml,
    from_file,
    from_tree,
    from_words,
    known,
    nearest,
    settings_from,
)

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
    parser = CommandParser(prog=prog, description=description, add_help=False, allow_abbrev=False)
    parser.lists_settings, parser.examples, parser.takes_data = settings, examples, data
    if extra is not None:
        extra(parser)
    if settings:
        _add_settings(parser, resume, data)
    parser.add_argument(
        "--help", "-h", action=HelpAction, help="print this and exit" + ("; --help all: every setting" * settings)
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


def _add_settings(parser: argparse.ArgumentParser, resume: bool, data: bool) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        help="settings laid over the defaults: a YAML file, or a name: scwm_folder",
    )
    parser.add_argument("--workers", metavar="N", help="short for run.workers=N; 0 runs without Ray")
    if resume:
        parser.add_argument("--resume", metavar="RUN_DIR", type=Path, help="continue what stopped in this folder")
    parser.add_argument("--print-config", action="store_true", help="print every setting as YAML and exit")
    parser.add_argument(
        "overrides",
        metavar="[DATA] section.name=value" if data else "section.name=value",
        nargs="*",
        help=("DATA: a folder or a list of images, short for data.root=DATA; " if data else "") + "any setting",
    )


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
        update={"train": before.train.model_copy(update={"epochs": settings.train.epochs}), "run": settings.run},
        deep=False,
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
    odd = [word for word in words if "=" not in word and "." not in word and word not in paths]
    if odd:
        raise ValueError(
            f"{odd[0]}: expected a folder or a list of images, but nothing is there (settings are section.name=value)"
        )
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
