"""One number of threads for all pools of a process, and the two ways to run kernels on several of them.

Three libraries bring pools of their own: PyTorch, the BLAS under NumPy and SciPy, and numba. Left alone each takes
every core. `set_threads` sets all three.

numba has several ways to start threads. Its OpenMP shares PyTorch's runtime and kills a process that was forked after
a parallel kernel ran; its TBB is an extra package; its own work queue survives a fork but allows one kernel at a time.
`parallel_kernel` sees to the latter, so the work queue is what reidray uses unless NUMBA_THREADING_LAYER says
otherwise.

Threads of a pool that has just finished keep turning for a while, in case more comes, and take the cores from the pool
that works next. Where matrix products and kernels alternate, threads of Python work `side_by_side` instead, each on its
own share, with `libraries_at_one_thread`.
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
from numba import njit
from threadpoolctl import OpenBLASController, threadpool_limits

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
    """How many threads a kernel may use: what `set_threads` was told, as far as numba goes along."""
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
    """work(item) of all items, by `num_threads` threads of Python; what it returned, in order of items.

    The work releases the GIL and writes nothing that the work on another item reads. An error stops all and is raised.
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
    """From its version 3.8 on, threadpoolctl listens only to the thread that spoke first, and ignores others silently.
    A worker's function, or an actor's call, is not always in that one."""
    release = getattr(OpenBLASController, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)


def _after_fork() -> None:
    """A forked child: a lock may have been held by a thread that is not there, and neither are PyTorch's threads,
    for which it would wait for ever."""
    global _one_at_a_time, _limited, _forked
    _one_at_a_time, _limited, _forked = threading.Lock(), threading.Lock(), True
    torch.set_num_threads(1)


os.register_at_fork(after_in_child=_after_fork)
