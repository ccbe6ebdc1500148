"""Tasks that a pool of members works off together.

Each member gets the next task as soon as it has answered the last one. A member that dies and is started again is
called again by whoever placed it (`reidray.actors.remote`), so a task must be harmless when it is done twice; here it
is merely slow, and the others go on meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from reidray.bank import Member

_LOOK = 0.2  # seconds after which tasks that were not ready are looked at again


@dataclass(eq=False)
class Task:
    """A call of a member.

    Attributes:
      method: of the members.
      arguments: is asked when a member is free, so that the call knows what was found until then.
      then: takes the result; what it returns is the result of `future`.
      ready: whether the task can begin; asked again and again until it can.

    Calls of `arguments`, `then` and `ready` never overlap.
    """

    method: str
    arguments: Callable[[], tuple[Any, ...]]
    then: Callable[[Any], Any] = lambda result: result
    ready: Callable[[], bool] = lambda: True
    future: Future[Any] = field(default_factory=Future)


class TaskPool:
    """The tasks that are waiting, and a thread for each member.

    After the first error no further task begins, and every future that is waited for raises that error.

    Args:
      members: that do the tasks.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._waiting: deque[Task] = deque()
        self._error: BaseException | None = None
        self._closed = False
        self._change = threading.Condition()
        threads = torch.get_num_threads()  # OpenMP counts threads for each calling thread
        self._threads = [
            threading.Thread(target=self._work, args=(member, threads), name="tasks", daemon=True) for member in members
        ]
        for thread in self._threads:
            thread.start()

    def add(self, tasks: Sequence[Task], *, first: bool = False) -> None:
        """More tasks, to be done after those that wait, or before them."""
        with self._change:
            if first:
                self._waiting.extendleft(reversed(tasks))
            else:
                self._waiting.extend(tasks)
            if self._error is not None:
                self._fail_those_that_wait()
            self._change.notify_all()

    def close(self) -> None:
        """Begin no further task, and wait for those that are under way."""
        with self._change:
            self._closed = True
            while self._waiting:
                self._waiting.popleft().future.cancel()
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, member: Member, threads: int) -> None:
        """Do tasks with one member until the pool is closed or something went wrong."""
        torch.set_num_threads(threads)
        while (taken := self._take()) is not None:
            task, arguments = taken
            try:
                result = member.submit(task.method, *arguments).result()
                with self._change:
                    value = task.then(result)
            except BaseException as error:
                self._fail(task, error)
                return
            task.future.set_result(value)
            with self._change:
                self._change.notify_all()

    def _take(self) -> tuple[Task, tuple[Any, ...]] | None:
        """The first task that is ready, as soon as there is one; None if there will be none."""
        with self._change:
            while not self._closed and self._error is None:
                task = None
                try:
                    task = next((task for task in self._waiting if task.ready()), None)
                    if task is not None:
                        self._waiting.remove(task)
                        return task, task.arguments()
                except BaseException as error:
                    self._error = error
                    if task is not None:
                        task.future.set_exception(error)
                    self._fail_those_that_wait()
                    return None
                self._change.wait(_LOOK if self._waiting else None)
            return None

    def _fail(self, task: Task, error: BaseException) -> None:
        with self._change:
            self._error = self._error or error
            task.future.set_exception(self._error)
            self._fail_those_that_wait()
            self._change.notify_all()

    def _fail_those_that_wait(self) -> None:
        assert self._error is not None
        while self._waiting:
            self._waiting.popleft().future.set_exception(self._error)


def run_all(members: Sequence[Member], tasks: Sequence[Task]) -> list[Any]:
    """The results of all tasks, in their order.

    Raises: what a call raised first; the others that were under way then have ended.
    """
    pool = TaskPool(members)
    try:
        pool.add(tasks)
        return [task.future.result() for task in tasks]
    finally:
        pool.close()
