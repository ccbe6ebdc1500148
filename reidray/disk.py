"""Writing to disks: files are complete or absent, and errors that a user can correct are recognised.

safetensors reports a full disk as an error of its own; here it becomes the OSError behind it.
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
    """Turns an error of safetensors while writing into an OSError; safetensors has the system's error number in its
    text.

    Raises:
      OSError: with that number; EIO where the text has none.
    """
    try:
        yield
    except SafetensorError as error:
        found = _NUMBER.search(str(error))
        if found is None:
            raise OSError(errno.EIO, str(error)) from error
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def write_whole(path: Path, text: str) -> None:
    """Writes or replaces a text file atomically: a temporary file beside it is renamed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
