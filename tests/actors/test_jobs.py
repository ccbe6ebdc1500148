"""Jobs on a head that is started as docs/clusters.md says: the token is asked for, a stopped job leaves nothing behind,
and two jobs at once do not meet.

The head has a home, a token, a folder for temporary files and ports of its own. Its processes are known by the log
files in that folder which they hold open, and are ended when the module is done, whatever happened; nothing here calls
`ray stop`, which would end every Ray process of the machine.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reidray.launch.launch import launch
from tests.shell_lines import ROOT, shell_blocks
from tests.whole.runs import assert_same_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Idle workers, a node's agents, and one actor that Ray makes for a cluster with its first training and keeps.
RAYS_OWN = r"IDLE|DashboardAgent|RuntimeEnvAgent|_?AutoscalingCoordinator"
OURS = {"BankShard", "Labeller", "Mailbox"}

ONE = {"workers": 1, "labeller_threads": 1}
LIGHT = {"name": "cluster_contrast"}  # a job compiles its kernels anew, and this method has few


@dataclass(frozen=True)
class Head:
    """A running head, and how to talk to it."""

    folder: Path
    environment: dict[str, str]
    address: str
    gcs: str

    def ray(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Call the `ray` of this environment from the repository's root, as the documents do."""
        environment = {**self.environment, "RAY_ADDRESS": self.address, **variables}
        command = [str(Path(sys.executable).parent / "ray"), *words]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    def ask(self, path: str, token: str | None = None) -> Any:
        """What the dashboard answers; None for a token, the head's own."""
        token = (self.folder / ".ray" / "auth_token").read_text().strip() if token is None else token
        request = urllib.request.Request(f"{self.address}{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def submit(self, name: str, *words: str) -> None:
        """Submit `jobs/train.py`, as docs/clusters.md does but without waiting for its end."""
        job = ["--", "python", "jobs/train.py", *words]
        done = self.ray("job", "submit", "--no-wait", "--submission-id", name, "--working-dir", ".", *job)
        assert done.returncode == 0, done.stdout + done.stderr

    def status(self, name: str) -> str:
        return str(self.ask(f"/api/jobs/{name}")["status"])

    def log(self, name: str) -> str:
        return str(self.ask(f"/api/jobs/{name}/logs")["logs"])

    def actors(self, name: str) -> list[dict[str, Any]]:
        """Actors that a submitted job has now."""
        job = self.ask(f"/api/jobs/{name}")["job_id"]
        found = self.ask("/api/v0/actors?detail=1&limit=10000")["data"]["result"]["result"]
        alive = [actor for actor in found if actor["job_id"] == job and actor["state"] == "ALIVE"]
        return [actor for actor in alive if not re.match(RAYS_OWN, actor["class_name"])]

    def processes(self) -> dict[int, str]:
        """Process id and command line of everything of this head: whoever holds a file of its folder open."""
        return {pid: _command(pid) for pid in _pids() if _holds(pid, self.folder)}

    def work(self) -> dict[int, str]:
        """Its processes that work for a job: actors, tasks and entrypoints; not what Ray has for itself."""
        at_work = {pid: words for pid, words in self.processes().items() if re.search(r"ray::|jobs/train\.py", words)}
        return {pid: words for pid, words in at_work.items() if not re.match(rf"ray::({RAYS_OWN})", words)}


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # Sockets of Ray lie in it, whose paths may have 107 bytes: pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="reidray-", dir="/tmp"))
    gcs, dashboard, *others = _free_ports(6)
    environment = {
        **{name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    own = Head(folder, environment, f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}")
    process: subprocess.Popen[bytes] | None = None
    try:
        made = own.ray("get-auth-token", "--generate")
        assert made.returncode == 0, made.stderr
        names = (
            "dashboard-agent-listen-port",
            "dashboard-agent-grpc-port",
            "runtime-env-agent-port",
            "metrics-export-port",
        )
        words = [
            *shlex.split(_documented_start().replace("--port=6379", f"--port={gcs}").replace("/tmp/", f"{folder}/")),
            f"--dashboard-port={dashboard}",
            *(f"--{name}={port}" for name, port in zip(names, others, strict=True)),
            f"--temp-dir={folder}/ray",
            "--num-cpus=2",
            "--num-gpus=0",
            "--object-store-memory=300000000",
            "--block",
        ]
        with (folder / "head.log").open("wb") as log:
            process = subprocess.Popen(
                words, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        _until(lambda: _answers(own), 120, lambda: (folder / "head.log").read_text())
        yield own
    finally:
        _end(own, process)
        shutil.rmtree(folder, ignore_errors=True)


def _documented_start() -> str:
    blocks = shell_blocks((ROOT / "docs" / "clusters.md").read_text())
    [line] = [line for line in blocks.splitlines() if line.startswith("ray start --head")]
    assert "--port=6379" in line
    return line


def _answers(head: Head) -> bool:
    try:
        head.ask("/api/jobs/")
    except OSError:
        return False
    return True


def _end(head: Head, process: subprocess.Popen[bytes] | None) -> None:
    """End the head and everything of it, by process id; a second pass takes what was just being started."""
    if process is not None and process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for _ in range(50):
        left = head.processes()
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)
    raise AssertionError(f"still running: {left}")


# --- the token --------------------------------------------------------------------------------------------------------


def test_a_wrong_token_is_refused_in_a_sentence_and_nothing_runs(head: Head) -> None:
    done = head.ray(
        "job", "submit", "--working-dir", ".", "--", "touch", str(head.folder / "ran"), RAY_AUTH_TOKEN="f" * 64
    )
    assert done.returncode == 1
    assert "Authentication failed: Forbidden: Invalid authentication token" in done.stderr
    assert "Token authentication is enabled but the authentication token is invalid or incorrect." in _last_line(done)
    assert not (head.folder / "ran").exists()


def test_without_a_token_the_dashboard_and_its_job_api_answer_nobody(head: Head) -> None:
    for path in ("/api/jobs/", "/api/v0/actors", "/nodes?view=summary", "/api/v0/logs"):
        for token, status in (("", 401), ("0" * 64, 403)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                head.ask(path, token)
            assert refused.value.code in (status, 403), path


def test_a_driver_with_a_wrong_token_does_not_get_in(head: Head, tmp_path: Path) -> None:
    words = [sys.executable, "jobs/train.py", f"run.dir={tmp_path / 'run'}", f"data.root={tmp_path / 'data'}"]
    environment = {**head.environment, "RAY_ADDRESS": head.gcs, "RAY_AUTH_TOKEN": "f" * 64, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert (
        "InvalidAuthToken: Authentication token is missing or incorrect" in done.stderr
    )  # so says Ray, for 20 seconds
    assert not (tmp_path / "run").exists()
    assert not head.work()


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return [line for line in done.stderr.splitlines() if line.strip()][-1]


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_stopped_job_leaves_nothing_running(head: Head, tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    settings = tiny_settings("stopped", method=LIGHT, train={"epochs": 1, "steps": 100_000}, run=ONE)
    head.submit("stopped", *_words(settings, tmp_path))
    log = tmp_path / "stopped" / "log.txt"
    _until(lambda: log.is_file() and "epoch 1/1  train " in log.read_text(), 900, lambda: head.log("stopped"))
    assert OURS | {"RayTrainWorker"} <= {actor["class_name"] for actor in head.actors("stopped")}
    assert any("jobs/train.py" in words for words in head.work().values())
    done = head.ray("job", "stop", "stopped")
    assert done.returncode == 0, done.stderr
    assert head.status("stopped") == "STOPPED"
    _until(lambda: not head.work() and not head.actors("stopped"), 60, lambda: f"left: {head.work()}")


def test_two_jobs_at_once_do_not_see_each_other(head: Head, tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    alone, settings = {}, {}
    for seed, name in enumerate(("one", "two")):
        few = {"method": LIGHT, "train": {"epochs": 2, "steps": 4, "seed": seed}}
        alone[name] = tiny_settings(f"{name}-alone", **few)
        launch(alone[name])  # also draws and packs what both will read
        settings[name] = tiny_settings(name, **few, run=ONE)
    for name in settings:
        head.submit(name, *_words(settings[name], tmp_path))
    both: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in settings}
    at_once = False

    def over() -> bool:
        nonlocal at_once
        now = {name: {actor["actor_id"]: actor for actor in head.actors(name)} for name in settings}
        at_once |= all(any(a["class_name"] == "BankShard" for a in actors.values()) for actors in now.values())
        for name, actors in now.items():
            both[name] |= actors
        return all(head.status(name) not in ("PENDING", "RUNNING") for name in settings)

    _until(over, 900, lambda: head.log("one") + head.log("two"))
    assert [head.status(name) for name in settings] == ["SUCCEEDED"] * 2, head.log("one") + head.log("two")
    assert at_once, "one was over before the other had begun"
    ours = {name: [one for one in actors.values() if one["class_name"] in OURS] for name, actors in both.items()}
    assert all({actor["class_name"] for actor in actors} == OURS for actors in ours.values())
    assert not any(actor["name"] for actors in ours.values() for actor in actors)  # nobody can ask for them
    assert not {one["ray_namespace"] for one in ours["one"]} & {two["ray_namespace"] for two in ours["two"]}
    for name in settings:
        assert_same_run(tmp_path / f"{name}-alone", tmp_path / name)
    _until(lambda: not head.work(), 60, lambda: str(head.work()))


def _words(settings: Any, folder: Path) -> list[str]:
    """Settings as a job's words: a file, since the job has another working directory."""
    file = folder / f"{Path(settings.run.dir).name}.yaml"
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    return ["--config", str(file)]


# --- this machine -----------------------------------------------------------------------------------------------------


def _until(true: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, otherwise()
        time.sleep(1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _pids() -> list[int]:
    return [
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) != os.getpid()
    ]


def _holds(pid: int, folder: Path) -> bool:
    try:
        return any(
            str(descriptor.readlink()).startswith(f"{folder}/") for descriptor in Path(f"/proc/{pid}/fd").iterdir()
        )
    except OSError:
        return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
