"""Work ahead: in order, bounded, with errors in their place, and no thread left behind."""

import threading
import time

import pytest
import torch

from reidray.training.prefetch import prefetch


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    assert not workers()
    yield
    assert not workers()


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_results_come_in_order_whatever_the_threads(count, depth, threads):
    def prepare(number):
        time.sleep(0.001 * (number % 3))
        return number * number

    assert list(prefetch(prepare, count, depth=depth, threads=threads)) == [n * n for n in range(count)]


def test_nothing_happens_before_the_first_is_asked_for():
    begun = []
    iterator = prefetch(begun.append, 3, depth=2, threads=1)
    assert not begun
    assert not workers()
    del iterator


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_than_depth_are_prepared_ahead(threads):
    begun = []
    for number, _ in enumerate(prefetch(begun.append, 30, depth=4, threads=threads)):
        time.sleep(0.002)
        assert len(begun) <= number + 1 + 4
    assert sorted(begun) == list(range(30))


def test_what_comes_next_is_prepared_while_one_is_in_use():
    ready = [threading.Event() for _ in range(4)]
    iterator = prefetch(lambda number: ready[number].set(), 4, depth=3, threads=1)
    next(iterator)
    assert all(event.wait(10) for event in ready)
    iterator.close()


def test_threads_work_at_the_same_time():
    meeting = threading.Barrier(3, timeout=10)
    assert list(prefetch(lambda _: meeting.wait() >= 0, 3, depth=3, threads=3)) == [True] * 3


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_is_raised_in_its_place(threads):
    def prepare(number):
        if number == 2:
            raise ValueError("train/7.jpg is damaged")
        return number

    iterator = prefetch(prepare, 100, depth=5, threads=threads)
    assert [next(iterator), next(iterator)] == [0, 1]
    with pytest.raises(ValueError, match=r"train/7\.jpg is damaged"):
        next(iterator)
    assert list(iterator) == []


def test_leaving_early_drops_what_was_not_begun():
    begun = []

    def prepare(number):
        begun.append(number)
        time.sleep(0.02)

    for _ in prefetch(prepare, 1000, depth=50, threads=2):
        break
    assert len(begun) < 10
    assert not workers()


def test_an_error_of_the_one_who_asks_leaves_no_thread():
    def steps():
        for _ in prefetch(lambda number: number, 10, depth=3, threads=2):
            raise RuntimeError("the step failed")

    with pytest.raises(RuntimeError, match="the step failed"):
        steps()


def test_the_threads_count_as_many_openmp_threads_as_the_one_who_asks():
    assert set(prefetch(lambda _: torch.get_num_threads(), 8, depth=4, threads=2)) == {torch.get_num_threads()}
