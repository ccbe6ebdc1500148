"""Labellers as actors: they share an epoch's labelling, and one that is killed costs nobody a label."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from reidray.bank import BankShard, MemoryBank, Pending
from reidray.config import Settings
from reidray.training.labeller import Labeller
from tests.chaos import processes
from tests.training.test_block_search import assert_same, labelled, settings_of

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    import ray

    from reidray.actors.cluster import connect

    connect(Settings())
    yield
    ray.shutdown()


class Killed:
    """An actor whose process, or that of another one like it, is killed as soon as it has its fourth task."""

    killed = 0

    def __init__(self, settings: Settings, bank: MemoryBank) -> None:
        from reidray.actors.remote import placed

        self.calls = 0
        self.member = placed(Labeller, settings, bank, threads=1, restarts=1)

    def submit(self, method: str, *arguments: Any) -> Pending:
        self.calls += 1
        pending = self.member.submit(method, *arguments)
        if self.calls == 4 and not Killed.killed:
            Killed.killed = processes("Labeller")[0]
            os.kill(Killed.killed, signal.SIGKILL)
        return pending


def test_a_labeller_that_is_killed_while_it_works_changes_nothing() -> None:
    from reidray.actors.remote import OnRay, placed

    def shard() -> OnRay:
        return placed(BankShard, threads=1, restarts=0)

    struck = labelled(settings_of(labelling="blocks"), member=Killed, members=2, shard=shard)
    assert Killed.killed
    assert_same(struck, labelled(settings_of(labelling="whole")))
