"""What all tests share: one thread a pool, a tiny drawn data set, and settings small enough for seconds."""

import os

for _pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_pool, "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")  # the most that a test can ask for

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY = {
    "data": {
        "seed": 5,
        "images_per_shard": 64,
        "drawn": {
            "train_persons": 14,
            "validation_persons": 4,
            "test_persons": 8,
            "num_cameras": 3,
            "cameras_per_person": [2, 3],
            "images_per_camera": [3, 4],
        },
    },
    "model": {"bn_group_size": 16},
    "method": {"clusters_per_batch": 8, "images_per_cluster": 4, "k1": 8, "k2": 3, "eps": 0.5},
    "train": {"epochs": 2, "steps": 4},
    "scwm": {"difficulty_neighbours": 6, "part_refinement_from": 1},
    "run": {"workers": 0, "report": False},
    "evaluate": {"ranked_lists": 2},
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in several processes (-n 2), a file goes to one of them, and all of tests/actors to one.

    Two Rays at once would fight for two cores. They take the longest, so they begin first (--no-loadscope-reorder).
    """
    from xdist.scheduler.loadfile import LoadFileScheduling

    class RayInOne(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/actors" if nodeid.startswith("tests/actors/") else super()._split_scope(nodeid)

    return RayInOne(config, log)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    from reidray.threads import set_threads

    set_threads(1)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the tiny data set is drawn once; its packed shards come to lie beside it."""
    return tmp_path_factory.mktemp("tiny") / "drawn"


@pytest.fixture
def tiny_settings(tiny_root: Path, tmp_path: Path) -> Callable[..., Any]:
    """Settings of a run of seconds: `tiny_settings("one", train={"epochs": 3})`; the run folder is tmp_path/one.

    With data={"drawn": {"frames": 4}} samples are tracklets, which are drawn once as well.
    """
    from reidray.config import Settings

    def settings(name: str, **sections: dict[str, Any]) -> Settings:
        tree = json.loads(json.dumps(TINY))
        tree["data"]["root"] = str(tiny_root)
        tree["run"]["dir"] = str(tmp_path / name)
        for section, values in sections.items():
            within = tree.setdefault(section, {})
            drawn = {**within.get("drawn", {}), **values.get("drawn", {})}
            within.update(values)
            if drawn:
                within["drawn"] = drawn
                if "frames" in drawn:
                    within["root"] = str(tiny_root.with_name("drawn-tracklets"))
        return Settings.model_validate(tree)

    return settings
