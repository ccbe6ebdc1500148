"""Events from workers to the driver: a plain list in an actor of the driver, which outlives restarts of the workers."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any


class Mailbox:
    """Keeps events until the driver has handled them, and the sentence of a failure that a restart cannot repair.

    Events are counted from the start of the actor's process. Each process has its own name, so that a count is never
    applied to the events of another one.
    """

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex
        self._handled = 0
        self._events: list[Mapping[str, Any]] = []  # that come after the handled ones
        self._failure: tuple[str, str, bool] | None = None

    def put(self, event: Mapping[str, Any]) -> None:
        """Add an event."""
        self._events.append(event)

    def take(self, name: str, handled: int) -> tuple[str, list[Mapping[str, Any]]]:
        """This process's name, and all events after the first `handled` ones, oldest first; those first ones are
        deleted.

        Nothing is deleted where `name` is not this process's: a caller may still have the name of a process that died,
        or none yet.
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
        """The run cannot go on: a sentence for the user, the traceback, and whether the cause may pass by itself."""
        self._failure = self._failure or (sentence, trace, passing)

    def failure(self) -> tuple[str, str, bool] | None:
        """The first such failure."""
        return self._failure
