"""numba's `njit`, and where compiled kernels are kept between processes.

numba by itself keeps compiled code by the path of a source file, so that every copy of the package compiles again, as
each working directory of a Ray job is; and asks that file alone whether it has changed, not those of the functions
that were compiled into it. Here all kernels of the package have one folder, named after what they depend on:

    NUMBA_CACHE_DIR/...                            where that is set
    ~/.cache/reidray/kernels/<version>-numba-<version>-<processor>-<digest of the kernels' sources>
    __pycache__/kernels/... beside the code        where there is no home to write to
    nowhere                                        kernels are compiled in every process; `caution` says so

Several processes may use one folder: numba writes files whole. Folders that nothing has used for a month are removed
when a new one is made.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import numba
from llvmlite.binding import get_host_cpu_name
from numba.core import caching

from reidray.version import __version__

_PACKAGE = Path(__file__).resolve().parent
_KERNELS = (b"import njit", b"parallel_kernel")  # one of these is in every source file with kernels
_UNUSED_SECONDS = 30 * 86400
_config: Any = numba.config


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with options; cache=True keeps the compiled code where that is possible."""
    keep = options.pop("cache", False)

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        if keep and folder() is not None:
            dispatcher._cache = cast(Any, _Kept)(function)  # what enable_caching() does, with another place
        return dispatcher

    return compiled


def folder() -> Path | None:
    """Where compiled kernels are kept; None where they cannot be."""
    return _place()[0]


def caution() -> str | None:
    """A sentence for the user where compiled kernels cannot be kept; None where they can."""
    return _place()[1]


class _Locator(caching._CacheLocator):
    """The package's folder, for functions of the package."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._line = function.__code__.co_firstlineno
        self._module = function.__module__

    def get_cache_path(self) -> str:
        """A folder a module: file names have only the last part of its name."""
        place = folder()
        assert place is not None
        return str(place / self._module)

    def get_source_stamp(self) -> str:
        """The folder's name has it already."""
        return _digest()

    def get_disambiguator(self) -> str:
        """As numba's own."""
        return str(self._line)

    @classmethod
    def from_function(cls, function: Callable[..., Any], path: str) -> _Locator:  # noqa: ARG003
        """numba asks for a locator with these arguments."""
        return cls(function)


class _Files(caching.CompileResultCacheImpl):
    _locator_classes: list[type[object]] = [_Locator]  # noqa: RUF012 (numba's own is a list)


class _Kept(caching.FunctionCache):
    _impl_class = _Files


@cache
def _place() -> tuple[Path | None, str | None]:
    """The folder of the kernels, made; or None and why there is none."""
    named, home = _config.CACHE_DIR, _home()
    places = [Path(named)] if named else [*([home] if home else []), _PACKAGE / "__pycache__" / "kernels"]
    for base in places:
        if (place := _made(base)) is not None:
            return place, None
    if named:
        reason = f"NUMBA_CACHE_DIR={named} cannot be written"
    else:
        reason = f"neither {home or 'a home folder'} nor {_PACKAGE} can be written"
    return None, (
        f"compiled kernels cannot be kept ({reason}): every process compiles them anew, which takes a minute or more; "
        "set NUMBA_CACHE_DIR to a folder that you may write"
    )


def _home() -> Path | None:
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without an entry and without HOME
        return None
    return home / "reidray" / "kernels"


def _made(base: Path) -> Path | None:
    """The folder below a base, ready to be written; None where it cannot be."""
    place = base / f"{__version__}-numba-{numba.__version__}-{get_host_cpu_name()}-{_digest()}"
    try:
        if not place.is_dir():
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            _remove_unused(base)
        with tempfile.TemporaryFile(dir=place):
            os.utime(place)
            return place
    except OSError:
        return None


def _remove_unused(base: Path) -> None:
    for place in base.glob("*-numba-*"):
        with suppress(OSError):  # another process may have removed it meanwhile
            if time.time() - place.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(place, ignore_errors=True)


@cache
def _digest() -> str:
    """Of all source files with kernels, whose functions are compiled into each other."""
    found = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        data = path.read_bytes()
        if path == Path(__file__).resolve() or any(word in data for word in _KERNELS):
            found.update(f"{path.relative_to(_PACKAGE)} {len(data)}\n".encode())
            found.update(data)
    return found.hexdigest()[:16]
