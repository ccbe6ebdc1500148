"""A file that computes the checksum of what is written to it."""

from __future__ import annotations

import hashlib
import io
from typing import Any, BinaryIO


class TarFile(io.RawIOBase):
    """A file that computes a checksum of what is written; after a failed write it ignores the rest, so that the tar can
    be closed.

    Attributes:
      bytes: written so far.
      failed: whether a write has failed.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self._sum, self.failed = file, hashlib.sha256(), False
        self.bytes = 0

    def write(self, data: Any) -> int:
        if self.failed:
            return len(data)
        try:
            self._file.write(data)
        except OSError:
            self.failed = True
            raise
        self._sum.update(data)
        self.bytes += len(data)
        return len(data)

    def finish(self) -> str:
        """Closes the file; gives its sha256."""
        try:
            self._file.close()
        except OSError:
            if not self.failed:
                raise
        return self._sum.hexdigest()
