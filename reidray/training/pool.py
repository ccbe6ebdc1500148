"""Tasks that a pool of members works off together, of which any may be lost on the way.

Each member gets the next task as soon as it has answered the last one. A task whose member is lost goes to another one,
or to the same one once it is back: so a task must be one that any member can do, and as often as need be.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from reidray.bank import Lost, Member

_PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds that a lost member is given to come back, one time after the other; then the others go on without it."""


@dataclass
class Task:
    """A call, and what becomes of its result.

    Attributes:
      method: of the members.
      arguments: is asked when a member is free, so that the call knows what was found until then.
      done: takes the result and returns the tasks that it made possible, which come next. Calls of `arguments` and
        `done` never overlap.
    """

    method: str
    arguments: Callable[[], tuple[Any, ...]]
    done: Callable[[Any], Iterable[Task]]


def work_off(members: Sequence[Member], tasks: Iterable[Task]) -> None:
    """Returns when all tasks are done, those included that came with them.

    A single member is called from this thread, more from one thread each.

    Raises:
      Lost: all members are.
      What a call raised, as soon as the calls under way have ended.
    """
    work = _Work(deque(tasks))
    if len(members) == 1:
        work.by(members[0])
    else:
        threads = [threading.Thread(target=work.by, args=(member,), daemon=True) for member in members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if work.error is not None:
        raise work.error
    if work.waiting:
        raise Lost(f"all {len(members)} labellers are lost: {work.loss}")


@dataclass
class _Work:
    """What is left to do, shared by the threads."""

    waiting: deque[Task]
    under_way: int = 0
    error: BaseException | None = None
    loss: Lost | None = None
    _change: threading.Condition = field(default_factory=threading.Condition)

    def by(self, member: Member) -> None:
        """Works off tasks with one member until there are none, something went wrong, or it is lost for good."""
        losses = 0
        while (taken := self._take()) is not None:
            task, arguments = taken
            try:
                result = member.submit(task.method, *arguments).result()
            except Lost as loss:
                self._put_back(task, loss)
                if losses == len(_PAUSES):
                    return
                self._rest(_PAUSES[losses])
                losses += 1
            except BaseException as error:
                self._stop(error)
                return
            else:
                losses = 0
                self._enter(task, result)

    def _take(self) -> tuple[Task, tuple[Any, ...]] | None:
        """The next task, as soon as there is one; None if there will be none."""
        with self._change:
            self._change.wait_for(lambda: self.waiting or self._over())
            if self._over():
                return None
            task = self.waiting.popleft()
            try:
                arguments = task.arguments()
            except BaseException as error:
                self._stop(error)
                return None
            self.under_way += 1
            return task, arguments

    def _over(self) -> bool:
        return self.error is not None or (not self.waiting and not self.under_way)

    def _enter(self, task: Task, result: Any) -> None:
        with self._change:
            try:
                self.waiting.extendleft(reversed(list(task.done(result))))
            except BaseException as error:
                self.error = self.error or error
            self.under_way -= 1
            self._change.notify_all()

    def _put_back(self, task: Task, loss: Lost) -> None:
        with self._change:
            self.loss = loss
            self.waiting.appendleft(task)
            self.under_way -= 1
            self._change.notify_all()

    def _stop(self, error: BaseException) -> None:
        with self._change:
            self.error = self.error or error
            self._change.notify_all()

    def _rest(self, seconds: float) -> None:
        """Unless all is over before."""
        with self._change:
            self._change.wait_for(self._over, seconds)
