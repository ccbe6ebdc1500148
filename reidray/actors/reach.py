"""What is looked at before Ray is started or joined: there Ray would wait for minutes, or stop with a traceback."""

from __future__ import annotations

import os
import re
import socket
import time
from datetime import datetime

# What a client of gRPC says first, with empty settings; the answer of any server begins with its own settings.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_FRAME = 9  # bytes of a frame's header, of which the fourth is its kind
_SETTINGS = 4
_TRY_SECONDS = 1.0
_MOST_SOCKET = 107  # bytes of a socket's path on Linux


def check_head(address: str, seconds: float) -> None:
    """See that somebody answers at RAY_ADDRESS, and wait a while for a head that is still starting.

    Addresses without a host and a port ("auto", "local") are Ray's own business.

    Args:
      address: as in RAY_ADDRESS.
      seconds: to wait.

    Raises:
      ValueError: nobody did.
    """
    place = re.fullmatch(r"(?:ray://)?(\[[0-9a-fA-F:.%\w]+\]|[^\s/:]+):(\d{1,5})", address)
    if place is None:
        return
    host, port, deadline = place[1].strip("[]"), int(place[2]), time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        why = _silence(host, port, max(0.1, left))
        if why is None:
            return
        if time.monotonic() + _TRY_SECONDS >= deadline:
            raise ValueError(
                f"no Ray head answers at RAY_ADDRESS={address} ({why}; waited run.start_timeout={seconds:g} s): start "
                "one there, correct the address, or unset RAY_ADDRESS to start Ray on this machine"
            )
        time.sleep(_TRY_SECONDS)


def _silence(host: str, port: int, seconds: float) -> str | None:
    """None where a gRPC server answers, else what happened."""
    if port > 65535:
        return "there is no such port"
    try:
        with socket.create_connection((host, port), timeout=seconds) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return None  # the handshake is Ray's
            connection.settimeout(seconds)
            connection.sendall(_HELLO)
            answer = b""
            while len(answer) < _FRAME:
                more = connection.recv(_FRAME - len(answer))
                if not more:
                    return "the connection was closed"
                answer += more
            return None if answer[3] == _SETTINGS else "what answers there is no Ray head"
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return (error.strerror or str(error)).lower()


def check_temporary_folder() -> None:
    """See that the sockets of a Ray on this machine fit below its temporary folder.

    Raises:
      ValueError: the path of a socket would be longer than a socket's path can be.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    if name is None:
        return
    session = f"session_{datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}"
    path = os.path.join(os.environ[name], "ray", session, "sockets", "plasma_store")  # noqa: PTH118 (as Ray does)
    if len(os.fsencode(path)) > _MOST_SOCKET:
        raise ValueError(
            f"{name}={os.environ[name]} is too long a path for Ray's sockets: {path} has {len(os.fsencode(path))} "
            f"bytes and a socket's path (AF_UNIX) has at most {_MOST_SOCKET}; set RAY_TMPDIR to a short folder on this "
            "machine's own disk, such as /tmp"
        )
