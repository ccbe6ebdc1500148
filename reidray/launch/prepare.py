"""From settings to packed shards: draw or read the data set, pack it once, use it again while nothing has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from reidray import events
from reidray.config import Settings
from reidray.counted import counted
from reidray.data.image_files import in_words
from reidray.data.records import Dataset
from reidray.events import message
from reidray.launch.data_sets import (
    Report,
    data_root,
    made_with,
    numbers_in_words,
    packed_as,
    packed_place,
    read_dataset,
    with_data_set,
    with_places,
    with_unspoken,
)
from reidray.storage.cache import hide_login, open_folder
from reidray.storage.pack import pack
from reidray.storage.source import changes, source_of

__all__ = ["IfChanged", "packed_in", "packed_place", "prepared", "with_places"]

IfChanged = Literal["pack", "use"]
"""What is done where the images of a pack have changed: packed anew, or the old ones used"""


class _OtherPackError(ValueError):
    """A pack of other images, or of other settings."""


_WHERE_ABSENT = {"camera_from": "none", "pattern": None}  # of a pack that knows nothing of these settings


def prepared(
    settings: Settings, report: Report, *, processes: int, if_changed: IfChanged = "pack", beside: bool = False
) -> str:
    """Draw what is to be drawn and pack what is not packed; the place of the packed shards.

    A pack that lies there already is compared with the images that data.root has now, by names, sizes and times.

    Args:
      settings: the run's, with absolute paths.
      report: where progress goes.
      processes: that draw pedestrians.
      if_changed: "pack" replaces the old pack by a new one, once that is whole; "use" is for runs that go on or are
        evaluated, which need the images they began with.
      beside: nobody asked for this place. A pack that does not fit then stays for the runs that were made with it, and
        another one is made beside it: crops-packed-2, crops-packed-3.

    Raises:
      ValueError: there is nothing to pack, something else is in the way, or a pack does not fit the settings.
    """
    settings = with_unspoken(settings)
    place, number, dataset = packed_place(settings), 1, None
    base = place
    while (data := open_folder(place, None).read("dataset.json")) is not None:
        try:
            dataset = _changed(settings, place, json.loads(data), report, processes, if_changed, beside=beside)
        except _OtherPackError as error:
            if not beside:
                raise
            report(message(f"{str(error).partition(': give')[0]}: it stays for the runs that were made with it"))
        else:
            if dataset is None:
                return place
            if not beside:
                break
        number += 1
        place = f"{base}-{number}"
    if data is None and ("://" in place or (settings.data.dataset != "drawn" and settings.data.root is None)):
        raise ValueError(
            f"data.packed={hide_login(place)} has no dataset.json: pack into a local folder with reidray prepare "
            "data.root=DIR, and copy that there"
        )
    settings = with_data_set(settings, report) if dataset is None else _as(settings, dataset.name)
    if dataset is None:
        dataset = read_dataset(settings, report, processes=processes)
    if data is None:
        report(message(f"packing into {place} (data.packed=DIR packs elsewhere)"))
    _pack(settings, dataset, place, report)
    return place


def packed_in(settings: Settings, place: str) -> Settings:
    """The same settings with the place of the shards."""
    return settings.model_copy(update={"data": settings.data.model_copy(update={"packed": place})})


def _pack(settings: Settings, dataset: Dataset, place: str, report: Report) -> None:
    data = settings.data
    total = sum(len(split.images) for split in dataset.splits.values())
    done_before: dict[str, int] = {}

    def packing(split: str, done: int, count: int) -> None:  # noqa: ARG001
        done_before[split] = done
        report(events.stage("pack", done=sum(done_before.values()), total=total))

    written = pack(
        dataset,
        Path(place),
        images_per_shard=data.images_per_shard,
        max_pixels=int(data.max_megapixels * 1e6),
        max_bytes=int(data.max_image_mb * 1e6),
        progress=packing,
        made_with=made_with(settings),
        source=None if data.dataset == "drawn" else source_of(dataset),
    )
    for sentence in _sentences(dataset, written):
        report(message(sentence))


def _as(settings: Settings, name: str) -> Settings:
    return settings.model_copy(update={"data": settings.data.model_copy(update={"dataset": name})})


def _changed(
    settings: Settings,
    place: str,
    described: Mapping[str, Any],
    report: Report,
    processes: int,
    if_changed: IfChanged,
    *,
    beside: bool,
) -> Dataset | None:
    """What is to be packed anew in the place of an earlier pack; None where that is used.

    Shards that were packed earlier must be what these settings would pack; with "auto", whatever was packed.
    """
    if settings.data.dataset == "auto":
        name = packed_as(described)
        report(message(f"data.dataset=auto: {hide_login(place)} was packed as {name}"))
        if name == "drawn" or described.get("made_with") is None:
            return None
        settings = _as(settings, name)
    _check_settings(settings, place, described)
    if "://" in place or settings.data.root is None or settings.data.dataset == "drawn":
        return None
    root = data_root(settings)
    if not root.exists():
        report(message(f"data.root={root} is not there: {place} is used as it was packed"))
        return None
    if "files" not in described:
        report(message(f"{place} does not tell which files it was packed from: it is used as it is"))
        return None
    try:
        dataset = read_dataset(settings, report, processes=processes)
    except ValueError as error:
        if if_changed != "use":
            raise
        report(message(f"caution: {place} is used as it was packed, {root} cannot be read any more: {error}"))
        return None
    found = changes(Path(place), described, source_of(dataset))
    if not found:
        return None
    before = Path(described["source"])
    if before != dataset.root:
        raise _OtherPackError(
            f"{place} was packed from {before}, and data.root={root} has other images ({found.in_words()}): give "
            "another data.packed=DIR for these"
        )
    if if_changed == "use":
        text = f"caution: {root} has changed since it was packed ({found.in_words()}): {place} is used as it was packed"
        report(message(text))
        return None
    then = f"{place} stays for the runs that were made with it" if beside else f"packing anew into {place}"
    report(message(f"{root} has changed since it was packed ({found.in_words()}): {then}"))
    return dataset


def _check_settings(settings: Settings, place: str, described: Mapping[str, Any]) -> None:
    made, wanted = described.get("made_with"), made_with(settings)
    if made is None:
        return
    if "max_image_mb" not in made:  # a pack of an older version does not tell
        wanted.pop("max_image_mb")
    made = {**{name: value for name, value in _WHERE_ABSENT.items() if name in wanted}, **made}
    odd = next((name for name in sorted({*made, *wanted}) if made.get(name) != wanted.get(name)), None)
    if odd is not None:
        raise _OtherPackError(
            f"{hide_login(place)} was packed with data.{odd}={made.get(odd)}, and the settings say {wanted.get(odd)}: "
            f"give another data.packed=DIR to pack anew, or data.{odd} as it was"
        )


def _sentences(dataset: Dataset, written: Mapping[str, Any]) -> list[str]:
    """What was read, what was left out and what was skipped, for the log."""
    packed = ", ".join(f"{name} {count:,}" for name, count in written["splits"].items())
    unit = next(iter(dataset.splits.values())).unit
    sentences = [f"{dataset.name}: {numbers_in_words(dataset)}", f"packed {unit}s: {packed}", *dataset.notes]
    for reason, count in dataset.ignored.items():
        names = dataset.left_out.get(reason)
        sentences.append(f"left out {count:,}: {reason}" + (f" (such as {in_words(names)})" if names else ""))
    for reason, entry in written.get("skipped", {}).items():
        sentences.append(f"skipped {entry['count']:,}: {reason} (such as {in_words(entry['examples'])})")
    several = written["of_several_frames"]
    if several["count"]:
        names = in_words(several["examples"])
        sentences.append(
            f"{counted(several['count'], 'image has', 'images have')} several frames or pages: the first counts "
            f"(such as {names})"
        )
    return sentences
