"""Disks: files that are there whole or not at all, which errors a person can put right, and what safetensors says of
them as the OSError that it is.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EFBIG)
"""Numbers of errors that no second try can mend."""

_NUMBER = re.compile(r"\(os error (\d+)\)")


@contextmanager
def disk_errors() -> Iterator[None]:
    """Around what writes with safetensors, whose error has the number of the system's in its text alone.

    Raises:
      OSError: with that number; EIO where it says none.
    """
    try:
        yield
    except SafetensorError as error:
        found = _NUMBER.search(str(error))
        if found is None:
            raise OSError(errno.EIO, str(error)) from error
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def write_whole(path: Path, text: str) -> None:
    """Write a text file, or replace it, at once: beside its place, then renamed into it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
