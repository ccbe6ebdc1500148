"""Listens: uvicorn in this process, on one address."""

from __future__ import annotations

import errno
import ipaddress
import os
import secrets
import socket

import uvicorn
from starlette.types import ASGIApp

TOKEN_VARIABLE = "REIDRAY_SERVE_TOKEN"  # noqa: S105  (its name)
_SHORTEST_TOKEN = 16
_ALIVE_SECONDS = 30


def chosen_token(given: str | None) -> str:
    """The token that was given, here or in the environment, or a new one.

    Raises:
      ValueError: it is too short, or cannot be sent in a header.
    """
    token = given if given is not None else os.environ.get(TOKEN_VARIABLE)
    if token is None:
        return secrets.token_urlsafe(24)
    if (
        len(token) < _SHORTEST_TOKEN
        or not all("!" <= character <= "~" for character in token)
        or set(token) & set('";,\\')
    ):
        raise ValueError(
            f"expected a token of at least {_SHORTEST_TOKEN} letters, digits and signs without spaces, quotes, commas "
            "and semicolons; leave it out and one is made"
        )
    return token


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
      ValueError: the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    own = socket.socket(family)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        own.bind((host, port))
        own.listen(1024)
    except (OSError, OverflowError) as error:
        own.close()
        if isinstance(error, OverflowError):
            raise ValueError(f"expected a port from 0 to 65535, got {port}") from None
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"port {port} is taken: choose another one with --port (0 takes a free one)") from None
        raise ValueError(f"cannot listen on {host}:{port} ({error.strerror or error})") from None
    return own


def is_local(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(app: ASGIApp, own: socket.socket) -> None:
    """Answers until Ctrl-C or SIGTERM."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_ALIVE_SECONDS,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[own])
