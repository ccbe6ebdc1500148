"""Any folder of crops, searched recursively; paths may tell cameras, persons and tracklets.

root/a.jpg, root/2024/may/b.png                      images, no more
root/door1/a.jpg, root/door2/...                     camera_from="folder": the first folder is the camera
root/0001_c1_a.jpg                                   camera_from="name": c<number> in the file's name
root/train/cam01/person01/..., root/query/..., root/gallery/...
                                                     pattern="{camera}/{person}/{}", below the folders of splits
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from reidray.counted import counted
from reidray.data.camera_from import SPLIT_FOLDERS, CameraFrom, splits_of
from reidray.data.image_files import EXTENSIONS, in_words, walk
from reidray.data.left_out import LeftOut, shown
from reidray.data.named_samples import Row, data_set, natural
from reidray.data.records import Dataset

UNFIT = "path does not fit data.pattern"
_OUTSIDE = "outside of the folders of the splits"

_MANY_FOLDERS = 64
_OF_TESTS = ("query", "gallery", "test", "val", "bounding_box_test")
_LISTS = (".csv", ".tsv", ".parquet")


def read(
    root: str | os.PathLike[str], *, camera_from: str = "none", pattern: str | None = None, option: str = "data.root"
) -> Dataset:
    """Lists the image files under a folder; no image is opened.

    Hidden files and folders (a leading dot), links to folders, and files that are no images are counted by reason.

    Args:
      root: the folder to search, at any depth.
      camera_from: "none"; "folder", the first folder below the root (or below that of a split); "name", c<number> in
        the file's name; "pattern". A pattern that tells cameras does so with "none" as well.
      pattern: how paths are to be read, see reidray.data.path_pattern. Where it tells persons and the root has folders
        of query and gallery, these are the splits, and the pattern is of paths below them (or of whole ones).
      option: by which the root was given, for sentences about it.

    Returns:
      One split, "train", with cameras -1 and persons None where nothing tells them; or the splits of their folders.

    Raises:
      ValueError: there is no such folder, it holds no image, or nothing in it is named as camera_from and pattern say.
    """
    root = Path(root)
    if not root.exists():
        raise ValueError(f"{root}: expected a folder of images, but nothing is there; check {option}.")
    if not root.is_dir():
        advice = "give a list of images as data.dataset=list" if root.suffix in _LISTS else f"check {option}"
        raise ValueError(f"{root}: expected a folder of images, got a file; {advice}.")
    left_out = LeftOut()
    names = sorted(walk(root, left_out))
    if not names:
        others = [name for found in left_out.names().values() for name in found]
        such = f" (such as {in_words(others)})" if others else ""
        raise ValueError(
            f"{root}: expected images ({', '.join(EXTENSIONS)}) at any depth, got {len(left_out)} other files{such}; "
            f"check {option}."
        )
    source = CameraFrom(camera_from, pattern)
    rows = _rows(root, names, source, left_out)
    notes = list(left_out.cautions(_OUTSIDE, f"folders called {in_words(tuple(SPLIT_FOLDERS), 20)}"))
    if pattern is not None:
        notes += left_out.cautions(UNFIT, f"paths like data.pattern={pattern}")
    if source.form is None or "person" not in source.form.fields:
        notes += _about_folders(names, camera_from if pattern is None else "pattern")
    return data_set("folder", root, rows, left_out, notes)


def _rows(root: Path, names: Sequence[str], source: CameraFrom, left_out: LeftOut) -> list[Row]:
    splits = source.splits(names)
    rows = []
    for name in names:
        split, below = "train", name
        if splits:
            top, _, inner = name.partition("/")
            if top not in splits or not inner:
                left_out.add(_OUTSIDE, name)
                continue
            split, below = splits[top], inner
        told = source.read(name, below)
        if told is None:
            left_out.add(UNFIT, name)
            continue
        rows.append(Row(root / name, name, split, told.get("person"), told.get("camera"), told.get("tracklet")))
    if not rows:
        raise ValueError(
            f"{root}: expected images whose paths fit data.pattern={source.pattern}, got {len(names):,} and none that "
            f"does (such as {in_words([shown(name) for name in names])}); data.pattern='{{camera}}/{{person}}/{{}}' "
            "reads cam01/person01/a.jpg"
        )
    if source.kind in ("folder", "name") and all(row.camera is None for row in rows):
        raise ValueError(
            f"{root}: data.camera_from={source.kind} expects {source.expected}, got {counted(len(rows), 'image')} and "
            f"none of them so (such as {in_words([shown(row.name) for row in rows])}); set data.camera_from=none, or "
            "give data.pattern"
        )
    return rows


def _about_folders(names: Sequence[str], camera_from: str) -> list[str]:
    """Hints where folders look like splits or, unless something tells the cameras, like cameras."""
    if splits := splits_of(names):
        return [
            f"caution: the images in {', '.join(splits)} are all trained on, since nothing tells persons; to evaluate, "
            "say with data.pattern how paths tell them, for example data.pattern='{camera}/{person}/{}'"
        ]
    if camera_from != "none":
        return []
    tops = sorted({name.partition("/")[0] for name in names if "/" in name}, key=natural)
    tests = [top for top in tops if top.lower() in _OF_TESTS]
    if tests:
        shown_tests = in_words([shown(top) for top in tests])
        return [
            f"caution: the images in {shown_tests} are trained on as well; a test split must be called query "
            "and gallery (small letters), with data.pattern for its persons"
        ]
    if not 2 <= len(tops) <= _MANY_FOLDERS or any("/" not in name for name in names):
        return []
    folders = in_words([shown(top) for top in tops])
    return [f"the images lie in {len(tops)} folders ({folders}): where these are cameras, set data.camera_from=folder"]
