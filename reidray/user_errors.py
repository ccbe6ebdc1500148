"""What a person can put right ends in one sentence on stderr and a status, without a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from reidray.disk import DISK_ERRORS


@contextmanager
def user_errors() -> Iterator[None]:
    """Around a job's main(), as a `with` block or a decorator: turns what a person can put right into one sentence.

    A ValueError, and an OSError about a file, a permission or a full disk, print `error: <sentence>` on stderr and
    exit with status 2; an error that an actor raised on another machine is treated as the error it carries. Every other
    exception passes. REIDRAY_TRACEBACK=1 prints the traceback as well. Ctrl-C ends with status 130 and a word.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of a pipe left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        cause = getattr(error, "cause", None)  # Ray's RayTaskError
        told = cause if isinstance(cause, Exception) else error
        if not _for_people(told):
            raise
        if os.environ.get("REIDRAY_TRACEBACK") == "1":
            traceback.print_exc(file=sys.stderr)
        elif told is error and not _raised_by_us(error):
            print("(REIDRAY_TRACEBACK=1 shows where this came from)", file=sys.stderr)
        print(f"error: {_sentence(told)}", file=sys.stderr)
        raise SystemExit(2) from None


def _for_people(error: Exception) -> bool:
    files = (FileNotFoundError, PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)
    return isinstance(error, (ValueError, *files)) or (isinstance(error, OSError) and error.errno in DISK_ERRORS)


def _raised_by_us(error: Exception) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    last = frames[-1] if frames else None
    name = str(last.f_globals.get("__name__", "")) if last else ""
    return isinstance(error, OSError) or name == "__main__" or name.split(".")[0] in ("reidray", "jobs")


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        told = error.strerror  # of the system, or a sentence of ours with paths in it
        told = told.lower() if error.errno is not None and told == os.strerror(error.errno) else told
        return ": ".join(str(part) for part in (error.filename, told) if part is not None)
    return " ".join(str(error).split()) or type(error).__name__
