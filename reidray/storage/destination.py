"""The folder that a pack goes to: nothing foreign is replaced, and a pack is there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from reidray.storage import index as indexing

DATASET, LEFT_OUT, SOURCE = "dataset.json", "left_out.parquet", "source.parquet"


def check_destination(out: Path) -> None:
    """Raises ValueError where something is in the way that is no earlier pack."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out}: expected a folder to pack into, got a file; choose another place for data.packed.")
    entries = sorted(entry.name for entry in out.iterdir())
    if not entries:
        return
    foreign = [
        name
        for name in entries
        if name not in (DATASET, LEFT_OUT, SOURCE) and not (out / name / indexing.SPLIT).is_file()
    ]
    if foreign or DATASET not in entries:
        raise ValueError(
            f"{out}: expected an empty folder or an earlier pack, got a folder with {(foreign or entries)[0]}; choose "
            f"another place for data.packed."
        )


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name at the end, or vanishes."""
    partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            old = out.with_name(f"{partial.name}.old")
            os.replace(out, old)  # noqa: PTH105
            try:
                os.replace(partial, out)  # noqa: PTH105
            except OSError:
                os.replace(old, out)  # noqa: PTH105
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(partial, out)  # noqa: PTH105
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ValueError(f"{out}: the disk is full while packing; free some space and pack again.") from error
        raise ValueError(
            f"{out}: could not be written ({error}); check the place and its rights, or give another data.packed."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
