"""Command lines of this project, taken from Markdown and the headers of configs, and parsed as the program would.

A program is a job (`jobs/train.py`) or a subcommand of the installed command (`reidray train`). What stands for
something the reader fills in (DIR, FILE) is left as it is, but for run folders, which must exist: RUN, RUN_DIR, what
follows --resume and --run, and all that begins with runs/.
"""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from reidray import command
from reidray.command import Command
from reidray.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]

_JOB, _COMMAND = r"python3? (?P<job>jobs/\w+\.py)", rf"(?P<command>reidray (?:{'|'.join(COMMANDS)}))"
_PROGRAM = re.compile(rf"(?:^|[\s/])(?:{_JOB}|{_COMMAND})(?P<words>\s.*|$)")
_FENCE = re.compile(r"^```(?:bash|sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```(?:python|py)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def job_lines(text: str) -> list[tuple[str, list[str]]]:
    """The programs called in shell text, each with its arguments; comments and what follows |, >, & or ; are cut."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\|", line):
            match = _PROGRAM.search(part.split("#")[0])
            if match:
                words = shlex.split(match["words"], comments=True)
                ends = [place for place, word in enumerate(words) if word.startswith((">", "&"))]
                found.append((match["job"] or match["command"], words[: ends[0]] if ends else words))
    return found


def shell_blocks(markdown: str) -> str:
    """The fenced shell blocks of a Markdown text, one after another."""
    return "\n".join(_FENCE.findall(markdown))


def python_blocks(markdown: str) -> list[str]:
    """The fenced blocks of Python of a Markdown text."""
    return _PYTHON.findall(markdown)


class _Stopped(Exception):  # noqa: N818
    def __init__(self, command: Command) -> None:
        super().__init__()
        self.command = command


def parsed(program: str, words: list[str], monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> Command:
    """Start a program's main() with these arguments and stop it once they are parsed.

    A job is started in the repository, a subcommand in `run_dir`, where the configs are found by their names alone.

    Raises:
      SystemExit: the program refuses them; the sentence is on stderr.
    """
    name = Path(program).stem.removeprefix("reidray ").replace("-", "_")
    if (ROOT / "reidray" / "commands" / f"{name}.py").is_file():
        importlib.import_module(f"reidray.commands.{name}")  # now, while `parse` is what it should be
    parse = command.parse

    def parse_and_stop(*arguments: Any, **options: Any) -> None:
        raise _Stopped(parse(*arguments, **options))

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("reidray.command") and getattr(module, "parse", None) is parse:
            monkeypatch.setattr(module, "parse", parse_and_stop)
    filled_in = [
        str(run_dir) if word in ("RUN", "RUN_DIR") or before in ("--resume", "--run") else word
        for before, word in zip(["", *words], words, strict=False)
    ]
    if program.startswith("jobs/"):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr("sys.argv", [program, *filled_in])
        with pytest.raises(_Stopped) as stopped:
            runpy.run_path(str(ROOT / program), run_name="__main__")
    else:
        for word in filled_in:
            if word.startswith("runs/"):
                (run_dir / word).mkdir(parents=True, exist_ok=True)
                (run_dir / word / "settings.yaml").write_text("")
        monkeypatch.chdir(run_dir)
        monkeypatch.setattr("sys.argv", [*program.split(), *filled_in])
        with pytest.raises(_Stopped) as stopped:
            importlib.import_module("reidray.commands").main()
    return stopped.value.command
