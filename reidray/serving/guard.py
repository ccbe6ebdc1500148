"""What every request passes: the token, headers that make a page safe, figures, and an end for what is not wanted."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reidray.serving.metrics import Metrics

OPEN = ("/health",)
"""Answers without a token."""

_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_DRAIN_SECONDS, _DRAIN_BYTES = 10.0, 256_000_000

_logger = logging.getLogger("reidray.serving")


class Refused(Exception):  # noqa: N818
    """What is not done, as the status and the sentence of the answer."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers


def sentence(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as JSON: {"error": text}."""
    return JSONResponse({"error": text}, status, headers)


class Guard:
    """Around the routes.

    Args:
      app: the routes.
      token: that clients must have.
      cookie: name of the cookie with it; cookies do not know ports, so that two services need two names.
      metrics: counts requests.
    """

    def __init__(self, app: ASGIApp, *, token: str, cookie: str, metrics: Metrics) -> None:
        self._app, self._token, self._cookie, self._metrics = app, token.encode(), cookie, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, receive, send)
        started = time.perf_counter()
        try:
            answer = self._unwanted(Request(scope))
            await (answer or self._app)(scope, exchange.receive, exchange.send)
        except Exception:
            _logger.exception("%s %s failed", scope["method"], scope["path"])
        finally:
            self._metrics.answered(scope, exchange.status, time.perf_counter() - started)
            await exchange.finish()

    def _unwanted(self, request: Request) -> Response | None:
        """The answer to a request that does not get further."""
        if request.scope["path"] in OPEN:
            return None
        if "token" in request.query_params:
            return self._with_cookie(request)
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._right(bearer.strip()):
            return None
        if self._right(_cookie(request, self._cookie)):
            return None if _same_origin(request) else sentence(403, "this comes from another page.")
        got = "another one" if scheme or self._cookie in request.headers.get("cookie", "") else "none"
        return sentence(
            401,
            f"expected the token of this service, got {got}: open the address with ?token=... that it printed at its "
            "start, or send the header Authorization: Bearer TOKEN.",
            {"www-authenticate": "Bearer"},
        )

    def _with_cookie(self, request: Request) -> Response:
        """The page's address without the token, and the token as a cookie."""
        if request.method not in ("GET", "HEAD") or request.scope["path"] != "/":
            return sentence(400, "expected ?token= only with the page: use the header Authorization: Bearer TOKEN.")
        token = request.query_params["token"]
        if not self._right(token):
            return sentence(401, "expected the token of this service, got another one.", {"www-authenticate": "Bearer"})
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, token, httponly=True, samesite="lax", secure=request.url.scheme == "https")
        return answer

    def _right(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), self._token)


def _cookie(request: Request, name: str) -> str | None:
    """Of all cookies only ours: other services on this machine may set some of any form."""
    for part in request.headers.get("cookie", "").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value.strip('"')  # which stand around signs such as / and =
    return None


def _same_origin(request: Request) -> bool:
    """Whether a browser that sends its cookie does so for our own page: another port of this machine is not it."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and request.method not in ("GET", "HEAD"):
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("host")


class _Exchange:
    """A request and its answer: what came of the body, what was answered.

    An answer may be ready before its request has come whole, because that is too large or without a token. If the
    connection ended there, most clients would see a broken connection in place of the sentence. So what still comes is
    thrown away as it comes, for a while, and then the connection ends.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        told = {name: value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")}
        self._came_whole = not told or told == {b"content-length": b"0"}
        self._last: Message | None = None
        self.status = 500

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._came_whole = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ends = [] if self._came_whole or message["status"] < 400 else [(b"connection", b"close")]
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS, *ends]}
        elif not self._came_whole and not message.get("more_body", False):
            self._last = {"type": "http.response.body", "body": b"", "more_body": False}
            message = {**message, "more_body": True}
        await self._send(message)

    async def finish(self) -> None:
        """Takes what still comes, and ends the answer that waits for that."""
        if self._last is None:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._drain(), _DRAIN_SECONDS)
        await self._send(self._last)

    async def _drain(self) -> None:
        thrown_away = 0
        while not self._came_whole and thrown_away < _DRAIN_BYTES:
            message: dict[str, Any] = dict(await self.receive())
            thrown_away += len(message.get("body", b""))
