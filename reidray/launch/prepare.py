"""From settings to packed shards: draw or read the data set, pack it once, use it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reidray import events
from reidray.config import Settings
from reidray.data import cuhk03, dukemtmc, dukemtmc_video, folder, market1501, mars, msmt17, veri776
from reidray.data.detect import detect
from reidray.data.drawn import DrawnSettings, write_market1501, write_tracklets
from reidray.data.image_files import in_words
from reidray.data.records import Dataset, counts
from reidray.events import message
from reidray.storage.cache import hide_login, open_folder
from reidray.storage.pack import pack

Report = Callable[[Mapping[str, Any]], None]


def data_root(settings: Settings) -> Path:
    """Where the images are; drawn ones go to data/drawn-<hash of what is drawn> unless data.root says otherwise."""
    if settings.data.root is not None:
        return Path(settings.data.root)
    drawn = _drawn(settings)
    drawn.pop("seed")
    what = json.dumps([settings.data.seed, drawn])
    return Path.cwd() / "data" / f"drawn-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


def packed_place(settings: Settings) -> str:
    """Folder or URL of the packed shards: data.packed, else beside the images."""
    if settings.data.packed is not None:
        return settings.data.packed
    root = data_root(settings)
    return str(root.with_name(f"{root.name}-packed"))


def prepared(settings: Settings, report: Report, *, processes: int) -> str:
    """Draw what is to be drawn and pack what is not packed; the place of the packed shards.

    Args:
      settings: the run's, with absolute paths.
      report: where progress goes.
      processes: that draw pedestrians.

    Raises:
      ValueError: there is nothing to pack, or something else is in the way.
    """
    place = packed_place(settings)
    described = open_folder(place, None).read("dataset.json")
    if described is not None:
        _check_packed(settings, place, json.loads(described), report)
        return place
    if "://" in place or (settings.data.dataset != "drawn" and settings.data.root is None):
        raise ValueError(
            f"data.packed={hide_login(place)} has no dataset.json: pack into a local folder with jobs/prepare.py "
            "data.root=DIR, and copy that there"
        )
    settings = _with_data_set(settings, report)
    dataset = read_dataset(settings, report, processes=processes)
    data = settings.data
    total = sum(len(split.images) for split in dataset.splits.values())
    done_before: dict[str, int] = {}

    def packing(split: str, done: int, count: int) -> None:  # noqa: ARG001
        done_before[split] = done
        _stage(report, "pack", sum(done_before.values()), total)

    written = pack(
        dataset,
        Path(place),
        images_per_shard=data.images_per_shard,
        max_pixels=int(data.max_megapixels * 1e6),
        max_bytes=int(data.max_image_mb * 1e6),
        progress=packing,
        made_with=_made_with(settings),
    )
    for sentence in _sentences(dataset, written):
        report(message(sentence))
    return place


def read_dataset(settings: Settings, report: Report, *, processes: int) -> Dataset:
    """The data set that the settings name, drawn first if it is a drawn one."""
    root, data = data_root(settings), settings.data
    if data.dataset == "drawn":
        write = write_tracklets if data.drawn.frames else write_market1501
        drawn = DrawnSettings(seed=data.seed, **data.drawn.model_dump())
        write(drawn, root, processes=processes, progress=lambda done, total: _stage(report, "draw", done, total))
    readers: dict[str, Callable[[], Dataset]] = {
        "drawn": lambda: (dukemtmc_video if data.drawn.frames else market1501).read(root),
        "market1501": lambda: market1501.read(root),
        "msmt17": lambda: msmt17.read(root, validation=data.msmt17_validation),
        "dukemtmc": lambda: dukemtmc.read(root),
        "cuhk03": lambda: cuhk03.read(root, data.cuhk03_boxes),
        "veri776": lambda: veri776.read(root),
        "mars": lambda: mars.read(root, queries_in_gallery=data.mars_gallery == "all"),
        "dukemtmc_video": lambda: dukemtmc_video.read(root),
        "folder": lambda: folder.read(root),
    }
    return readers[data.dataset]()


def _with_data_set(settings: Settings, report: Report) -> Settings:
    """The same settings with the name of the data set in the place of "auto"."""
    if settings.data.dataset != "auto":
        return settings
    root = data_root(settings)
    name, why = detect(root)
    report(message(f"data.dataset=auto: {root} is read as {name}: {why}"))
    return settings.model_copy(update={"data": settings.data.model_copy(update={"dataset": name})})


def with_places(settings: Settings) -> Settings:
    """The same settings with data.root and data.packed written out, so that a run folder says where its data lie."""
    root = settings.data.root
    if settings.data.dataset == "drawn" and root is None:
        root = str(data_root(settings))
    places = {"root": root, "packed": packed_place(settings)}
    return settings.model_copy(update={"data": settings.data.model_copy(update=places)})


def _made_with(settings: Settings) -> dict[str, Any]:
    """The settings that decide what lies in the shards."""
    data = settings.data
    made: dict[str, Any] = {name: getattr(data, name) for name in ("dataset", "images_per_shard", "max_megapixels")}
    if data.dataset == "msmt17":
        made["msmt17_validation"] = data.msmt17_validation
    if data.dataset == "cuhk03":
        made["cuhk03_boxes"] = data.cuhk03_boxes
    if data.dataset == "mars":
        made["mars_gallery"] = data.mars_gallery
    if data.dataset == "drawn":
        made["drawn"] = _drawn(settings)
    return made


def _drawn(settings: Settings) -> dict[str, Any]:
    """What is drawn, as it stands beside what was drawn."""
    return DrawnSettings(seed=settings.data.seed, **settings.data.drawn.model_dump()).written()


def _check_packed(settings: Settings, place: str, described: dict[str, Any], report: Report) -> None:
    """Shards that were packed earlier must be what these settings would pack; with "auto", whatever was packed."""
    made, wanted = described.get("made_with"), _made_with(settings)
    if settings.data.dataset == "auto":
        name = (made or {}).get("dataset", described.get("name"))
        report(message(f"data.dataset=auto: {hide_login(place)} was packed as {name}"))
        return
    if made is not None and made != wanted:
        odd = next(name for name in sorted({*made, *wanted}) if made.get(name) != wanted.get(name))
        raise ValueError(
            f"{hide_login(place)} was packed with data.{odd}={made.get(odd)}, and the settings say {wanted.get(odd)}: "
            "remove it to pack anew, or give another data.packed"
        )


def _sentences(dataset: Dataset, written: Mapping[str, Any]) -> list[str]:
    """What was read, what was ignored and what was skipped, for the log."""
    found = ", ".join(f"{count:,} {what}" for what, count in counts(dataset).items())
    packed = ", ".join(f"{name} {count:,}" for name, count in written["splits"].items())
    unit = next(iter(dataset.splits.values())).unit
    sentences = [f"{dataset.name}: {found}", f"packed {unit}s: {packed}"]
    sentences += dataset.notes
    for reason, count in dataset.ignored.items():
        names = dataset.left_out.get(reason)
        sentences.append(f"left out {count:,}: {reason}" + (f" (such as {in_words(names)})" if names else ""))
    for reason, entry in written.get("skipped", {}).items():
        sentences.append(f"skipped {entry['count']:,}: {reason} (such as {in_words(entry['examples'])})")
    several = written.get("of_several_frames", {"count": 0})
    if several["count"]:
        names = in_words(several["examples"])
        sentences.append(
            f"{several['count']:,} images have several frames or pages: the first counts (such as {names})"
        )
    return sentences


def _stage(report: Report, stage: str, done: int, total: int) -> None:
    report(events.stage(stage, done=done, total=total))
