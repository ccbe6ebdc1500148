"""Numbers of things in sentences: 1 image, 4,317 images."""

from __future__ import annotations


def counted(number: int, what: str, several: str | None = None) -> str:
    """A number and what it counts.

    Args:
      number: how many.
      what: the word for one.
      several: the word for several; None: with an s.
    """
    return f"{number:,} {what if number == 1 else several or what + 's'}"
