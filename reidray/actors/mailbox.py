"""Events from workers to the driver: a plain list, made an actor by the driver, that outlives worker restarts."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any


class Mailbox:
    """Keeps events until the driver has handled them, and the sentence of a failure that no restart can mend.

    Events are counted from the start of its process, which a name of its own tells from others.
    """

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex
        self._handled = 0
        self._events: list[Mapping[str, Any]] = []  # that come after those
        self._failure: tuple[str, str, bool] | None = None

    def put(self, event: Mapping[str, Any]) -> None:
        """Add an event."""
        self._events.append(event)

    def take(self, name: str, handled: int) -> tuple[str, list[Mapping[str, Any]]]:
        """The name, and all events that come after the `handled` first ones, which are forgotten; oldest first.

        Under another name, which a caller has from a process that died or from nobody, nothing is forgotten.
        """
        if name == self._name:
            self._events = self._events[max(0, handled - self._handled) :]
            self._handled = max(self._handled, handled)
        return self._name, self._events

    def sent(self) -> tuple[str, int]:
        """The name, and how many events have come."""
        return self._name, self._handled + len(self._events)

    def handled(self) -> tuple[str, int]:
        """The name, and how many of them the driver has handled."""
        return self._name, self._handled

    def fail(self, sentence: str, trace: str, passing: bool = False) -> None:
        """The run cannot go on: what a user can put right, where it was noticed, and whether it may pass by itself."""
        self._failure = self._failure or (sentence, trace, passing)

    def failure(self) -> tuple[str, str, bool] | None:
        """The first such failure."""
        return self._failure
