"""A pool of members works off all tasks, and those that their results make possible."""

import threading

import pytest
import torch

from reidray.bank import InProcess
from reidray.training.pool import Task, TaskPool, run_all


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


def squarers(count):
    return [InProcess(Squarer()) for _ in range(count)]


def squares(numbers, found=None, method="square"):
    def task(number):
        def then(square):
            if found is not None:
                found.append(square)
            return square

        return Task(method, lambda: (number,), then)

    return [task(number) for number in numbers]


@pytest.fixture
def pool():
    """Makes pools, which are closed in the end."""
    made = []

    def of(members):
        made.append(TaskPool(members))
        return made[-1]

    yield of
    for one in made:
        one.close()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "tasks"]


# ---- all tasks together


@pytest.mark.parametrize("members", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 30])
def test_every_task_is_done_once_and_results_come_in_the_order_of_the_tasks(members, count):
    found = []
    results = run_all(squarers(members), squares(range(count), found))
    assert sorted(found) == results == [n * n for n in range(count)]


def test_what_then_returns_is_the_result():
    assert run_all(squarers(2), [Task("square", lambda: (3,), str), Task("square", lambda: (4,))]) == ["9", 16]


def test_the_others_go_on_while_a_member_is_late():
    found, late = [], Late()

    class Other:
        def submit(self, method, *arguments):
            assert late.called.wait(60)
            return InProcess(Squarer()).submit(method, *arguments)

    def last(square):
        found.append(square)
        late.back.set()

    tasks = [*squares(range(20), found), Task("square", lambda: (20,), last)]
    run_all([late, Other()], tasks)
    assert sorted(found) == [n * n for n in range(21)]
    assert late.calls == 1


@pytest.mark.parametrize("members", [1, 3])
def test_an_error_of_a_call_ends_it_all(members):
    with pytest.raises(ValueError, match="no square of"):
        run_all(squarers(members), squares(range(10), method="fail"))
    assert not threads()


@pytest.mark.parametrize("where", ["arguments", "then", "ready"])
def test_an_error_on_this_side_ends_it_all(where):
    def wrong(*_):
        raise ValueError(f"in {where}")

    sides = {"arguments": lambda: (1,), where: wrong}
    tasks = [Task("square", **sides), Task("square", lambda: (2,), ready=lambda: False)]
    with pytest.raises(ValueError, match=f"in {where}"):
        run_all(squarers(2), tasks)
    for task in tasks:
        assert "in " + where in str(task.future.exception(timeout=60))
    assert not threads()


def test_what_was_under_way_when_something_went_wrong_has_ended_before_that_is_said():
    late, ended = Late(), []

    class Wrong:
        def submit(self, method, *arguments):
            assert late.called.wait(60)
            threading.Timer(0.1, late.back.set).start()
            return InProcess(Squarer()).submit("fail", *arguments)

    with pytest.raises(ValueError, match="no square of"):
        run_all([late, Wrong()], squares(range(2), ended))
    assert len(ended) == 1


def test_a_task_is_told_what_was_found_before_it():
    found = [2]
    run_all(squarers(1), [Task("square", lambda: (found[-1],), found.append) for _ in range(3)])
    assert found == [2, 4, 16, 256]


@pytest.mark.parametrize("members", [1, 3])
def test_what_runs_on_this_side_never_overlaps(members):
    inside, most = [0], [0]

    def noted(value):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        threading.Event().wait(0.001)
        inside[0] -= 1
        return value

    tasks = [Task("square", lambda: noted((1,)), noted, lambda: noted(True)) for _ in range(10)]
    assert run_all(squarers(members), tasks) == [1] * 10
    assert most == [1]


def test_members_are_called_with_as_many_threads_as_the_caller_has():
    class Told:
        def submit(self, method, *arguments):
            return InProcess(Squarer()).submit(method, torch.get_num_threads())

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert run_all([Told()], squares([0])) == [9]
    finally:
        torch.set_num_threads(before)


