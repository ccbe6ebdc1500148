"""Writes drawn pedestrians to disk: pictures in the layout of Market-1501, or tracklets in that of DukeMTMC-VideoReID.

Attributes lie beside both, masks beside pictures.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .identity import attributes
from .picture import Picture, draw_picture, draw_stray
from .population import Population, population
from .settings import SPLITS, DrawnSettings, Purpose, stream

DRAWING = 1
"""raise this whenever the same settings give other bytes"""

FOLDERS = ("bounding_box_train", "query", "bounding_box_test", "validation_query", "validation_gallery")
TRACKLET_FOLDERS = ("train", "query", "gallery", "validation_query", "validation_gallery")
_QUERY = {"validation": "validation_query", "test": "query"}
_GALLERY = {"train": "bounding_box_train", "validation": "validation_gallery", "test": "bounding_box_test"}
_TRACKLETS = {"train": "train", "validation": "validation_gallery", "test": "gallery"}
_DONE, _BEGUN = "drawn.json", "drawn.partial.json"
_STRAY_SHARE = 0.02

Progress = Callable[[int, int], None]
_Task = tuple[str, tuple[tuple[str, int, int, int], ...]]
"""kind of task (a split, "distractor" or "junk") and its pictures: (folder, person or number, camera, picture)"""


def write_market1501(
    settings: DrawnSettings, root: Path, *, processes: int, progress: Progress | None = None
) -> dict[str, int]:
    """Draw a data set into `root`, unless a complete one of the same settings is there; an interrupted one is redone.

    Layout: bounding_box_train/, query/ and bounding_box_test/ as in Market-1501 (with a few distractors, person 0, and
    junk, person -1), validation_query/ and validation_gallery/ likewise, masks/<folder>/<stem>.png (values: see
    canvas.PART_NAMES), attributes.json, and drawn.json, written last: settings and counts of a complete data set.

    Args:
        settings: what to draw.
        root: the folder; made if missing.
        processes: 1 draws here, more start that many workers. The bytes written do not depend on it.
        progress: called with (pictures done, pictures in all).
    Returns: the number of pictures per folder.
    Raises: ValueError if `root` holds anything else.
    """
    return _write(settings, root, _tasks(settings), FOLDERS, processes=processes, progress=progress)


def write_tracklets(
    settings: DrawnSettings, root: Path, *, processes: int, progress: Progress | None = None
) -> dict[str, int]:
    """Draw tracklets into `root`: as `write_market1501`, in the layout of DukeMTMC-VideoReID.

    A camera's tracklets of a person are stretches of one walk. There are a few distractors, tracklets of one frame of
    person 0; no junk and no masks.

    Args:
        settings: what to draw; frames > 0.
    """
    return _write(settings, root, _tracklet_tasks(settings), TRACKLET_FOLDERS, processes=processes, progress=progress)


def _write(
    settings: DrawnSettings,
    root: Path,
    tasks: list[_Task],
    folders: tuple[str, ...],
    *,
    processes: int,
    progress: Progress | None,
) -> dict[str, int]:
    if processes < 1:
        raise ValueError(f"drawn pedestrians: expected processes to be 1 or more, got {processes}")
    root = Path(root)
    header = {"format": 1, "drawing": DRAWING, "settings": settings.written()}
    counts = _existing(root, header)
    if counts is not None:
        return counts
    _write_json(root / _BEGUN, header)
    for folder in folders:
        (root / folder).mkdir(exist_ok=True)
        if not settings.frames:
            (root / "masks" / folder).mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(folders, 0)
    for _, pictures in tasks:
        for folder, *_ in pictures:
            counts[folder.split("/")[0]] += 1
    done, total = 0, sum(counts.values())
    for drawn in _drawn(settings, root, tasks, processes):
        done += drawn
        if progress is not None:
            progress(done, total)
    _write_json(root / "attributes.json", _attributes(settings))
    _write_json(root / _DONE, {**header, "counts": counts})
    (root / _BEGUN).unlink(missing_ok=True)
    return counts


def _existing(root: Path, header: dict[str, Any]) -> dict[str, int] | None:
    """Counts of a complete data set of these settings; None where one may be drawn; ValueError otherwise."""
    if root.exists() and not root.is_dir():
        raise ValueError(f"drawn pedestrians: expected a folder, got the file {root}; give another folder")
    root.mkdir(parents=True, exist_ok=True)
    found = _read_json(root / _DONE)
    if found is not None:
        counts = found.pop("counts", {})
        if found != header:
            raise ValueError(
                f"drawn pedestrians: expected the settings asked for in {root / _DONE}, got others; give another folder"
            )
        for folder, count in counts.items():
            got = sum(1 for _ in (root / folder).rglob("*.jpg"))
            if got != count:
                raise ValueError(
                    f"drawn pedestrians: expected {count} pictures in {root / folder}, got {got}; give another folder"
                )
        return {folder: int(count) for folder, count in counts.items()}
    if any(not path.name.startswith(".") for path in root.iterdir()) and _read_json(root / _BEGUN) != header:
        raise ValueError(
            f"drawn pedestrians: expected {root} to be empty or drawn with these settings, got other files; "
            "give another folder"
        )
    return None


def _tasks(settings: DrawnSettings) -> list[_Task]:
    tasks: list[_Task] = []
    gallery = 0
    for split in SPLITS:
        people = population(settings, split)
        queries = _queries(settings, split, people)
        for person, camera, count in people.visits:
            folders = [_QUERY[split] if (person, camera, k) in queries else _GALLERY[split] for k in range(count)]
            gallery += folders.count("bounding_box_test")
            tasks.append((split, tuple((folder, person, camera, k) for k, folder in enumerate(folders))))
    strays = max(1, round(_STRAY_SHARE * gallery)) if gallery else 0
    for kind in ("distractor", "junk"):
        tasks.extend((kind, (("bounding_box_test", number, 0, 0),)) for number in range(strays))
    return tasks


def _tracklet_tasks(settings: DrawnSettings) -> list[_Task]:
    tasks: list[_Task] = []
    gallery = 0
    for code, split in enumerate(SPLITS):
        people = population(settings, split)
        queries = _queries(settings, split, people)
        for person, camera, count in people.visits:
            frames = []
            for number in range(count):
                top = _QUERY[split] if (person, camera, number) in queries else _TRACKLETS[split]
                gallery += top == "gallery"
                folder = f"{top}/{people.first + person:04d}/{camera + 1:02d}{number:02d}"
                rng = stream(settings.seed, Purpose.VISITS, code, person, camera, number)
                taken = int(rng.integers(max(settings.frames // 2, 1), settings.frames + 1))
                first = number * settings.frames
                frames += [(folder, person, camera, first + frame) for frame in range(taken)]
            tasks.append((split, tuple(frames)))
    strays = max(1, round(_STRAY_SHARE * gallery)) if gallery else 0
    tasks += [("distractor", ((f"gallery/0000/{number:04d}", number, 0, 0),)) for number in range(strays)]
    return tasks


def _queries(settings: DrawnSettings, split: str, people: Population) -> set[tuple[int, int, int]]:
    """One picture per person and camera, where the person has another camera and the camera another picture."""
    cameras = Counter(person for person, _, _ in people.visits)
    chosen = set()
    if split in _QUERY:
        for person, camera, count in people.visits:
            if cameras[person] > 1 and count > 1:
                rng = stream(settings.seed, Purpose.VISITS, SPLITS.index(split), person, camera)
                chosen.add((person, camera, int(rng.integers(count))))
    return chosen


def _drawn(settings: DrawnSettings, root: Path, tasks: list[_Task], processes: int) -> Iterator[int]:
    if processes == 1:
        yield from (_draw(settings, root, task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=_begin, initargs=(settings, root)) as pool:
        yield from pool.imap_unordered(_draw_here, tasks, chunksize=max(1, min(16, len(tasks) // (4 * processes))))


_here: tuple[DrawnSettings, Path] | None = None


def _begin(settings: DrawnSettings, root: Path) -> None:
    global _here
    _here = settings, root


def _draw_here(task: _Task) -> int:
    assert _here is not None
    return _draw(*_here, task)


def _draw(settings: DrawnSettings, root: Path, task: _Task) -> int:
    kind, pictures = task
    for folder, person, camera, number in pictures:
        if kind in SPLITS:
            picture = draw_picture(settings, kind, person, camera, number)
        else:
            picture = draw_stray(settings, kind, person)
        if settings.frames:
            _save_frame(root, folder, picture, number % settings.frames)
        else:
            _save(root, folder, picture)
    return len(pictures)


def _save_frame(root: Path, folder: str, picture: Picture, frame: int) -> None:
    person, camera, time, _ = picture.name.split("_")  # such as 0007_c2s1_000451_03.jpg
    name = f"{person}_{camera.split('s')[0].upper()}_F{frame + 1:04d}_X{time}.jpg"
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / name).write_bytes(picture.jpeg)


def _save(root: Path, folder: str, picture: Picture) -> None:
    (root / folder / picture.name).write_bytes(picture.jpeg)
    (root / "masks" / folder / picture.name).with_suffix(".png").write_bytes(picture.mask_png())


def _attributes(settings: DrawnSettings) -> dict[str, dict[str, object]]:
    told: dict[str, dict[str, object]] = {}
    for split in SPLITS:
        people = population(settings, split)
        for person, (identity, model) in enumerate(zip(people.identities, people.models, strict=True)):
            twin_of = None if model is None else f"{people.first + model:04d}"
            told[f"{people.first + person:04d}"] = {"split": split, "twin_of": twin_of, **attributes(identity)}
    return told


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise ValueError(
            f"drawn pedestrians: expected a JSON object in {path}, got something else; give another folder"
        ) from None


def _write_json(path: Path, content: object) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)
