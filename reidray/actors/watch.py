"""Watches whether the run's actors have a machine; an actor that has none for too long is given up.

Ray keeps the calls to an actor that waits for a machine, for ever if none comes, and so the callers wait for ever too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

_LOOK_SECONDS = 2.0
_STARTING_SECONDS = 60.0  # for the process of an actor that has a place


class Watched(Protocol):
    """An actor, as `reidray.actors.remote.OnRay`."""

    def waiting(self) -> bool:
        """Whether it is to be started, for the first time or again."""

    def end(self) -> None:
        """End it; calls that were made of it fail."""


class Watch:
    """Looks at actors every other second, in a thread, while the block lasts.

    Args:
      members: actors by what they are called, with what they ask of a machine.
      timeout: seconds for which an actor may be without a place; a minute more for its process to start.
      say: is handed a sentence about an actor that has been waiting for half of that.
      lost: is told the name of one that has waited too long, and for how many seconds; then that one is ended.
    """

    def __init__(
        self,
        members: Mapping[str, Watched],
        timeout: float,
        say: Callable[[str], None],
        lost: Callable[[str, float], None],
    ) -> None:
        self._members = dict(members)
        self._patience = timeout + _STARTING_SECONDS
        self._say, self._lost = say, lost
        self._since: dict[str, float] = {}
        self._said: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def look(self, now: float) -> None:
        """Look at all actors once.

        Args:
          now: seconds, of any clock that goes forward.
        """
        waiting = {name for name, member in self._members.items() if member.waiting()}
        self._since = {name: self._since.get(name, now) for name in sorted(waiting)}
        self._said &= waiting
        for name, since in self._since.items():
            waited = now - since
            if waited >= self._patience:
                self._lost(name, waited)
                self._members.pop(name).end()
            elif waited >= self._patience / 2 and name not in self._said:
                self._say(f"still waiting for a machine for {name}")
                self._said.add(name)

    def _run(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            self.look(time.monotonic())
