"""A head that is started as docs/tutorials/cluster.md says, and machines that join it; all of them are this machine.

The head has a home, a token, a folder for temporary files and ports of its own. Its processes are known by the log
files in that folder which they hold open, and are ended in the end, whatever happened; nothing here calls `ray stop`,
which would end every Ray process of the machine.
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
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.shell_lines import ROOT, shell_blocks

# Idle workers, a node's agents, and one actor that Ray makes for a cluster with its first training and keeps.
_RAYS_OWN = r"IDLE|DashboardAgent|RuntimeEnvAgent|_?AutoscalingCoordinator"
_QUIET = ("--num-gpus=0", "--object-store-memory=200000000", "--block")


@dataclass(frozen=True)
class Head:
    """A running head, and how to talk to it."""

    folder: Path
    environment: dict[str, str]
    address: str
    gcs: str
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ray(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Call the `ray` of this environment from the repository's root, as the documents do."""
        environment = {**self.environment, "RAY_ADDRESS": self.address, **variables}
        command = [str(Path(sys.executable).parent / "ray"), *words]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    def start(self, line: str, *words: str) -> None:
        """A node by a documented line, with more words."""
        name = f"node-{len(self.started)}"
        # Documented for several machines; on one, each node needs a folder for what it spills and ports of its own.
        command = shlex.split(line.replace("/tmp/", f"{self.folder}/{name}-"))
        agents = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port")
        ports = zip((*agents, "metrics-export-port"), free_ports(4), strict=True)
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *(f"--{name}={port}" for name, port in ports), *words, *_QUIET],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)

    def join(self, cpus: int) -> None:
        """Another machine, with temporary files of its own: nodes of one folder delete each other's copies of a job."""
        own = f"--temp-dir={self.folder}/ray-{len(self.started)}"
        self.start(_documented("ray start --address=").replace("HEAD:6379", self.gcs), f"--num-cpus={cpus}", own)

    def ask(self, path: str, token: str | None = None) -> Any:
        """What the dashboard answers; None for a token, the head's own."""
        token = (self.folder / ".ray" / "auth_token").read_text().strip() if token is None else token
        request = urllib.request.Request(f"{self.address}{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def said(self) -> str:
        """What the commands that started nodes have printed."""
        return "\n".join(file.read_text(errors="replace") for file in sorted(self.folder.glob("node-*.log")))

    def nodes(self) -> int:
        """Nodes that are alive."""
        found = self.ask("/api/v0/nodes?limit=1000")["data"]["result"]["result"]
        return sum(node["state"] == "ALIVE" for node in found)

    def submit(self, name: str, *words: str, excluded: str = "docs") -> None:
        """Submit `jobs/train.py`, as docs/tutorials/cluster.md does but without waiting for its end.

        excluded: a folder that the job does not need; with another one it gets another working directory.
        """
        job = [f"--runtime-env-json={json.dumps({'excludes': [excluded]})}", "--", "python", "jobs/train.py", *words]
        done = self.ray("job", "submit", "--no-wait", "--submission-id", name, "--working-dir", ".", *job)
        assert done.returncode == 0, done.stdout + done.stderr

    def status(self, name: str) -> str:
        """Of a submitted job."""
        return str(self.ask(f"/api/jobs/{name}")["status"])

    def log(self, name: str) -> str:
        """Of a submitted job."""
        return str(self.ask(f"/api/jobs/{name}/logs")["logs"])

    def actors(self, name: str) -> list[dict[str, Any]]:
        """Actors that a submitted job has now."""
        job = self.ask(f"/api/jobs/{name}")["job_id"]
        found = self.ask("/api/v0/actors?detail=1&limit=10000")["data"]["result"]["result"]
        alive = [actor for actor in found if actor["job_id"] == job and actor["state"] == "ALIVE"]
        return [actor for actor in alive if not re.match(_RAYS_OWN, actor["class_name"])]

    def processes(self) -> dict[int, str]:
        """Process id and command line of everything of this head: whoever holds a file of its folder open."""
        return {pid: _command(pid) for pid in _pids() if _holds(pid, self.folder)}

    def work(self) -> dict[int, str]:
        """Its processes that work for a job: actors, tasks and entrypoints; not what Ray has for itself."""
        at_work = {pid: words for pid, words in self.processes().items() if re.search(r"ray::|jobs/train\.py", words)}
        return {pid: words for pid, words in at_work.items() if not re.match(rf"ray::({_RAYS_OWN})", words)}


@contextmanager
def running_head(cpus: int, joining: int = 0) -> Iterator[Head]:
    """A head of `cpus` CPUs, and `joining` machines of one CPU each."""
    # Sockets of Ray lie in it, whose paths may have 107 bytes: pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="reidray-", dir="/tmp"))
    gcs, dashboard = free_ports(2)
    environment = {
        **{name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    head = Head(folder, environment, f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}")
    try:
        made = head.ray("get-auth-token", "--generate")
        assert made.returncode == 0, made.stderr
        line = _documented("ray start --head").replace("--port=6379", f"--port={gcs}")
        head.start(line, f"--dashboard-port={dashboard}", f"--temp-dir={folder}/ray", f"--num-cpus={cpus}")
        until(lambda: _answers(head), 120, head.said)
        for joined in range(joining):  # those that start at once on one machine may take each other's ports
            head.join(1)
            until(lambda count=2 + joined: head.nodes() == count, 120, head.said)
        yield head
    finally:
        _end(head)
        shutil.rmtree(folder, ignore_errors=True)


def until(true: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Wait for something, and fail with a word about it when it takes too long."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, otherwise()
        time.sleep(1)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _documented(beginning: str) -> str:
    """The line of docs/tutorials/cluster.md that begins so."""
    blocks = shell_blocks((ROOT / "docs" / "tutorials" / "cluster.md").read_text())
    [line] = [line for line in blocks.splitlines() if line.startswith(beginning)]
    assert "6379" in line
    return line


def _answers(head: Head) -> bool:
    try:
        head.ask("/api/jobs/")
    except OSError:
        return False
    return True


def _end(head: Head) -> None:
    """End everything of it, by process id; a second pass takes what was just being started."""
    for process in reversed(head.started):
        process.terminate()
    for process in reversed(head.started):
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
