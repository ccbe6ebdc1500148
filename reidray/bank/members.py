"""One way to call an object, wherever it lives.

A member answers `submit(method, *arguments)` with something pending. `InProcess` runs the call at once;
`reidray.actors.remote.OnRay` sends it to an actor. What is pending may itself be an argument of another member's
call: it is waited for where the call runs, so results go from one actor to another without passing here.
"""

from __future__ import annotations

from typing import Any, Protocol, final


class Pending(Protocol):
    """A result that is or will be there."""

    def result(self) -> Any:
        """Wait for it; errors of the call are raised here."""
        ...

    def done(self) -> bool:
        """Whether `result` would not wait."""
        ...


class Member(Protocol):
    """An object that may live in another process."""

    def submit(self, method: str, *arguments: Any) -> Pending:
        """Call `method`; calls of one caller run in the order in which they were submitted."""
        ...


@final
class Done:
    """A result that is there."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def result(self) -> Any:
        """The value."""
        return self._value

    def done(self) -> bool:
        """True."""
        return True


@final
class InProcess:
    """A member that lives here; a call has run when `submit` returns."""

    def __init__(self, target: object) -> None:
        self._target = target

    def submit(self, method: str, *arguments: Any) -> Pending:
        """Run the call now; an error is raised at once."""
        values = [argument.result() if isinstance(argument, Done) else argument for argument in arguments]
        return Done(getattr(self._target, method)(*values))
