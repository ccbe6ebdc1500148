"""Which data set the settings mean, where it lies, and its reader."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reidray import events
from reidray.config import Settings
from reidray.data import cuhk03, dukemtmc, dukemtmc_video, folder, image_list, market1501, mars, msmt17, veri776
from reidray.data.detect import detect
from reidray.data.drawn import DrawnSettings, write_market1501, write_tracklets
from reidray.data.records import Dataset, counts
from reidray.events import message
from reidray.storage.cache import open_folder

Report = Callable[[Mapping[str, Any]], None]

_OF_DRAWN = ("drawn.json", "drawn.partial.json")


def data_root(settings: Settings) -> Path:
    """Where the images are; drawn ones go to data/drawn-<hash of what is drawn> unless data.root says otherwise."""
    if settings.data.root is not None:
        return Path(settings.data.root)
    drawn = drawn_settings(settings)
    drawn.pop("seed")
    what = json.dumps([settings.data.seed, drawn])
    return Path.cwd() / "data" / f"drawn-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


def packed_place(settings: Settings) -> str:
    """Folder or URL of the packed shards: data.packed, else beside the images."""
    if settings.data.packed is not None:
        return settings.data.packed
    root = data_root(settings)
    return str(root.with_name(f"{root.name}-packed"))


def with_places(settings: Settings) -> Settings:
    """The same settings with data.root and data.packed written out, so that a run folder says where its data lie."""
    settings = with_unspoken(settings)
    root = settings.data.root
    if settings.data.dataset == "drawn" and root is None:
        root = str(data_root(settings))
    places = {"root": root, "packed": packed_place(settings)}
    return settings.model_copy(update={"data": settings.data.model_copy(update=places)})


def with_unspoken(settings: Settings) -> Settings:
    """The same settings with data.dataset=auto where it was not given and there are other images than drawn ones.

    That is where data.root is a file, or a folder with anything but a drawn data set, or, without a data.root, where
    data.packed was packed from another data set. An empty folder, or none, is still drawn into.
    """
    data = settings.data
    if "dataset" in data.model_fields_set or (data.root is None and data.packed is None):
        return settings
    if data.root is not None:
        root = Path(data.root)
        is_drawn = any((root / name).is_file() for name in _OF_DRAWN)
        other = root.is_file() or (root.is_dir() and not is_drawn and any(root.iterdir()))
    else:
        described = open_folder(packed_place(settings), None).read("dataset.json")
        other = described is not None and packed_as(json.loads(described)) != "drawn"
    if not other:
        return settings
    return settings.model_copy(update={"data": data.model_copy(update={"dataset": "auto"})})


def refuse_nothing_there(settings: Settings) -> None:
    """Raises ValueError where a data.root was given and nothing is there, and nobody asked for drawn pedestrians."""
    data = settings.data
    if "dataset" in data.model_fields_set or data.root is None or data.packed is not None:
        return
    if not Path(data.root).expanduser().exists():
        raise ValueError(
            f"data.root={data.root}: expected images or a data set, but nothing is there; data.dataset=drawn draws "
            "pedestrians into it"
        )


def packed_as(described: Mapping[str, Any]) -> str:
    """The data.dataset that a pack was made with, from its dataset.json."""
    return str((described.get("made_with") or {}).get("dataset", described.get("name")))


def with_data_set(settings: Settings, report: Report) -> Settings:
    """The same settings with the name of the data set in the place of "auto"."""
    if settings.data.dataset != "auto":
        return settings
    root, data = data_root(settings), settings.data
    told = [
        name
        for name, value in (("pattern", data.pattern), ("camera_from", data.camera_from))
        if value not in (None, "none")
    ]
    if told and root.is_dir():
        name, why = "folder", f"data.{told[0]} is given"
    else:
        name, why = detect(root)
    report(message(f"data.dataset=auto: {root} is read as {name}: {why}"))
    return settings.model_copy(update={"data": data.model_copy(update={"dataset": name})})


def read_dataset(settings: Settings, report: Report, *, processes: int) -> Dataset:
    """The data set that the settings name, drawn first if it is a drawn one."""
    root, data = data_root(settings), settings.data
    if data.dataset == "drawn":
        write = write_tracklets if data.drawn.frames else write_market1501
        drawn = DrawnSettings(seed=data.seed, **data.drawn.model_dump())
        write(drawn, root, processes=processes, progress=lambda done, total: _drawing(report, done, total))
    readers: dict[str, Callable[[], Dataset]] = {
        "drawn": lambda: (dukemtmc_video if data.drawn.frames else market1501).read(root),
        "market1501": lambda: market1501.read(root),
        "msmt17": lambda: msmt17.read(root, validation=data.msmt17_validation),
        "dukemtmc": lambda: dukemtmc.read(root),
        "cuhk03": lambda: cuhk03.read(root, data.cuhk03_boxes),
        "veri776": lambda: veri776.read(root),
        "mars": lambda: mars.read(root, queries_in_gallery=data.mars_gallery == "all"),
        "dukemtmc_video": lambda: dukemtmc_video.read(root),
        "folder": lambda: folder.read(root, camera_from=data.camera_from, pattern=data.pattern),
        "list": lambda: image_list.read(root),
    }
    return readers[data.dataset]()


def numbers_in_words(dataset: Dataset) -> str:
    """The numbers by which one recognises a data set, without distractors and junk where there are none."""
    numbers = {what: count for what, count in counts(dataset).items() if count or what not in ("distractors", "junk")}
    return ", ".join(f"{count:,} {what}" for what, count in numbers.items())


def made_with(settings: Settings) -> dict[str, Any]:
    """The settings that decide what lies in the shards."""
    data = settings.data
    names = ["dataset", "images_per_shard", "max_megapixels", "max_image_mb"]
    names += {
        "msmt17": ["msmt17_validation"],
        "cuhk03": ["cuhk03_boxes"],
        "mars": ["mars_gallery"],
        "folder": ["camera_from", "pattern"],
    }.get(data.dataset, [])
    made: dict[str, Any] = {name: getattr(data, name) for name in names}
    if data.dataset == "drawn":
        made["drawn"] = drawn_settings(settings)
    return made


def drawn_settings(settings: Settings) -> dict[str, Any]:
    """What is drawn, as it stands beside what was drawn."""
    return DrawnSettings(seed=settings.data.seed, **settings.data.drawn.model_dump()).written()


def _drawing(report: Report, done: int, total: int) -> None:
    report(events.stage("draw", done=done, total=total))
