"""The first run on a machine compiles its kernels in a child, and with what that has kept it compiles none itself."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reidray import compiled
from reidray.config import Settings
from reidray.launch import kernels
from reidray.launch.kernels import compiled_beside, tiny
from tests.whole.forms import FORMS

_CHILD = [sys.executable, "-m", "reidray.launch.kernels"]


def kept(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.nb?")}


@pytest.mark.slow
@pytest.mark.parametrize("labelling", ["whole", "blocks"])
@pytest.mark.parametrize("form", ["scwm", "pplr", "acrm", "buc"])
def test_after_the_child_a_run_compiles_nothing(
    form: str, labelling: str, tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    run = {"labelling": labelling}
    settings: Settings = tiny_settings("one", **FORMS.get(form, {"method": {"name": form}}), run=run)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    place = tmp_path / "child"
    subprocess.run(_CHILD, input=tiny(settings, place).model_dump_json(), env=environment, text=True, check=True)
    before = kept(tmp_path / "kernels")
    assert before
    subprocess.run(_CHILD, input=settings.model_dump_json(), env=environment, text=True, check=True)
    assert kept(tmp_path / "kernels") == before


@pytest.mark.parametrize("name", ["scwm", "cluster_contrast", "pplr", "acrm", "aac", "buc", "ihc"])
def test_every_method_has_a_tiny_training(name: str, tmp_path: Path) -> None:
    settings = Settings.model_validate({"method": {"name": name, "camera_centring": name == "pplr"}})
    found = tiny(settings, tmp_path)
    assert found.method.name == name
    assert found.method.camera_centring == (name == "pplr")
    assert found.run.workers == 0
    assert found.train.epochs == 1


def test_it_labels_as_the_run_does(tmp_path: Path) -> None:
    for run, labelling in (({}, "whole"), ({"labellers": 2}, "blocks"), ({"labelling": "blocks"}, "blocks")):
        assert tiny(Settings.model_validate({"run": run}), tmp_path).run.labelling == labelling


class Children:
    """Every child is a shell that runs `script`."""

    def __init__(self, script: str) -> None:
        self.script = script
        self.started: list[subprocess.Popen[str]] = []
        self._popen = subprocess.Popen

    def __call__(self, _: list[str], **how: Any) -> subprocess.Popen[str]:
        self.started.append(self._popen(["/bin/sh", "-c", self.script], **how))
        return self.started[-1]


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Children]:
    monkeypatch.setattr(compiled, "folder", lambda: tmp_path)

    def running(script: str) -> Children:
        found = Children(script)
        monkeypatch.setattr("reidray.launch.kernels.subprocess.Popen", found)
        return found

    return running


def test_a_child_that_failed_is_told_in_the_log_and_tried_again(
    children: Callable[[str], Children], tmp_path: Path
) -> None:
    failing, said = children("cat > /dev/null; echo first >&2; echo no room >&2; exit 3"), []
    for _ in range(2):
        with compiled_beside(Settings(), said.append):
            failing.started[-1].wait()
    sentence = {"kind": "message", "text": "kernels were not compiled beforehand: no room", "detail": True}
    assert said == [sentence, sentence]
    assert list(tmp_path.iterdir()) == []


def test_after_a_child_that_ended_well_none_is_started_for_that_method(
    children: Callable[[str], Children], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_child(settings: Settings, ending: Callable[[Settings], None]) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(settings.model_dump_json()))
        monkeypatch.setattr("reidray.launch.launch.launch", ending)
        monkeypatch.setattr("reidray.launch.kernels.os.nice", lambda _: None)
        kernels.main()

    def fails(_: Settings) -> None:
        raise ValueError("no room")

    run = Settings.model_validate({"run": {"labelling": "blocks"}})
    with pytest.raises(ValueError, match="no room"):
        as_child(tiny(run, tmp_path), fails)
    assert list(tmp_path.iterdir()) == []
    as_child(tiny(run, tmp_path), lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["scwm-by-blocks.done"]
    child = children("cat > /dev/null")
    with compiled_beside(run, print):
        pass
    assert child.started == []
    with compiled_beside(Settings(), print):  # has other kernels
        child.started[0].wait()


def test_a_child_ends_with_its_run_and_so_do_its_own_children(
    children: Callable[[str], Children], tmp_path: Path
) -> None:
    slow = children(f"sleep 1000 & echo $! > {tmp_path}/grandchild; wait")

    def interrupted() -> None:
        while not (tmp_path / "grandchild").is_file() or not (tmp_path / "grandchild").read_text().strip():
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), compiled_beside(Settings(), print):
        interrupted()
    assert slow.started[0].returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["grandchild"]
    status = Path(f"/proc/{(tmp_path / 'grandchild').read_text().strip()}/status")
    for _ in range(500):  # whoever adopts it takes its time
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.01)
    raise AssertionError("the child's own child goes on")


def test_where_kernels_cannot_be_kept_none_are_compiled_beforehand(
    children: Callable[[str], Children], monkeypatch: pytest.MonkeyPatch
) -> None:
    never = children("exit 1")
    monkeypatch.setattr(compiled, "folder", lambda: None)
    with compiled_beside(Settings(), print):
        pass
    assert never.started == []
