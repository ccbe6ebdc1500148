"""One setting for all pools; kernels work from any thread and after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable

import numba
import numpy as np
import pytest
import torch
from numba import prange
from threadpoolctl import threadpool_info

from reidray.threads import libraries_at_one_thread, parallel_kernel, set_threads, side_by_side


@parallel_kernel
def squares(values_N: np.ndarray) -> np.ndarray:
    out_N = np.empty_like(values_N)
    for i in prange(len(values_N)):
        out_N[i] = values_N[i] * values_N[i]
    return out_N


def threads_of_a_kernel() -> int:
    """How many threads numba lets a kernel have that this thread starts."""
    squares(np.arange(8.0))
    return int(numba.get_num_threads())


@pytest.fixture(autouse=True)
def _one_thread_again() -> object:
    yield
    set_threads(1)


def test_one_number_sets_all_pools() -> None:
    for count in (2, 1):
        set_threads(count)
        assert torch.get_num_threads() == count
        blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        assert blas
        assert set(blas) == {count}
        assert threads_of_a_kernel() == min(count, numba.config.NUMBA_NUM_THREADS)


def test_kernels_keep_the_number_in_other_threads() -> None:
    set_threads(1)
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(threads_of_a_kernel()))
    thread.start()
    thread.join()
    assert seen == [1]


def test_many_threads_may_call_kernels_at_once() -> None:
    values = np.arange(1000.0)
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.extend(squares(values) for _ in range(50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 200
    assert all((result == values**2).all() for result in results)


def threads_of_libraries(_: int = 0) -> set[int]:
    return {torch.get_num_threads()} | {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_libraries_have_one_thread_side_by_side_and_their_own_again_after_an_error() -> None:
    def fail(_: int) -> None:
        raise RuntimeError("over")

    set_threads(2)
    with libraries_at_one_thread():
        assert side_by_side(threads_of_libraries, range(4)) == [{1}] * 4
    assert threads_of_libraries() == {2}
    with pytest.raises(RuntimeError, match="over"), libraries_at_one_thread():
        side_by_side(fail, range(4))
    assert threads_of_libraries() == {2}


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_any_thread_may_set_them() -> None:
    """A worker's function is not always called in the main thread; what it sets holds for the whole process."""
    seen: list[set[int]] = []
    for count in (2, 1, 2):
        in_a_thread(lambda count=count: (set_threads(count), seen.append(threads_of_libraries())))
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {count}
    assert seen == [{2}, {1}, {2}]


def test_threads_that_want_one_at_once_leave_the_libraries_as_they_were() -> None:
    set_threads(2)
    inside, left = threading.Barrier(2), threading.Event()
    seen: list[set[int]] = []

    def first() -> None:
        with libraries_at_one_thread():
            inside.wait(timeout=60)
        left.set()

    def second() -> None:
        with libraries_at_one_thread():
            inside.wait(timeout=60)
            left.wait(timeout=60)
            seen.append(threads_of_libraries())

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [{1}]
    assert threads_of_libraries() == {2}


def test_work_goes_side_by_side_only_where_threads_allow() -> None:
    meeting = threading.Barrier(2)
    set_threads(2)
    if numba.config.NUMBA_NUM_THREADS > 1:
        assert len(set(side_by_side(lambda _: meeting.wait(timeout=60), range(2)))) == 2
    set_threads(1)
    assert set(side_by_side(lambda _: threading.get_ident(), range(4))) == {threading.get_ident()}
    assert side_by_side(abs, []) == []


_FORK = """
import os, sys
import numpy as np, torch
from reidray.neighbours import nearest
from reidray.threads import set_threads
set_threads(2)
features = np.random.default_rng(0).standard_normal((900, 64)).astype(np.float32)
features /= np.linalg.norm(features, axis=1, keepdims=True)
before = nearest(features, 5)
child = os.fork()
if child == 0:
    set_threads(2)
    after = nearest(features, 5)
    same = all((a == b).all() for a, b in zip(before, after))
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_kernels_and_products_work_in_a_forked_child_with_no_threading_layer_set() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "OMP_"))}
    done = subprocess.run([sys.executable, "-c", _FORK], env=environment, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_less_than_one_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 thread, got 0"):
        set_threads(0)
