"""numba's `njit`, and where compiled kernels are kept between processes.

numba keeps compiled code beside the file of a function, and stops at import with an error where it may not write. Here
the place is chosen once a process, before the first kernel:

    NUMBA_CACHE_DIR                                where it is set
    __pycache__ beside the code                    where this user may write there
    ~/.cache/reidray/numba/<version>-<machine>     for an installation that is read only
    nowhere                                        kernels are compiled in every process; `caution` says so

Several processes may use one place: numba writes files whole, and asks each for the processor it was compiled for.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from reidray.version import __version__

_PACKAGE = Path(__file__).resolve().parent
_config: Any = numba.config

_caution: str | None = None


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with options; cache=True keeps the compiled code where that is possible."""
    if options.get("cache") and _caution is not None:
        options["cache"] = False

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(**options)(function)
        except RuntimeError as error:
            if not options.get("cache") or "cannot cache" not in str(error):
                raise
            _give_up("NUMBA_CACHE_DIR cannot be written" if _config.CACHE_DIR else "its place cannot be written")
            return numba.njit(**{**options, "cache": False})(function)

    return compiled


def caution() -> str | None:
    """A sentence for the user where compiled kernels cannot be kept; None where they can."""
    return _caution


def _choose() -> None:
    """Sets numba's folder, or notes that there is none."""
    if _config.CACHE_DIR:
        if not _writable(Path(_config.CACHE_DIR)):
            _give_up(f"NUMBA_CACHE_DIR={_config.CACHE_DIR} cannot be written")
        return
    beside = _PACKAGE / "__pycache__"
    if os.access(beside if beside.is_dir() else _PACKAGE, os.W_OK):
        return
    try:
        place = Path.home() / ".cache" / "reidray" / "numba" / f"{__version__}-{platform.machine()}"
    except RuntimeError:  # a user without an entry and without HOME
        _give_up(f"neither {_PACKAGE} nor a home folder can be written")
        return
    if _writable(place):
        _config.CACHE_DIR = str(place)
    else:
        _give_up(f"neither {_PACKAGE} nor {place} can be written")


def _writable(place: Path) -> bool:
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


def _give_up(reason: str) -> None:
    global _caution
    _config.CACHE_DIR = ""
    _caution = (
        f"compiled kernels cannot be kept ({reason}): every process compiles them anew, which takes a minute or more; "
        "set NUMBA_CACHE_DIR to a folder that you may write"
    )


_choose()
