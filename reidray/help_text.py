"""The text of --help: how a command is called, examples, options, and settings with their defaults."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from reidray.settings_io import Setting, sections

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


class HelpAction(argparse.Action):
    """--help, and --help all."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs="?", default=argparse.SUPPRESS, metavar="all", **options)

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        assert isinstance(parser, CommandParser)
        parser.lists_all = given[1] == "all"
        parser.print_help()
        parser.exit()


class CommandParser(argparse.ArgumentParser):
    lists_settings = True
    lists_all = False
    takes_data = False
    examples: Sequence[tuple[str, str]] | None = None

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")

    def format_usage(self) -> str:
        needed = [self._left(action, 1) for action in self._actions if action.required and action.dest != "overrides"]
        rest = "[options] [section.name=value ...]" if self.lists_settings else "[options]"
        rest = f"[DATA] {rest}" if self.takes_data else rest
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

    def _left(self, action: argparse.Action, most: int = 2) -> str:
        names = ", ".join(action.option_strings[:most])
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
