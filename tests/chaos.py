"""Kills processes of a run at random moments and compares what comes out with the undisturbed run, bit for bit.

Four Ray nodes on this machine: a head with the driver, and three of one CPU, of which two hold training workers. Two
labellers share the labelling, block by block, and begin while features still come in. A run of six epochs goes on
while, in a random order and at random moments, one process of each kind gets SIGKILL: a training worker, a shard of the
memory bank, a labeller, the workers' controller, the mailbox between workers and driver, a whole node (another takes
its place), and the driver, after which the run is taken up with --resume.

    python -m tests.chaos --seed 0 [--seeds 20] [--output benchmarks/results/chaos.json]

Time lost to a fault: how much later than in the undisturbed run the next checkpoint was there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import TINY
from tests.whole.runs import assert_same_run

EPOCHS, STEPS, EVERY = 6, 40, 10
KINDS = ("worker", "bank shard", "labeller", "controller", "mailbox", "node", "driver")
_NAMES = {
    "worker": "RayTrainWorker",
    "bank shard": "BankShard",
    "labeller": "Labeller",
    "controller": "TrainController",
    "mailbox": "Mailbox",
}
_PATIENCE = 900.0  # seconds without a new checkpoint before a run is called dead
_QUICK = {  # how soon Ray notices that a node is gone
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_health_check_initial_delay_ms": "2000",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after another")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--output", type=Path, help="JSON of every fault and the time it cost")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="chaos-"))
    seeds = range(options.seed, options.seed + options.seeds)
    failed = _all(place, seeds, options.kinds, options.output)
    if failed:
        print(f"the folders of the runs that did not come out equal are kept in {place}", flush=True)
    else:
        shutil.rmtree(place)
    return 1 if failed else 0


def _all(place: Path, seeds: range, kinds: list[str], output: Path | None) -> int:
    with cluster(nodes=3) as nodes:
        whole: dict[str, Any] = {"epochs": EPOCHS, "steps": STEPS}
        undisturbed = Run(place / "undisturbed", place / "drawn", nodes.address, **whole)
        undisturbed.finish()
        faults: list[dict[str, Any]] = []
        failed = 0
        for seed in seeds:
            run = Run(place / f"seed-{seed}", place / "drawn", nodes.address, **whole)
            struck: list[dict[str, Any]] = []
            try:
                _strike(run, nodes, random.Random(seed), kinds, struck)
                assert_same_run(undisturbed.folder, run.folder)
                outcome = "equal"
            except AssertionError as error:
                outcome, failed = f"not equal: {str(error).splitlines()[0]}", failed + 1
                run.process.kill()
            for left in processes("PlacementGroupCleaner"):  # Ray Train's; without a dashboard they outlive what died
                os.kill(left, signal.SIGKILL)
            for fault in struck:
                fault.update(seed=seed, lost_seconds=_lost(fault, run, undisturbed), outcome=outcome)
                print(json.dumps(fault), flush=True)
            faults += struck
            if outcome == "equal":
                shutil.rmtree(run.folder)
    print(_table(faults), flush=True)
    if output:
        found = {"undisturbed_seconds": round(undisturbed.seconds, 1), "faults": faults}
        output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(faults)} faults in {len(seeds)} runs, {failed} runs did not come out equal", flush=True)
    return failed


def _table(faults: list[dict[str, Any]]) -> str:
    """Time lost by kind, as Markdown."""
    rows = ["| what was killed | times | median seconds lost | at most |", "|---|---|---|---|"]
    for kind in KINDS:
        lost = sorted(
            fault["lost_seconds"] for fault in faults if fault["kind"] == kind and fault["lost_seconds"] is not None
        )
        if lost:
            rows.append(f"| {kind} | {len(lost)} | {statistics.median(lost):.1f} | {lost[-1]:.1f} |")
    return "\n".join(rows)


class Run:
    """One run of `jobs/train.py` on the cluster, and when each of its checkpoints was first seen."""

    def __init__(self, folder: Path, root: Path, address: str, *, epochs: int, steps: int, **run: Any) -> None:
        self.folder, self._address = folder, address
        tree = json.loads(json.dumps(TINY))
        tree["data"].update(root=str(root), images_per_shard=16)
        tree["train"].update(epochs=epochs, steps=steps)
        tree["run"].update(dir=str(folder), workers=2, checkpoint_steps=EVERY, keep_checkpoints=3, max_failures=-1)
        tree["run"].update(labellers=2, labeller_threads=1, search_block=32, label_early=True)
        tree["run"].update(run)
        self._config = folder.with_suffix(".json")  # JSON is YAML
        self._config.write_text(json.dumps(tree))
        self.seen: dict[str, float] = {}
        self.ended: set[str] = set()  # Ray's numbers of jobs whose driver was killed: their actors take a moment to end
        self._started = time.monotonic()
        self.process = self._start("--config", str(self._config))

    @property
    def seconds(self) -> float:
        """From its start to its last checkpoint."""
        return max(self.seen.values())

    def resume(self) -> None:
        """Take it up after its driver died."""
        self.process = self._start("--resume", str(self.folder))

    def finish(self) -> None:
        """Until it ends well; AssertionError with its last words otherwise."""
        while self.step():
            pass

    def step(self) -> bool:
        """Look for new checkpoints for a moment; whether it is still at work."""
        time.sleep(0.05)
        for path in (self.folder / "checkpoints").glob("epoch_*"):
            if path.name not in self.seen and not path.name.endswith(".replaced"):
                self.seen[path.name] = time.monotonic() - self._started
        code = self.process.poll()
        assert code in (None, 0), f"the run ended with status {code}: {self._last_words()}"
        since = time.monotonic() - self._started - max(self.seen.values(), default=0.0)
        assert since < _PATIENCE, f"no new checkpoint for {since:.0f} s: {self._last_words()}"
        return code is None

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **_QUICK, "RAY_ADDRESS": self._address, "OMP_NUM_THREADS": "1"}
        root = Path(__file__).parents[1]
        environment["PYTHONPATH"] = str(root)
        command = [sys.executable, str(root / "jobs" / "train.py"), *arguments]
        with self.folder.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=root)

    def log(self) -> str:
        """What it has said."""
        return self.folder.with_suffix(".log").read_text(errors="replace")

    def _last_words(self) -> str:
        lines = self.log().splitlines()
        said = [line for line in lines if line.startswith("error: ")]
        return " / ".join(said[-1:] or lines[-4:])


def _strike(run: Run, nodes: Nodes, dice: random.Random, kinds: list[str], struck: list[dict[str, Any]]) -> None:
    """Each kind of fault once while the run goes on; into `struck` goes what was, and after which checkpoint."""
    order = dice.sample(kinds, len(kinds))
    names = [_name(epoch, step) for epoch in range(EPOCHS) for step in (*range(0, STEPS, EVERY), None)]
    after = sorted(dice.sample(range(len(names) - 2), len(kinds)))
    for kind, place in zip(order, after, strict=True):
        while not any(_when(name) >= _when(names[place]) for name in run.seen):
            assert run.step(), "the run was over before it could be struck"
        wait_until = time.monotonic() + dice.uniform(0.0, 4.0)
        while time.monotonic() < wait_until and run.step():
            pass
        newest = max(run.seen, key=_when)
        _kill(kind, run, nodes, dice)
        struck.append({"kind": kind, "after": newest})
    run.finish()


def _kill(kind: str, run: Run, nodes: Nodes, dice: random.Random) -> None:
    """Nobody who is not needed any more: the run must be at work, and an actor one of its driver's."""
    assert run.step(), f"the run was over before its {kind} could be struck"
    if kind == "driver":
        run.ended |= {job_of(process) for process in processes("")}
        run.process.kill()
        run.process.wait()
        run.resume()
    elif kind == "node":
        nodes.lose(dice)
        nodes.join()
    else:
        found: list[int] = []
        while not found:  # it may be on its way up from the fault before
            assert run.step(), f"the run was over before its {kind} could be struck"
            found = [process for process in processes(_NAMES[kind]) if job_of(process) not in run.ended]
        os.kill(dice.choice(found), signal.SIGKILL)


