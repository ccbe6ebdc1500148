"""Command lines of the project's jobs, taken from Markdown and the headers of configs, and parsed as the job would.

What stands for something the reader fills in (DIR, FILE, RUN_DIR) is left as it is, but for RUN_DIR, which must exist.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import reidray.command
from reidray.command import Command

ROOT = Path(__file__).resolve().parents[1]
HAS_COMMANDS = (ROOT / "reidray" / "commands").is_dir()

_JOB = re.compile(r"(?:^|[\s/])python3? (jobs/\w+\.py)(.*)")
_FENCE = re.compile(r"^```(?:bash|sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def job_lines(text: str) -> list[tuple[str, list[str]]]:
    """The jobs called in shell text, each with its arguments; comments and what follows |, >, & or ; are cut off."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        for command in re.split(r"&&|;|\|", line):
            match = _JOB.search(command)
            if match:
                words = shlex.split(match[2], comments=True)
                ends = [place for place, word in enumerate(words) if word.startswith((">", "&"))]
                found.append((match[1], words[: ends[0]] if ends else words))
    return found


def shell_blocks(markdown: str) -> str:
    """The fenced shell blocks of a Markdown text, one after another."""
    return "\n".join(_FENCE.findall(markdown))


class _Stopped(Exception):  # noqa: N818
    def __init__(self, command: Command) -> None:
        super().__init__()
        self.command = command


def parsed(job: str, words: list[str], monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> Command:
    """Start a job's main() with these arguments and stop it once they are parsed.

    Raises:
      SystemExit: the job refuses them; the sentence is on stderr.
    """
    module = _load(ROOT / job)
    parse = reidray.command.parse

    def parse_and_stop(*arguments: Any, **options: Any) -> None:
        raise _Stopped(parse(*arguments, **options))

    for place in (reidray.command, module):  # what a job calls, itself or by a command
        if hasattr(place, "parse"):
            monkeypatch.setattr(place, "parse", parse_and_stop)
    monkeypatch.setattr("sys.argv", [job, *(str(run_dir) if word == "RUN_DIR" else word for word in words)])
    monkeypatch.chdir(ROOT)
    with pytest.raises(_Stopped) as stopped:
        module.main()
    return stopped.value.command


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"jobs_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
