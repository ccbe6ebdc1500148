"""One number of threads for all pools of a process, and the two ways to run kernels on several of them.

Three libraries have thread pools of their own: PyTorch, the BLAS under NumPy and SciPy, and numba. By default each
takes every core. `set_threads` sets all three.

numba can start threads in several ways. Its OpenMP shares PyTorch's runtime and kills a process that was forked after
a parallel kernel ran; its TBB is an extra package; its own work queue survives a fork but runs one kernel at a time.
`parallel_kernel` makes kernels wait for each other, so reidray uses the work queue unless NUMBA_THREADING_LAYER says
otherwise.

After a parallel section the threads of a pool spin for a while, waiting for more work, and take the cores from the
pool that runs next. Where matrix products and kernels alternate, Python threads run `side_by_side` instead, each on a
share of the data, with `libraries_at_one_thread`.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numba
import torch
from threadpoolctl import OpenBLASController, threadpool_limits

from reidray.compiled import njit

_config: Any = numba.config

if not os.environ.get("NUMBA_THREADING_LAYER"):
    _config.THREADING_LAYER = "workqueue"

_most_numba_threads: int = _config.NUMBA_NUM_THREADS  # what numba starts with is the most it can be set to
_numba_threads = _most_numba_threads
_forked = False
_one_at_a_time = threading.Lock()
_limited = threading.Lock()
_limits: list[Any] = []  # of BLAS, one for everybody who is inside libraries_at_one_thread


def set_threads(count: int) -> None:
    """Lets PyTorch, BLAS and numba use `count` threads each.

    Args:
      count: at least 1; numba takes no more than NUMBA_NUM_THREADS (by default the number of cores). PyTorch keeps it
        for the calling thread and those that are started later, BLAS and kernels for the whole process, whichever
        thread says it. In a forked child PyTorch stays at 1.

    Raises:
      ValueError: a count below 1.
    """
    if count < 1:
        raise ValueError(f"expected at least 1 thread, got {count}; correct the setting.")
    global _numba_threads
    torch.set_num_threads(1 if _forked else count)
    _limit_blas(count)
    _numba_threads = min(count, _most_numba_threads)


def num_threads() -> int:
    """How many threads a kernel may use: the count given to `set_threads`, at most numba's own maximum."""
    return _numba_threads


def parallel_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function whose `prange` loops run on numba's threads; compiled code is kept on disk.

    The loops must give the same result for any number of threads. Kernels run one at a time in a process, others wait:
    two at once would be twice as many threads as were asked for.
    """
    compiled = njit(cache=True, nogil=True, parallel=True)(function)

    @functools.wraps(function)
    def launch(*arguments: Any) -> Any:
        with _one_at_a_time:
            numba.set_num_threads(num_threads())  # numba keeps the number per calling thread
            return compiled(*arguments)

    return launch


def side_by_side(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Calls work(item) for all items on `num_threads` Python threads; returns the results in the order of the items.

    `work` must release the GIL, and must not write what the call for another item reads. An error stops all calls and
    is raised.
    """
    listed = list(items)
    workers = min(num_threads(), len(listed))
    if workers <= 1:
        return [work(item) for item in listed]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, listed))


@contextmanager
def libraries_at_one_thread() -> Iterator[None]:
    """Keeps PyTorch and BLAS at one thread, here and in threads that are started inside; afterwards as before.

    Several threads may be inside at once: BLAS is as before when the last one has left.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with _limited:
        _limits.append(_limits[-1] if _limits else _limit_blas(1))
    try:
        yield
    finally:
        with _limited:
            limit = _limits.pop()
            if not _limits:
                _anyone_may_limit_blas()
                limit.restore_original_limits()
        torch.set_num_threads(before)


def _limit_blas(count: int) -> Any:
    _anyone_may_limit_blas()
    return threadpool_limits(count, user_api="blas")


def _anyone_may_limit_blas() -> None:
    """Lets the calling thread limit BLAS.

    From version 3.8 on threadpoolctl obeys only the thread that set a limit first, and ignores others silently. Workers
    and actors do not always call from that thread.
    """
    release = getattr(OpenBLASController, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)


def _after_fork() -> None:
    """Resets the state in a forked child.

    A lock may have been held by a thread that does not exist in the child; and PyTorch would wait for ever for its
    threads, which do not exist there either.
    """
    global _one_at_a_time, _limited, _forked
    _one_at_a_time, _limited, _forked = threading.Lock(), threading.Lock(), True
    torch.set_num_threads(1)


os.register_at_fork(after_in_child=_after_fork)
