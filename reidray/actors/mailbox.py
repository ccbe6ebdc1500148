"""Events from workers to the driver: a plain list, made an actor by the driver, that outlives worker restarts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Mailbox:
    """Keeps events until the driver takes them, and the sentence of a failure that no restart can mend."""

    def __init__(self) -> None:
        self._events: list[Mapping[str, Any]] = []
        self._failure: tuple[str, str] | None = None

    def put(self, event: Mapping[str, Any]) -> None:
        """Add an event."""
        self._events.append(event)

    def take(self) -> list[Mapping[str, Any]]:
        """All events since the last call, oldest first."""
        events, self._events = self._events, []
        return events

    def fail(self, sentence: str, trace: str) -> None:
        """The run cannot go on, whoever tries again: what a user can put right, and where it was noticed."""
        self._failure = self._failure or (sentence, trace)

    def failure(self) -> tuple[str, str] | None:
        """Sentence and traceback of the first such failure."""
        return self._failure
