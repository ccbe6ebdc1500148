"""Whether the run's actors are there: one that finds no place for too long ends the run with a sentence.

Ray keeps calls to an actor that waits for a machine until there is one, for ever if need be, and whoever made the call
waits with them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

_LOOK_SECONDS = 2.0
_STARTING_SECONDS = 60.0  # for the process of an actor that has a place


class Watched(Protocol):
    """An actor, as `reidray.actors.placing.OnRay`."""

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
      give_up: is handed the sentence about one that has waited too long; then those that wait are ended.
    """

    def __init__(
        self,
        members: Mapping[str, Watched],
        timeout: float,
        say: Callable[[str], None],
        give_up: Callable[[str], None],
    ) -> None:
        self._members = members
        self._patience = timeout + _STARTING_SECONDS
        self._say, self._give_up = say, give_up
        self._since: dict[str, float] = {}
        self._said: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def look(self, now: float) -> bool:
        """Look at all actors once; whether they are worth another look.

        Args:
          now: seconds, of any clock that goes forward.
        """
        waiting = {name: member for name, member in self._members.items() if member.waiting()}
        self._since = {name: self._since.get(name, now) for name in waiting}
        self._said &= set(waiting)
        for name, since in self._since.items():
            waited = now - since
            if waited >= self._patience:
                self._give_up(f"waited {waited:.0f} s for a machine for {name}")
                for member in waiting.values():
                    member.end()
                return False
            if waited >= self._patience / 2 and name not in self._said:
                self._say(f"still waiting for a machine for {name}")
                self._said.add(name)
        return True

    def _run(self) -> None:
        while not self._over.wait(_LOOK_SECONDS) and self.look(time.monotonic()):
            pass
