"""The command that serves a gallery: what it prints, and what it refuses."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reidray.commands import browse
from reidray.gallery import Gallery
from reidray.inference import load
from reidray.serving.server import chosen_token, is_local
from reidray.storage.checkpoints import Checkpoint, CheckpointStore
from reidray.user_errors import user_errors
from tests.serving.service import IN_URL, TOKEN, picture, tiny_model
from tests.shell_lines import ROOT


def test_a_token_is_made_where_none_is_given_and_never_twice_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REIDRAY_SERVE_TOKEN", raising=False)
    assert len({chosen_token(None) for _ in range(8)}) == 8
    assert all(len(chosen_token(None)) >= 32 for _ in range(8))
    monkeypatch.setenv("REIDRAY_SERVE_TOKEN", "sixteen-letters-")
    assert chosen_token(None) == "sixteen-letters-"
    assert chosen_token("another-of-enough") == "another-of-enough"


@pytest.mark.parametrize(
    "token", ["", "short", "a token with blanks in it", "quotes'quotes\"quotes", "längerlängerlänger"]
)
def test_a_token_that_is_weak_or_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="expected a token of at least 16"):
        chosen_token(token)


def test_only_addresses_of_this_machine_are_local() -> None:
    assert all(is_local(host) for host in ("127.0.0.1", "localhost", "::1", "127.5.5.5"))
    assert not any(is_local(host) for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", ""))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery, and the run that made it beside it."""
    place = tmp_path_factory.mktemp("browse")
    model = tiny_model(place)
    settings = model.settings.model_dump(mode="json")
    store = CheckpointStore(place / "run" / "checkpoints", keep=1)
    store.save(Checkpoint(1, dict(model.network.state_dict()), {}, [], {}, settings))
    store.close()
    for number in range(3):
        (place / f"{number}.jpg").write_bytes(picture(number))
    own = Gallery(place / "people.parquet", load(place / "run"))
    own.add([place / f"{number}.jpg" for number in range(3)])
    return own.path


@pytest.fixture
def process(gallery: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, as it is started in a terminal."""
    program = "import sys; from reidray.commands import main; main(sys.argv[1:]); print('ray' in sys.modules)"
    words = ["browse", "--gallery", str(gallery), "--port", "0", "--token", TOKEN]
    own = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    yield own
    own.kill()
    own.communicate()


def test_the_command_prints_the_address_serves_without_ray_and_ends_with_ctrl_c(
    process: subprocess.Popen[str],
) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.fullmatch(rf"open (http://127\.0\.0\.1:(\d+)/\?token={IN_URL})   \(Ctrl-C ends it\)\n", line)
    assert match is not None, (line, process.stderr.read() if process.stderr is not None and not line else "")
    connection = http.client.HTTPConnection("127.0.0.1", int(match[2]), timeout=30)
    connection.request("POST", "/search?k=1", picture(1), {"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["results"][0]["name"] == "1.jpg"
    connection.close()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "False\n", "stopped\n")


def _refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended, user_errors():
        browse.main(words, "reidray browse")
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("error: ")
    return told


def test_what_cannot_be_served_is_refused_in_a_sentence(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nothing is there" in _refused(["--gallery", str(tmp_path / "no.parquet")], capsys)
    own = ["--gallery", str(gallery)]
    assert "at least 16" in _refused([*own, "--token", "short"], capsys)
    assert "--replicas must be at least 1" in _refused([*own, "--replicas", "0"], capsys)
    assert "expected a port from 0 to 65535" in _refused([*own, "--port", "70000"], capsys)
    assert "cannot listen on 192.0.2.77:0" in _refused([*own, "--host", "192.0.2.77", "--port", "0"], capsys)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} is taken" in _refused([*own, "--port", port], capsys)
    other = tmp_path / "run"
    other.mkdir()
    assert "no whole checkpoint" in _refused([*own, "--run", str(other), "--port", "0"], capsys)
