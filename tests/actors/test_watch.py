"""The watch over a run's actors: who has no place for too long is told of, and ended."""

from collections.abc import Callable
from typing import Any

import pytest

from reidray.actors.watch import Watch
from reidray.launch.launch import launch

TIMEOUT = 60.0  # and a minute to start


class Actor:
    def __init__(self, *, waits: bool) -> None:
        self.waits, self.ended = waits, False

    def waiting(self) -> bool:
        return self.waits

    def end(self) -> None:
        self.ended = True


def watched(**actors: Actor) -> tuple[Watch, list[str], list[tuple[str, float]]]:
    said: list[str] = []
    lost: list[tuple[str, float]] = []
    return Watch(actors, TIMEOUT, said.append, lambda *what: lost.append(what)), said, lost


def test_actors_that_are_there_are_left_alone() -> None:
    watch, said, lost = watched(one=Actor(waits=False))
    for now in (0.0, 100.0, 1e6):
        watch.look(now)
    assert not said
    assert not lost


def test_one_that_waits_too_long_is_told_of_once_and_then_ended() -> None:
    there, gone = Actor(waits=False), Actor(waits=True)
    watch, said, lost = watched(there=there, gone=gone)
    for now in (7.0, 66.0, 67.0, 80.0, 126.9):
        watch.look(now)
    assert said == ["still waiting for a machine for gone"]
    assert not gone.ended
    for now in (127.0, 500.0):
        watch.look(now)
    assert lost == [("gone", 120.0)]
    assert gone.ended
    assert not there.ended


def test_each_wait_counts_from_its_own_beginning() -> None:
    actor = Actor(waits=True)
    watch, said, lost = watched(one=actor)
    watch.look(0.0)
    watch.look(119.0)
    actor.waits = False
    watch.look(119.5)
    actor.waits = True  # its machine died
    watch.look(121.0)
    watch.look(200.0)
    assert said == ["still waiting for a machine for one"] * 2
    assert not lost
    watch.look(241.0)
    assert lost == [("one", 120.0)]
    assert actor.ended


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_run_whose_bank_finds_no_machine_ends_with_a_sentence(
    tiny_settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr("reidray.actors.watch._STARTING_SECONDS", 30.0)
    nowhere = {"workers": 1, "service_label": "zone=nowhere", "start_timeout": 20.0}
    wanted = r"waited \d+ s for a machine for bank shard 0 .*run.service_label=zone=nowhere.*the cluster has 2 CPUs"
    try:
        with pytest.raises(ValueError, match=wanted):
            launch(tiny_settings("lost", run=nowhere))
    finally:
        ray.shutdown()
