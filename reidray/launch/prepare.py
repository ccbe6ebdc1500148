"""From settings to packed shards: draw or read the data set, pack it once, use it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fsspec

from reidray.config import Settings
from reidray.data import folder, market1501
from reidray.data.drawn import DrawnSettings, write_market1501
from reidray.data.records import Dataset, counts
from reidray.storage.pack import pack

Report = Callable[[Mapping[str, Any]], None]


def data_root(settings: Settings) -> Path:
    """Where the images are; drawn ones go to data/drawn-<hash of what is drawn> unless data.root says otherwise."""
    if settings.data.root is not None:
        return Path(settings.data.root)
    what = json.dumps([settings.data.seed, settings.data.drawn.model_dump(mode="json")])
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
    if _exists(f"{place}/dataset.json"):
        return place
    if "://" in place:
        raise ValueError(
            f"data.packed={place} has no dataset.json: pack into a local folder with jobs/prepare.py and copy it there"
        )
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
    )
    for sentence in _sentences(dataset, written):
        report({"kind": "message", "text": sentence})
    return place


def read_dataset(settings: Settings, report: Report, *, processes: int) -> Dataset:
    """The data set that the settings name, drawn first if it is a drawn one."""
    root = data_root(settings)
    if settings.data.dataset == "folder":
        return folder.read(root)
    if settings.data.dataset == "drawn":
        drawn = DrawnSettings(seed=settings.data.seed, **settings.data.drawn.model_dump())
        write_market1501(
            drawn, root, processes=processes, progress=lambda done, total: _stage(report, "draw", done, total)
        )
    return market1501.read(root)


def _sentences(dataset: Dataset, written: Mapping[str, Any]) -> list[str]:
    """What was read, what was ignored and what was skipped, for the log."""
    found = ", ".join(f"{count:,} {what}" for what, count in counts(dataset).items())
    packed = ", ".join(f"{name} {count:,}" for name, count in written["splits"].items())
    sentences = [f"{dataset.name}: {found}", f"packed images: {packed}"]
    sentences += [f"ignored {count:,}: {reason}" for reason, count in dataset.ignored.items()]
    for reason, entry in written.get("skipped", {}).items():
        sentences.append(f"skipped {entry['count']:,}: {reason} (such as {entry['examples'][0]})")
    return sentences


def _stage(report: Report, stage: str, done: int, total: int) -> None:
    report({"kind": "stage", "stage": stage, "epoch": None, "done": done, "total": total, "unit": "images",
            "images_per_second": None, "losses": None})  # fmt: skip


def _exists(url: str) -> bool:
    filesystem, path = fsspec.core.url_to_fs(url)
    return bool(filesystem.exists(path))
