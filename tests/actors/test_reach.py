"""A head that does not answer, and a temporary folder with too long a path, end in a sentence and soon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from reidray.actors.cluster import connect
from reidray.actors.reach import check_head, check_temporary_folder
from reidray.config import Settings
from tests.shell_lines import ROOT


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """A port where somebody listens; says `answer` to everybody, or nothing at all for None."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                if answer is not None:
                    connection.recv(1024)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_port_where_nobody_listens_is_refused_with_its_address() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ValueError, match=rf"no Ray head answers at RAY_ADDRESS={address} \(connection refused; waited"):
        check_head(address, 0.5)


def test_somebody_who_listens_and_says_nothing_or_something_else_is_refused() -> None:
    with (
        listening(None) as address,
        pytest.raises(ValueError, match=r"\(no answer; waited run\.start_timeout=0\.5 s\)"),
    ):
        check_head(address, 0.5)
    with (
        listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address,
        pytest.raises(ValueError, match="what answers there is no Ray head"),
    ):
        check_head(f"ray://{address}", 0.5)
    with pytest.raises(ValueError, match="there is no such port"):
        check_head("127.0.0.1:99999", 0.5)


def test_a_server_of_grpc_is_taken_for_a_head_and_other_words_are_rays_own_business() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        check_head(f"127.0.0.1:{port}", 10)
        check_head(f"ray://127.0.0.1:{port}", 10)
    finally:
        server.stop(None).wait()
    for address in ("auto", "local", "http://127.0.0.1:1"):
        check_head(address, 0.5)


def test_a_head_that_is_still_starting_is_waited_for() -> None:
    port = free_port()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    later = threading.Timer(0.5, lambda: (server.add_insecure_port(f"127.0.0.1:{port}"), server.start()))
    later.start()
    try:
        check_head(f"127.0.0.1:{port}", 30)
    finally:
        later.join()
        server.stop(None).wait()


def test_a_temporary_folder_is_refused_where_a_sockets_path_would_be_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = "/scratch/" + "j" * 81
    monkeypatch.setenv("TMPDIR", long)
    with pytest.raises(ValueError, match=rf"TMPDIR={long} is too long .* has 1\d\d bytes .* at most 107; set"):
        check_temporary_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_temporary_folder()


def test_connecting_looks_at_both_before_it_asks_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.model_validate({"run": {"start_timeout": 0.5}})
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "60")  # or it would stay set for later tests
    for name in ("RAY_TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", "/scratch/" + "j" * 81)
    with pytest.raises(ValueError, match="too long a path for Ray's sockets"):
        connect(settings)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(ValueError, match="no Ray head answers"):
        connect(settings)


@pytest.mark.slow
def test_a_run_says_both_in_a_sentence_before_it_reads_any_data(tmp_path: Path) -> None:
    long = tmp_path / ("t" * 90)
    long.mkdir()
    job = [sys.executable, str(ROOT / "jobs" / "train.py"), f"run.dir={tmp_path / 'run'}", "run.start_timeout=1"]
    plain = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR")}
    for variables, sentence in (
        ({"RAY_ADDRESS": f"127.0.0.1:{free_port()}"}, "error: no Ray head answers at RAY_ADDRESS="),
        ({"TMPDIR": str(long)}, f"error: TMPDIR={long} is too long a path for Ray's sockets"),
    ):
        done = subprocess.run(
            job, env={**plain, **variables}, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.strip().splitlines()[-1].startswith(sentence)
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