# ---- tasks that come while others are done


def test_tasks_that_a_result_makes_possible_come_next(pool):
    order, one = [], pool(squarers(1))

    def task(name, *more):
        def then(_):
            order.append(name)
            one.add(more, first=True)

        return Task("square", lambda: (0,), then)

    c = task("c")
    tasks = [task("a", task("b", c), task("d")), task("e")]
    one.add(tasks)
    for waited in (*tasks, c):
        waited.future.result(timeout=60)
    assert order == ["a", "b", "c", "d", "e"]


def test_a_task_that_a_result_made_possible_is_done_and_until_then_the_ones_behind_it():
    order, there = [], set()

    def task(name, needs=()):
        def then(_):
            order.append(name)
            there.add(name)

        return Task("square", lambda: (0,), then, lambda: there.issuperset(needs))

    run_all(squarers(1), [task("d", {"c"}), task("c", {"a", "b"}), task("a"), task("b")])
    assert order == ["a", "b", "c", "d"]


def test_a_task_that_becomes_possible_by_itself_is_done():
    there = threading.Event()
    timer = threading.Timer(0.05, there.set)
    timer.start()
    assert run_all(squarers(2), [Task("square", lambda: (5,), ready=there.is_set)]) == [25]
    timer.join()


def test_new_tasks_come_after_those_that_wait_or_before_them_each_time_in_their_order(pool):
    late, order = Late(), []
    one = pool([late])
    under_way = squares([0], order)
    one.add(under_way)
    assert late.called.wait(60)
    last, first = squares([1, 2], order), squares([3, 4], order)
    one.add(last)
    one.add(first, first=True)
    one.add([])
    very_first = squares([5], order)
    one.add(very_first, first=True)
    late.back.set()
    results = [task.future.result(timeout=60) for task in (*under_way, *very_first, *first, *last)]
    assert order == results == [0, 25, 9, 16, 1, 4]


def test_after_an_error_every_future_that_is_waited_for_raises_it(pool):
    late = Late()
    one = pool([late])
    tasks = [*squares([1], method="fail"), *squares([2, 3]), Task("square", lambda: (4,), ready=lambda: False)]
    one.add(tasks)
    found = []

    def waits(task):
        found.append(task.future.exception(timeout=60))

    waiting = [threading.Thread(target=waits, args=(task,)) for task in tasks]
    for thread in waiting:
        thread.start()
    late.back.set()
    for thread in waiting:
        thread.join()
    assert [str(error) for error in found] == ["no square of 1"] * 4
    assert late.calls == 1
    for first in (False, True):
        (after,) = squares([5])
        one.add([after], first=first)
        assert after.future.exception(timeout=60) is found[0]


def test_what_was_done_before_an_error_keeps_its_result(pool):
    one = pool(squarers(1))
    tasks = [*squares([6]), *squares([7], method="fail")]
    one.add(tasks)
    assert tasks[0].future.result(timeout=60) == 36
    with pytest.raises(ValueError, match="no square of 7"):
        tasks[1].future.result(timeout=60)


@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("wrong", [False, True])
def test_closing_a_pool_ends_its_threads(members, wrong):
    one = TaskPool(squarers(members))
    assert len(threads()) == members
    tasks = squares([1], method="fail" if wrong else "square")
    one.add(tasks)
    tasks[0].future.exception(timeout=60)
    one.close()
    assert not threads()
    one.close()  # once more is harmless


def test_closing_begins_no_further_task_and_waits_for_those_under_way():
    late, found = Late(), []
    one = TaskPool([late])
    tasks = squares([1, 2, 3], found)
    one.add(tasks)
    assert late.called.wait(60)
    timer = threading.Timer(0.1, late.back.set)
    timer.start()
    one.close()
    assert found == [1]
    assert tasks[0].future.result(timeout=0) == 1
    assert late.calls == 1
    assert not threads()
    timer.join()
