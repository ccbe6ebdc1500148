"""A pool of members works off all tasks, whoever of them is lost on the way."""

import threading
import time

import pytest

from reidray.bank import InProcess, Lost
from reidray.training import pool
from reidray.training.pool import Task, work_off


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(pool, "_PAUSES", (0.001, 0.001, 0.001))


class Squarer:
    def square(self, number):
        return number * number

    def fail(self, number):
        raise ValueError(f"no square of {number}")


class Flaky:
    """A member that is lost at some of its calls, before or after they ran."""

    def __init__(self, losses):
        self.losses = list(losses)
        self.calls = 0
        self.inside = InProcess(Squarer())

    def submit(self, method, *arguments):
        self.calls += 1
        lost = self.losses.pop(0) if self.losses else ""
        if lost == "before":
            raise Lost("gone before")
        pending = self.inside.submit(method, *arguments)
        if lost == "after":
            raise Lost("gone after")
        return pending


class Gone:
    def __init__(self):
        self.calls = 0

    def submit(self, method, *arguments):
        self.calls += 1
        raise Lost("gone for good")


def squares(numbers, found, method="square"):
    def task(number):
        def done(square):
            found.append(square)
            return ()

        return Task(method, lambda: (number,), done)

    return [task(number) for number in numbers]


@pytest.mark.parametrize("members", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 30])
def test_every_task_is_done_once(members, count):
    found = []
    work_off([InProcess(Squarer()) for _ in range(members)], squares(range(count), found))
    assert sorted(found) == [n * n for n in range(count)]


@pytest.mark.parametrize("members", [1, 3])
def test_what_was_lost_is_done_again(members):
    found = []
    flaky = [Flaky(["", "before", "after", ""]) for _ in range(members)]
    work_off(flaky, squares(range(20), found))
    assert sorted(found) == [n * n for n in range(20)]
    assert sum(member.calls for member in flaky) > 20


def test_the_others_go_on_without_a_member_that_stays_lost():
    found, gone = [], Gone()
    work_off([gone, Flaky([])], squares(range(50), found))
    assert sorted(found) == [n * n for n in range(50)]
    assert gone.calls <= 4


def test_the_last_task_of_a_member_that_is_lost_goes_to_one_that_had_nothing_left_to_do():
    begun = threading.Event()

    class Dies:
        def submit(self, method, *arguments):
            begun.set()
            time.sleep(0.05)
            raise Lost("gone")

    class Waits(Flaky):
        def submit(self, method, *arguments):
            assert begun.wait(5)
            return super().submit(method, *arguments)

    found = []
    work_off([Dies(), Waits([])], squares([3, 4], found))
    assert sorted(found) == [9, 16]


def test_when_all_are_lost_that_is_said():
    with pytest.raises(Lost, match="all labellers are lost: gone for good"):
        work_off([Gone(), Gone()], squares(range(3), []))


@pytest.mark.parametrize("members", [1, 3])
def test_an_error_of_a_call_ends_it_all(members):
    with pytest.raises(ValueError, match="no square of"):
        work_off([InProcess(Squarer()) for _ in range(members)], squares(range(10), [], method="fail"))


@pytest.mark.parametrize("where", ["arguments", "done"])
def test_an_error_on_this_side_ends_it_all(where):
    def wrong(*_):
        raise ValueError(f"in {where}")

    task = Task("square", wrong if where == "arguments" else lambda: (1,), wrong)
    with pytest.raises(ValueError, match=f"in {where}"):
        work_off([InProcess(Squarer()) for _ in range(2)], [task])


def test_tasks_that_a_result_makes_possible_come_next():
    order = []

    def task(name, *then):
        def done(_):
            order.append(name)
            return then

        return Task("square", lambda: (0,), done)

    work_off([InProcess(Squarer())], [task("a", task("b", task("c")), task("d")), task("e")])
    assert order == ["a", "b", "c", "d", "e"]


def test_a_task_is_told_what_was_found_before_it():
    found = [2]

    def done(square):
        found.append(square)
        return ()

    work_off([InProcess(Squarer())], [Task("square", lambda: (found[-1],), done) for _ in range(3)])
    assert found == [2, 4, 16, 256]
