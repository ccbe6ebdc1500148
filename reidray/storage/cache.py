"""Where a packed split lies: a folder of this machine, or a URL whose tars are copied to the node once.

A copy is named after its sha256, checked while it is written, and renamed when complete, so an outdated copy is never
used. Of the workers of a node one copies while the others wait.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

PROTOCOLS = (
    *("file", "local", "memory", "http", "https", "s3", "s3a", "gs", "gcs"),
    *("abfs", "abfss", "az", "adl", "hdfs", "webhdfs", "sftp"),
)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|pipe:", re.ASCII)
_CHUNK = 8 * 2**20


class Folder(Protocol):
    """A place to read files from, by plain file name."""

    shown: str

    def read(self, file: str) -> bytes | None:
        """The bytes of a file, None when it does not exist."""

    def check(self, file: str, *, size: int, sha256: str) -> None:
        """Raises what `path` would raise, as far as that can be told without copying."""

    def path(self, file: str, *, size: int, sha256: str) -> Path:
        """A local path of the file, which has that size and sha256; copied there first where necessary."""


def open_folder(folder: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None) -> Folder:
    """Chooses between reading in place and copying.

    Args:
      folder: a path (read in place), or an fsspec URL (copied to cache_dir).
      cache_dir: a folder of the node; None reads file:// in place and allows `read` alone elsewhere.

    Returns:
      The folder.

    Raises:
      ValueError: a URL of a kind that is not read (pipe:, chained ones), or one of an unknown protocol.
    """
    text = os.fspath(folder)
    match = _URL.match(text)
    if match is None and "::" not in text:
        return LocalFolder(Path(text))
    protocol = (match[1] or "pipe").lower() if match else "a chain"
    if protocol not in PROTOCOLS or "::" in text:
        raise ValueError(
            f"{hide_login(text)}: expected a folder or a URL of {', '.join(PROTOCOLS)}, got {protocol}:; commands and "
            f"chained URLs are never opened."
        )
    if cache_dir is None and protocol in ("file", "local"):
        return LocalFolder(Path(urlsplit(text).path))
    return CachedFolder(text, None if cache_dir is None else Path(cache_dir).expanduser())


def hide_login(url: str) -> str:
    """The URL without user name and password, for messages."""
    return re.sub(r"//[^/@]*@", "//", url)


class LocalFolder:
    """A folder of this machine, read in place."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shown = folder, str(folder)

    def read(self, file: str) -> bytes | None:
        try:
            return (self.folder / file).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def check(self, file: str, *, size: int, sha256: str) -> None:
        self.path(file, size=size, sha256=sha256)

    def path(self, file: str, *, size: int, sha256: str) -> Path:  # noqa: ARG002  (Folder's signature)
        path = self.folder / file
        actual = path.stat().st_size if path.is_file() else None
        if actual != size:
            got = "no such file" if actual is None else f"{actual}"
            raise ValueError(
                f"{path}: expected a tar of {size} bytes, got {got} (cut short, or replaced?); copy it again, or pack "
                f"it again with reidray prepare."
            )
        return path


class CachedFolder:
    """A folder behind a URL; files asked for by path are copied to the node."""

    def __init__(self, url: str, cache_dir: Path | None) -> None:
        self.shown = hide_login(url)
        self._url, self._cache = url.rstrip("/"), cache_dir

    def read(self, file: str) -> bytes | None:
        with self._errors(file):
            system, root = self._system()
            try:
                data: bytes = system.cat_file(f"{root}/{file}")
            except FileNotFoundError:
                return None
            return data

    def check(self, file: str, *, size: int, sha256: str) -> None:  # noqa: ARG002  (Folder's signature)
        if self._cache is None:
            raise ValueError(f"{self.shown}: expected a folder to copy remote shards to, got none; set data.cache_dir.")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError(f"{self.shown}/{file}: expected a sha256 of 64 digits, got {sha256!r}; pack it again.")

    def path(self, file: str, *, size: int, sha256: str) -> Path:
        self.check(file, size=size, sha256=sha256)
        assert self._cache is not None
        copy = self._cache / f"{sha256[:24]}-{file}"
        if _has_size(copy, size):
            return copy
        with self._errors(file):
            copy.parent.mkdir(parents=True, exist_ok=True)
            with _only_one(copy.with_name(f"{copy.name}.lock")):
                if not _has_size(copy, size):
                    self._copy(file, copy, size=size, sha256=sha256)
        return copy

    def _copy(self, file: str, copy: Path, *, size: int, sha256: str) -> None:
        system, root = self._system()
        partial = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}.partial")
        total, checksum = 0, hashlib.sha256()
        try:
            with system.open(f"{root}/{file}", "rb") as source, partial.open("xb") as target:
                while (chunk := source.read(_CHUNK)) and total <= size:
                    target.write(chunk)
                    checksum.update(chunk)
                    total += len(chunk)
            if total != size or checksum.hexdigest() != sha256:
                raise ValueError(
                    f"{self.shown}/{file}: expected {size} bytes with sha256 {sha256[:12]}.., got {total} bytes with "
                    f"{checksum.hexdigest()[:12]}..; upload it again, or pack it again with reidray prepare."
                )
            os.replace(partial, copy)  # noqa: PTH105
        finally:
            partial.unlink(missing_ok=True)

    def _system(self) -> tuple[Any, str]:
        import fsspec

        system, root = fsspec.url_to_fs(self._url)
        return system, str(root).rstrip("/")

    @contextlib.contextmanager
    def _errors(self, file: str) -> Iterator[None]:
        where = f"{self.shown}/{file}"
        try:
            yield
        except ImportError as error:
            raise ValueError(f"{where}: the package for this kind of URL is missing ({error}); install it.") from error
        except FileNotFoundError as error:
            raise ValueError(f"{where}: expected a file, found none; pack it again with reidray prepare.") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ValueError(f"{self._cache}: the disk is full while copying {where}; free some space.") from error
            raise ValueError(f"{where}: could not be read ({error}); check the address and the connection.") from error


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back
