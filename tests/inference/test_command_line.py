"""The command `reidray` in a shell of its own: list, misspelt names, a crop folder to a gallery to a search."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reidray.commands import COMMANDS, main


def test_the_list_of_commands_names_each_and_has_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    text = capsys.readouterr().out
    package = Path(__file__).parents[2] / "reidray" / "commands"
    for name in COMMANDS:
        assert f"  {name} " in text
        assert (package / f"{name.replace('-', '_')}.py").is_file()


def test_a_misspelt_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["trian"])
    assert left.value.code == 2
    assert "did you mean reidray train?" in capsys.readouterr().err


def test_the_version_and_the_list_come_without_loading_pytorch() -> None:
    code = "import sys, reidray.commands as c; c.main(['--version']); c.main([]); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.startswith("reidray ")
    assert told.endswith("False\n")
