"""What paths tell: the folders of splits, what a pattern reads, and the camera (data.camera_from)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from reidray.data.named_samples import plain
from reidray.data.path_pattern import PathPattern, compiled

SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "bounding_box_train", "image_train"), "train"),
    **dict.fromkeys(("query", "image_query"), "query"),
    **dict.fromkeys(("gallery", "bounding_box_test", "image_test"), "gallery"),
    "validation_query": "validation_query",
    "validation_gallery": "validation_gallery",
}

KINDS = ("none", "folder", "name", "pattern")

_CAMERA = re.compile(r"(?<![A-Za-z0-9])c(?:am(?:era)?)?[-_ ]?(\d{1,9})", re.IGNORECASE | re.ASCII)
_EXPECTED = {"folder": "folders of cameras with images", "name": "names with c<number>"}


@dataclass(frozen=True)
class CameraFrom:
    """What tells the camera in a path.

    Attributes:
      kind: "none"; "folder", the first folder; "name", c<number> in the file's name; "pattern".
      pattern: as data.pattern. One that tells cameras does so with "none" as well.

    Raises:
      ValueError: another kind, or no pattern with {camera} where one is needed.
    """

    kind: str = "none"
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"expected cameras from {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind == "pattern" and (self.form is None or "camera" not in self.form.fields):
            got = "none" if self.pattern is None else self.pattern
            raise ValueError(
                f"cameras from a pattern need one with {{camera}}, such as {{camera}}/{{person}}/{{}}, got {got}"
            )

    @cached_property
    def form(self) -> PathPattern | None:
        """The pattern, compiled."""
        return None if self.pattern is None else compiled(self.pattern)

    @property
    def tells(self) -> bool:
        """Whether anything is to tell cameras."""
        return self.kind != "none" or (self.form is not None and "camera" in self.form.fields)

    @property
    def expected(self) -> str:
        """What paths should have, in words."""
        return _EXPECTED.get(self.kind, f"paths like {self.pattern}")

    def splits(self, names: Sequence[str]) -> dict[str, str]:
        """The folders of splits by name, where the pattern tells persons and there are such folders; else none."""
        return {} if self.form is None or "person" not in self.form.fields else splits_of(names)

    def read(self, name: str, below: str) -> Mapping[str, str | None] | None:
        """What a path tells: "person", "camera" and "tracklet", where they are told. None: it does not fit the pattern.

        Args:
          name: the path, with "/" between folders.
          below: the same without the folder of its split.
        """
        told: dict[str, str | None] = {}
        if self.form is not None:
            found = self.form.match(below)
            if (
                found is None and below != name
            ):  # a pattern may begin with the folder of the split, saying nothing of it
                found = self.form.match(name, after=len(name) - len(below))
            if found is None:
                return None
            told |= found
        if self.kind == "folder":
            told["camera"] = below.partition("/")[0] if "/" in below else None
        elif self.kind == "name":
            number = _CAMERA.search(below.rpartition("/")[2])
            told["camera"] = None if number is None else number[1]
        return told

    def cameras(self, names: Sequence[str]) -> list[str | None]:
        """The camera of each path below one folder, None where nothing tells it; digits alone are a number: 08 is 8."""
        splits = self.splits(names)
        found = []
        for name in names:
            top, _, inner = name.partition("/")
            told = self.read(name, inner if inner and top in splits else name)
            camera = None if told is None else told.get("camera")
            found.append(None if camera is None else plain(camera))
        return found


def splits_of(names: Sequence[str]) -> dict[str, str]:
    """The folders of splits by name, where there are those of query and gallery; else none."""
    tops = dict.fromkeys(name.partition("/")[0] for name in names if "/" in name)
    found = {top: SPLIT_FOLDERS[top] for top in tops if top in SPLIT_FOLDERS}
    if "gallery" not in found.values() and "test" in tops:
        found["test"] = "gallery"
    whole = {"query", "gallery"} <= set(found.values()) and len(set(found.values())) == len(found)
    return found if whole else {}
