"""Tasks that a pool of members works off together.

Each member gets the next task as soon as it has answered the last one. A member that dies and is started again is
called again by whoever placed it (`reidray.actors.remote`), so that a task must be harmless twice; here it is merely
slow, and the others go on meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reidray.bank import Member

_LOOK = 0.2  # seconds after which tasks that were not ready are looked at again


@dataclass(eq=False)
class Task:
    """A call, and what becomes of its result.

    Attributes:
      method: of the members.
      arguments: is asked when a member is free, so that the call knows what was found until then.
      done: takes the result and returns the tasks that it made possible, which come next.
      ready: whether the task can begin; asked again and again until it can.

    Calls of `arguments`, `done` and `ready` never overlap.
    """

    method: str
    arguments: Callable[[], tuple[Any, ...]]
    done: Callable[[Any], Iterable[Task]]
    ready: Callable[[], bool] = lambda: True


def run_all(members: Sequence[Member], tasks: Iterable[Task]) -> None:
    """Returns when all tasks are done, those included that came with them.

    Raises: what a call raised first; the others that were under way then have ended.
    """
    work = Work(tasks)
    work.run_all(members)
    work.check()


class Work:
    """What is left to do, shared by the threads that do it.

    Args:
      tasks: to begin with.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._waiting = deque(tasks)
        self._under_way = 0
        self._error: BaseException | None = None
        self._change = threading.Condition()

    def run_all(self, members: Sequence[Member]) -> None:
        """Works off all tasks: a single member is called from this thread, more from one thread each."""
        if len(members) == 1:
            self._by(members[0])
            return
        threads = [threading.Thread(target=self._by, args=(member,), daemon=True) for member in members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def check(self) -> None:
        """Once `run_all` has returned: raises what went wrong, if anything did."""
        if self._error is not None:
            raise self._error

    def _by(self, member: Member) -> None:
        """Works off tasks with one member until there are none or something went wrong."""
        try:
            while (taken := self._take()) is not None:
                task, arguments = taken
                self._enter(task, member.submit(task.method, *arguments).result())
        except BaseException as error:
            with self._change:
                self._error = self._error or error
                self._change.notify_all()

    def _take(self) -> tuple[Task, tuple[Any, ...]] | None:
        """The first task that is ready, as soon as there is one; None if there will be none."""
        with self._change:
            while not self._over():
                task = next((task for task in self._waiting if task.ready()), None)
                if task is not None:
                    self._waiting.remove(task)
                    self._under_way += 1
                    return task, task.arguments()
                self._change.wait(_LOOK if self._waiting else None)
            return None

    def _over(self) -> bool:
        return self._error is not None or (not self._waiting and not self._under_way)

    def _enter(self, task: Task, result: Any) -> None:
        with self._change:
            self._waiting.extendleft(reversed(list(task.done(result))))
            self._under_way -= 1
            self._change.notify_all()
