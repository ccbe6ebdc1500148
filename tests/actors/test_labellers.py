"""Labellers as actors: they share an epoch's labelling, and one that is killed costs nobody a label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reidray.bank import BankShard, MemoryBank, Pending
from reidray.config import Settings
from reidray.training.labelling import Labeller
from tests.training.test_block_labelling import assert_same, labelled, settings_of

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    import ray

    from reidray.actors.train_group import connect

    connect(Settings())
    yield
    ray.shutdown()


class Mortal:
    """An actor that is killed while it is at its fourth task."""

    killed = 0

    def __init__(self, settings: Settings, bank: MemoryBank) -> None:
        from reidray.actors.placing import placed

        self.calls = 0
        self.member = placed(Labeller, settings, bank, threads=1)

    def submit(self, method: str, *arguments: Any) -> Pending:
        import ray

        self.calls += 1
        pending = self.member.submit(method, *arguments)
        if self.calls == 4 and not Mortal.killed:
            Mortal.killed += 1
            ray.kill(self.member._handle)
        return pending


def test_a_labeller_that_is_killed_while_it_works_changes_nothing() -> None:
    from reidray.actors.placing import placed

    settings = settings_of(labelling="blocks")
    struck = labelled(settings, member=Mortal, members=2, shard=lambda: placed(BankShard, threads=1))
    assert Mortal.killed == 1
    assert_same(struck, labelled(settings_of(labelling="whole")))
