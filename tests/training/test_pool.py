"""A pool of members works off all tasks, and those that their results make possible."""

import threading

import pytest

from reidray.bank import InProcess
from reidray.training.pool import Task, run_all


class Squarer:
    def square(self, number):
        return number * number

    def fail(self, number):
        raise ValueError(f"no square of {number}")


class Late:
    """A member that is called before all others and answers when it is told to: it died and was started again."""

    def __init__(self):
        self.calls, self.called, self.back = 0, threading.Event(), threading.Event()

    def submit(self, method, *arguments):
        self.calls += 1
        self.called.set()
        assert self.back.wait(60)
        return InProcess(Squarer()).submit(method, *arguments)


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
    run_all([InProcess(Squarer()) for _ in range(members)], squares(range(count), found))
    assert sorted(found) == [n * n for n in range(count)]


def test_the_others_go_on_while_a_member_is_late():
    found, late = [], Late()

    class Other:
        def submit(self, method, *arguments):
            assert late.called.wait(60)
            return InProcess(Squarer()).submit(method, *arguments)

    def last(square):
        found.append(square)
        late.back.set()
        return ()

    tasks = [*squares(range(20), found), Task("square", lambda: (20,), last)]
    run_all([late, Other()], tasks)
    assert sorted(found) == [n * n for n in range(21)]
    assert late.calls == 1


@pytest.mark.parametrize("members", [1, 3])
def test_an_error_of_a_call_ends_it_all(members):
    with pytest.raises(ValueError, match="no square of"):
        run_all([InProcess(Squarer()) for _ in range(members)], squares(range(10), [], method="fail"))


@pytest.mark.parametrize("where", ["arguments", "done"])
def test_an_error_on_this_side_ends_it_all(where):
    def wrong(*_):
        raise ValueError(f"in {where}")

    task = Task("square", wrong if where == "arguments" else lambda: (1,), wrong)
    with pytest.raises(ValueError, match=f"in {where}"):
        run_all([InProcess(Squarer()) for _ in range(2)], [task])


def test_tasks_that_a_result_makes_possible_come_next():
    order = []

    def task(name, *then):
        def done(_):
            order.append(name)
            return then

        return Task("square", lambda: (0,), done)

    run_all([InProcess(Squarer())], [task("a", task("b", task("c")), task("d")), task("e")])
    assert order == ["a", "b", "c", "d", "e"]


def test_a_task_is_told_what_was_found_before_it():
    found = [2]

    def done(square):
        found.append(square)
        return ()

    run_all([InProcess(Squarer())], [Task("square", lambda: (found[-1],), done) for _ in range(3)])
    assert found == [2, 4, 16, 256]