def _lost(fault: dict[str, Any], run: Run, undisturbed: Run) -> float | None:
    """Seconds from the checkpoint before the fault to the next one, less those of the undisturbed run."""
    later = [name for name in run.seen if _when(name) > _when(fault["after"]) and name in undisturbed.seen]
    if not later:
        return None
    following = min(later, key=_when)
    took = run.seen[following] - run.seen[fault["after"]]
    usual = undisturbed.seen[following] - undisturbed.seen.get(fault["after"], undisturbed.seen[following])
    return round(took - usual, 1)


def _name(epoch: int, step: int | None) -> str:
    return f"epoch_{epoch:04d}" + ("" if step is None else f"_step_{step:06d}")


def _when(name: str) -> tuple[int, float]:
    match = re.fullmatch(r"epoch_(\d+)(?:_step_(\d+))?", name)
    assert match, name
    return int(match[1]), float(match[2] or "inf")


def processes(word: str) -> list[int]:
    """Process ids of this process's Ray whose title names an actor of this kind."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
                if title.startswith(b"ray::") and word.encode() in title and _descends(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:  # it ended meanwhile
                continue
    return sorted(found)


def job_of(process: int) -> str:
    """Ray's number of the job that it works for; "" where it has none, or ended meanwhile."""
    try:
        names = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((name.decode() for name in names if name.startswith(b"RAY_JOB_ID=")), "")


def _descends(process: int) -> bool:
    """Whether this process is an ancestor."""
    while process > 1 and process != os.getpid():
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process == os.getpid()


class Nodes:
    """The nodes that a run may lose."""

    def __init__(self, cluster: Any, count: int) -> None:
        self.address: str = cluster.address
        self._cluster = cluster
        self._nodes = [self._new() for _ in range(count)]

    def lose(self, dice: random.Random) -> None:
        """A node is gone with all its processes."""
        lost = self._nodes.pop(dice.randrange(len(self._nodes)))
        self._cluster.remove_node(lost, allow_graceful=False)

    def join(self) -> None:
        """Another one is there."""
        self._nodes.append(self._new())

    def _new(self) -> Any:
        return self._cluster.add_node(num_cpus=1)


@contextmanager
def cluster(nodes: int) -> Iterator[Nodes]:
    """A head without CPUs for workers, and nodes of one CPU each, all on this machine."""
    os.environ.update(_QUICK)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # the cluster is this test's alone, on this machine alone
    from ray.cluster_utils import Cluster

    own = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield Nodes(own, nodes)
    finally:
        own.shutdown()


if __name__ == "__main__":
    sys.exit(main())
