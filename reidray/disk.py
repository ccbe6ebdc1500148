"""Errors of disks: which ones a person can put right, and what safetensors says of them as the OSError that it is."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

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
