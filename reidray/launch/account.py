"""What would be read and packed, in words, before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from reidray.config import Settings
from reidray.counted import counted
from reidray.data import cuhk03_release
from reidray.data.image_files import in_words
from reidray.data.left_out import shown
from reidray.data.records import Dataset, Split
from reidray.launch.data_sets import (
    data_root,
    numbers_in_words,
    packed_place,
    read_dataset,
    with_data_set,
    with_unspoken,
)
from reidray.storage.cache import hide_login, open_folder

_MOST_CAMERAS = 32


def account(settings: Settings) -> tuple[list[str], Dataset | None]:
    """What the settings would read: splits, persons, cameras, how names are understood, and what is left out.

    Nothing is written, and no image is opened: those that are damaged or too large are found by packing.

    Args:
      settings: with absolute paths.

    Returns:
      Lines to print, and the data set; None where it would have to be drawn or written first.

    Raises:
      ValueError: what packing would say of the folder.
    """
    lines: list[str] = []
    settings = with_unspoken(settings)
    if settings.data.dataset != "drawn" and settings.data.root is None:
        place = hide_login(packed_place(settings))
        raise ValueError(
            f"data.packed={place} is given without data.root: there is nothing to read but the pack itself"
        )

    def report(event: Mapping[str, Any]) -> None:
        if event["kind"] == "message":
            lines.append(str(event["text"]))

    settings = with_data_set(settings, report)
    root, data = data_root(settings), settings.data
    if data.dataset == "drawn" and not (root / "drawn.json").is_file():
        return [*lines, f"drawn pedestrians (data.drawn) would be drawn into {root} first"], None
    crops = root / f"images_{data.cuhk03_boxes}"
    if (
        data.dataset == "cuhk03"
        and cuhk03_release.config_file(root, data.cuhk03_boxes).is_file()
        and not crops.is_dir()
    ):
        return [*lines, f"CUHK03's crops would be written into {crops} first"], None
    dataset = read_dataset(settings, report, processes=1)
    lines += _lines(dataset)
    place = packed_place(settings)
    packed = open_folder(place, None).read("dataset.json") is not None
    lines.append(f"there is a pack in {place} already" if packed else f"it would be packed into {place}")
    return lines, dataset


def left_out(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Every file that a reader left out, name and reason, in the order of the names."""
    yield from sorted((name, reason) for reason, names in dataset.left_out.items() for name in names)


def _lines(dataset: Dataset) -> Iterator[str]:
    yield f"{dataset.name} in {dataset.root}: {numbers_in_words(dataset)}"
    for name, split in dataset.splits.items():
        yield from _of_split(dataset, name, split)
    yield from dataset.notes
    for reason, count in dataset.ignored.items():
        names = dataset.left_out.get(reason)
        yield f"left out {count:,}: {reason}" + (f" (such as {in_words(names)})" if names else "")
    if not dataset.ignored:
        yield "no file is left out"
    if not {"query", "gallery"} <= dataset.splits.keys():
        yield "without query and gallery it can be trained on, and not be evaluated"


def _of_split(dataset: Dataset, name: str, split: Split) -> Iterator[str]:
    persons = "persons unknown" if split.persons is None else counted(len(set(split.persons) - {0}), "person")
    cameras = Counter(split.cameras)
    known = len(cameras.keys() - {-1})
    of = counted(known, "camera") if known else "cameras unknown"
    yield f"{name}: {counted(len(split), split.unit)}, {persons}, {of}"
    if known:
        numbers = sorted(cameras)
        each = [f"{_camera(dataset, number)} {cameras[number]:,}" for number in numbers[:_MOST_CAMERAS]]
        more = f" and {len(numbers) - _MOST_CAMERAS:,} more" if len(numbers) > _MOST_CAMERAS else ""
        yield f"    {split.unit}s of each camera: {', '.join(each)}{more}"
    samples = split.images if split.tracklets is None else split.tracklets
    for place in dict.fromkeys((0, len(samples) // 2, len(samples) - 1)):
        sample = samples[place]
        told = [] if split.persons is None else [_person(dataset, split.persons[place])]
        told += [f"camera {_camera(dataset, sample.camera)}"] if sample.camera >= 0 else []
        frames = "" if split.tracklets is None else f" ({split.tracklets[place].frames} frames)"
        yield f"    {shown(sample.name)}{frames} -> {', '.join(told) or 'nothing but the image'}"


def _camera(dataset: Dataset, number: int) -> str:
    if number < 0:
        return "unknown"
    return shown(dataset.camera_names[number]) if dataset.camera_names else str(number + 1)


def _person(dataset: Dataset, number: int) -> str:
    if number == 0:
        return "a distractor"
    return f"person {shown(dataset.person_names[number - 1]) if dataset.person_names else number}"
