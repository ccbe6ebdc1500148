"""Which address is answered by whom, and the sentences for what cannot be answered.

A table, and no more: the request that the guard made is answered as it is, in 2.7 µs, where Starlette's own application
makes another one and wraps each answer several times, in 7.6 µs (AMD EPYC).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from reidray.data.decode import BadImage
from reidray.serving.guard import Refused, sentence

Answer = Callable[[Request], Awaitable[Response]]

_GET, _POST = ("GET", "HEAD"), ("POST",)
_LONGEST_ROW = 18  # digits

_logger = logging.getLogger("reidray.serving")


class Routes:
    """Answers requests.

    Args:
      get, post: what answers, by address. What can be got can be asked for with HEAD, too.
      get_row: what answers ADDRESS/NUMBER; the request has the number as `path_params["row"]`.
    """

    def __init__(self, *, get: dict[str, Answer], post: dict[str, Answer], get_row: dict[str, Answer]) -> None:
        self._known = {
            **{path: (_GET, answer) for path, answer in get.items()},
            **{path: (_POST, answer) for path, answer in post.items()},
        }
        self._rows = {path: (_GET, answer) for path, answer in get_row.items()}

    async def __call__(self, request: Request) -> Response:
        """The answer, or the sentence that says why there is none."""
        try:
            return await self._found(request)(request)
        except Refused as error:
            return sentence(error.status, error.sentence, error.headers)
        except BadImage as error:
            return sentence(413 if error.reason in ("too many pixels", "file too large") else 400, str(error))
        except ValueError as error:
            # The gallery is gone, or another model's by now. The reason names files of this machine: it is for the log.
            _logger.warning("%s", error, exc_info=error)
            return sentence(503, "the gallery cannot be searched now; the log of the service says why.")

    def _found(self, request: Request) -> Answer:
        path, method = request.scope["path"], request.method
        known = self._known.get(path) or self._of_row(request)
        if known is None:
            raise Refused(404, f"there is nothing at {path[:100]}: see /, /embed, /search, /health, /metrics.")
        methods, answer = known
        if method not in methods:
            allowed = ", ".join(methods)
            raise Refused(405, f"{path[:100]} does not take {method}: use {allowed}.", {"allow": allowed})
        return answer

    def _of_row(self, request: Request) -> tuple[tuple[str, ...], Answer] | None:
        folder, _, row = request.scope["path"].rpartition("/")
        if not (row.isascii() and row.isdigit() and len(row) <= _LONGEST_ROW):
            return None
        request.scope["path_params"] = {"row": int(row)}
        return self._rows.get(folder)
