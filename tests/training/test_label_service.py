"""The pool of labellers as its caller sees it: turns, and the shards that are not parsed yet."""

import numpy as np

from reidray.bank import MemoryBank
from reidray.config import Settings
from reidray.training.label_service import LabelService


class Slow:
    """A labeller whose results are there when they are told to be."""

    def __init__(self):
        self.asked, self.ready = [], False

    def submit(self, method, *arguments):
        self.asked.append(method)
        return self

    def done(self):
        return self.ready


def test_shards_are_parsed_by_turns_and_those_on_their_way_are_counted():
    members = [Slow(), Slow()]
    service = LabelService(members, Settings(), MemoryBank([], {}))
    assert service.queue() == 0
    for shard in range(5):
        service.parse(shard, np.zeros((1, 2, 2), np.float32), (2, 1))
    assert [len(member.asked) for member in members] == [3, 2]
    assert service.queue() == 5
    members[0].ready = True
    assert service.queue() == 2
    service.parse(5, np.zeros((1, 2, 2), np.float32), (2, 1))
    assert service.queue() == 3
    members[1].ready = True
    assert service.queue() == 0
