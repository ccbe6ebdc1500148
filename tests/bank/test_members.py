"""Members: one way to call an object, here and in another process."""

import pickle

import pytest

from reidray.bank import Done, InProcess


class Counter:
    def __init__(self):
        self.count = 0

    def add(self, number):
        self.count += number
        return self.count

    def fail(self):
        raise ValueError("the shard said no")


def test_a_call_in_process_has_run_when_submit_returns():
    counter = Counter()
    member = InProcess(counter)
    pending = member.submit("add", 2)
    assert counter.count == 2
    member.submit("add", 3)
    assert pending.result() == 2
    assert pending.result() == 2  # as often as one likes


def test_an_argument_may_be_the_result_of_another_call():
    first, second = InProcess(Counter()), InProcess(Counter())
    assert second.submit("add", first.submit("add", 5)).result() == 5
    assert second.submit("add", Done(4)).result() == 9


def test_an_error_in_process_surfaces_at_once():
    with pytest.raises(ValueError, match="the shard said no"):
        InProcess(Counter()).submit("fail")
    with pytest.raises(AttributeError, match="missing"):
        InProcess(Counter()).submit("missing")


def test_a_member_can_be_pickled_with_its_state():
    member = InProcess(Counter())
    member.submit("add", 7)
    assert pickle.loads(pickle.dumps(member)).submit("add", 1).result() == 8
    assert member.submit("add", 0).result() == 7
