"""What a reader leaves out: every file by name and reason, so that each one is accounted for."""

from __future__ import annotations

import re

FEW = 3  # files of one folder that may be left out without a caution

_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class LeftOut:
    """Collects names by reason while a data set is read."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Leaves out a file.

        Args:
          reason: the same short text for all files of a kind.
          name: relative to the root of the data.
        """
        self._names.setdefault(reason, []).append(shown(name))

    def names(self) -> dict[str, tuple[str, ...]]:
        """The names by reason, both in order."""
        return {reason: tuple(sorted(names)) for reason, names in sorted(self._names.items())}

    def counts(self) -> dict[str, int]:
        """How many files, by reason."""
        return {reason: len(names) for reason, names in sorted(self._names.items())}

    def __len__(self) -> int:
        return sum(len(names) for names in self._names.values())

    def cautions(self, reason: str, expected: str) -> tuple[str, ...]:
        """A sentence for each folder of which more than a few files are left out for this reason.

        Args:
          reason: as in `add`.
          expected: what was expected of them, for the sentence.
        """
        folders: dict[str, list[str]] = {}
        for name in sorted(self._names.get(reason, ())):
            folder, _, file = name.rpartition("/")
            folders.setdefault(folder, []).append(file)
        sentences = []
        for folder, files in folders.items():
            if len(files) > FEW:
                where = f"in {folder} " if folder else ""
                sentences.append(
                    f"caution: {len(files):,} files {where}are left out ({reason}), such as {', '.join(files[:3])}; "
                    f"expected {expected}"
                )
        if len(sentences) > 5:
            sentences[5:] = [f"caution: the same holds for {len(sentences) - 5:,} folders more (--list-skipped: all)"]
        return tuple(sentences)


def shown(name: str) -> str:
    """A name as it may be printed: what a terminal would obey, and what is no text, in escapes."""
    return _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), name)
