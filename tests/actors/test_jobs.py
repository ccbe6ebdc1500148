"""Jobs on a head that is started as docs/tutorials/cluster.md says: the token is asked for, a stopped job leaves
nothing behind, two jobs at once do not meet, and four machines give the run of one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reidray.launch.launch import launch
from tests.head import Head, running_head, until
from tests.shell_lines import ROOT
from tests.whole.runs import assert_same_run

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("default")]

OURS = {"BankShard", "Labeller", "Mailbox"}
ONE = {"workers": 1, "labeller_threads": 1}
LIGHT = {"name": "cluster_contrast"}  # a head has a home of its own, without compiled kernels: this method has few


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running_head(cpus=2) as own:
        yield own


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
            refused.value.close()


def test_a_driver_with_a_wrong_token_gets_a_sentence_and_does_not_get_in(head: Head, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "jobs/train.py",
        f"run.dir={tmp_path / 'run'}",
        f"data.root={tmp_path / 'data'}",
        "data.dataset=drawn",
    ]
    environment = {**head.environment, "RAY_ADDRESS": head.gcs, "RAY_AUTH_TOKEN": "f" * 64, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert _last_line(done).startswith(f"error: could not join the Ray cluster at RAY_ADDRESS={head.gcs}: see that")
    assert not (tmp_path / "run").exists()
    assert not head.work()


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return [line for line in done.stderr.splitlines() if line.strip()][-1]


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_stopped_job_leaves_nothing_running(head: Head, tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    settings = tiny_settings("stopped", method=LIGHT, train={"epochs": 1, "steps": 100_000}, run=ONE)
    head.submit("stopped", *_words(settings, tmp_path))
    log = tmp_path / "stopped" / "log.txt"
    until(lambda: log.is_file() and "epoch 1/1  train " in log.read_text(), 900, lambda: head.log("stopped"))
    assert OURS | {"RayTrainWorker"} <= {actor["class_name"] for actor in head.actors("stopped")}
    assert any("jobs/train.py" in words for words in head.work().values())
    done = head.ray("job", "stop", "stopped")
    assert done.returncode == 0, done.stderr
    assert head.status("stopped") == "STOPPED"
    until(lambda: not head.work() and not head.actors("stopped"), 60, lambda: f"left: {head.work()}")


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

    until(over, 900, lambda: head.log("one") + head.log("two"))
    assert [head.status(name) for name in settings] == ["SUCCEEDED"] * 2, head.log("one") + head.log("two")
    assert at_once, "one was over before the other had begun"
    ours = {name: [one for one in actors.values() if one["class_name"] in OURS] for name, actors in both.items()}
    assert all({actor["class_name"] for actor in actors} == OURS for actors in ours.values())
    assert not any(actor["name"] for actors in ours.values() for actor in actors)  # nobody can ask for them
    assert not {one["ray_namespace"] for one in ours["one"]} & {two["ray_namespace"] for two in ours["two"]}
    for name in settings:
        assert_same_run(tmp_path / f"{name}-alone", tmp_path / name)
    until(lambda: not head.work(), 60, lambda: str(head.work()))


def test_a_second_job_compiles_nothing(head: Head, tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    """Its working directory is another one, with the same kernels."""
    kernels = []
    for name, excluded in (("first", "docs"), ("second", "kuberay")):
        settings = tiny_settings(name, method={"name": "scwm"}, train={"epochs": 1, "steps": 2}, run=ONE)
        head.submit(name, *_words(settings, tmp_path), excluded=excluded)
        until(lambda name=name: head.status(name) not in ("PENDING", "RUNNING"), 900, lambda name=name: head.log(name))
        assert head.status(name) == "SUCCEEDED", head.log(name)
        files = (head.folder / ".cache" / "reidray" / "kernels").rglob("*.nb?")
        kernels.append({file: file.stat().st_mtime_ns for file in files})
    assert len(kernels[0]) > 20
    assert kernels[0] == kernels[1]
    packages = list(head.folder.rglob("_ray_pkg_*/jobs/train.py"))
    assert len(packages) > 1, "both jobs had the same working directory"


def _words(settings: Any, folder: Path) -> list[str]:
    """Settings as a job's words: a file, since the job has another working directory."""
    file = folder / f"{Path(settings.run.dir).name}.yaml"
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    return ["--config", str(file)]


def test_four_machines_give_the_run_of_one_bit_for_bit(tmp_path: Path) -> None:
    """The default job; its data and run folders lie where all machines see them."""
    for name, cpus, joining, of_workers in (("one", 2, 0, 1), ("four", 1, 3, 2)):
        words = [f"data.root={tmp_path / 'drawn'}", "data.dataset=drawn", f"run.dir={tmp_path / name}", "run.workers=2"]
        with running_head(cpus, joining) as head:
            head.submit(name, *words)
            homes: dict[str, set[str]] = {}

            def over(name: str = name, head: Head = head, homes: dict[str, set[str]] = homes) -> bool:
                for actor in head.actors(name):
                    homes.setdefault(actor["class_name"], set()).add(actor["node_id"])
                return head.status(name) not in ("PENDING", "RUNNING")

            until(over, 2400, lambda name=name, head=head: head.log(name))
            assert head.status(name) == "SUCCEEDED", head.log(name)
            assert len(homes["RayTrainWorker"]) == of_workers
            assert len(homes["BankShard"] | homes["Labeller"]) == min(3, 1 + joining), "they were not spread"
    assert_same_run(tmp_path / "one", tmp_path / "four")
