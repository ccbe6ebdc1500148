"""The folders that a data set must have, and what to say where they are missing."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path


def expect_folders(root: Path, folders: Collection[str], advice: str = "check data.root") -> None:
    """Sees that a root has some folders.

    Args:
      root: of the data set.
      folders: their names.
      advice: what to do where no folder in the root has them either.

    Raises:
      ValueError: the root is missing, is a file, or lacks a folder.
    """
    expected = ", ".join(folders)
    if not root.exists():
        raise ValueError(f"{root}: expected a folder with {expected}, but nothing is there; check data.root.")
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder with {expected}, got a file; unpack it or check data.root.")
    missing = [folder for folder in folders if not (root / folder).is_dir()]
    if missing:
        inner = sorted(path for path in root.iterdir() if all((path / name).is_dir() for name in folders))
        hint = f"did you mean {inner[0]}?" if inner else f"{advice}."
        raise ValueError(f"{root}: expected the folders {expected}, but found no {', '.join(missing)}; {hint}")
