"""Packing: every image file is read once, tried, and put untouched into WebDataset tars with an index beside them.

Equal input gives equal tars, byte for byte. A data set appears under its name when it is whole, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from reidray.data.decode import BadImage
from reidray.data.records import Dataset, ImageRecord, Split
from reidray.storage import index as indexing
from reidray.storage.destination import DATASET, check_destination, new_folder
from reidray.storage.left_out_table import write_left_out
from reidray.storage.masks_file import write_masks
from reidray.storage.source import Source
from reidray.storage.tar_file import TarFile
from reidray.storage.tar_scan import scan
from reidray.storage.tried_images import TriedImage, tried_images
from reidray.version import __version__

_EXAMPLES = 5

Progress = Callable[[str, int, int], None]


@dataclass
class _Skipped:
    """Images left out by packing, by reason, and images of several frames, whose first frame counts."""

    names: dict[str, list[str]] = field(default_factory=dict)
    of_several_frames: list[str] = field(default_factory=list)

    def add(self, reason: str, name: str) -> None:
        self.names.setdefault(reason, []).append(name)

    @property
    def reasons(self) -> dict[str, dict[str, Any]]:
        return {reason: _counted(names) for reason, names in self.names.items()}


def _counted(names: Sequence[str]) -> dict[str, Any]:
    return {"count": len(names), "examples": list(names[:_EXAMPLES])}


def pack(
    dataset: Dataset,
    out_dir: str | os.PathLike[str],
    *,
    images_per_shard: int,
    max_pixels: int,
    max_bytes: int,
    progress: Progress | None = None,
    made_with: Mapping[str, Any] | None = None,
    source: Source | None = None,
) -> dict[str, Any]:
    """Packs all splits of a data set into out_dir/<split>/ and describes them in out_dir/dataset.json.

    A tracklet is one record of a tar with all of its frames; one without a readable frame is left out.

    Images that cannot be decoded are left out, counted by reason and named by example. Identities go to truth.parquet
    only, attributes to attributes.parquet only, never into the tars. Where `<root>/masks/<folder>/<stem>.png` exists
    for every image of a split without tracklets, the masks go to masks.safetensors.

    Args:
      dataset: from reidray.data.market1501, folder or drawn.
      out_dir: must not exist, be empty, or hold an earlier pack, which is replaced once the new one is whole.
      images_per_shard: at least 1; a tracklet with more gets a tar of its own.
      max_pixels: images with more are left out.
      max_bytes: image files with more are left out; at most index.MAX_MEMBER_BYTES.
      made_with: settings to keep in dataset.json, JSON values only.
      source: state of the files before they are read, to be kept, so that a later run sees what has changed.
      progress: called with split, images done and images in all, after each image.

    Returns:
      The content of dataset.json: format, name, source, splits (samples of each), ignored (by the reader, with examples
      and notes), skipped (by packing), of_several_frames (images whose first frame counts), fingerprint, created_by,
      made_with; where they have names, cameras (by number); with a source, files.

    Raises:
      ValueError: out_dir holds something else, two images of a split share a name, a split has no readable image, a
        mask does not fit, or the disk is full; nothing is left behind then.
    """
    if images_per_shard < 1 or not 1 <= max_bytes <= indexing.MAX_MEMBER_BYTES:
        raise ValueError(
            f"expected images_per_shard of at least 1 and max_bytes from 1 to {indexing.MAX_MEMBER_BYTES}, got "
            f"{images_per_shard} and {max_bytes}; correct the settings."
        )
    for split in dataset.splits.values():
        _check_names(split)
    out = Path(out_dir)
    check_destination(out)
    skipped, prints = _Skipped(), hashlib.sha256()
    with new_folder(out) as folder:
        sizes = {}
        for name, split in dataset.splits.items():
            assert name.isidentifier()
            (folder / name).mkdir()
            packer = _SplitPacker(folder / name, split, images_per_shard, skipped, prints, dataset.person_names)
            sizes[name] = packer.run(max_pixels=max_pixels, max_bytes=max_bytes, progress=progress)
            if split.tracklets is None:
                write_masks(folder / name, dataset.root, packer.kept, max_pixels=max_pixels)
        description = {
            "format": indexing.FORMAT,
            "name": dataset.name,
            "source": str(dataset.root),
            "splits": sizes,
            "ignored": dataset.ignored,
            "ignored_examples": {reason: list(names[:_EXAMPLES]) for reason, names in dataset.left_out.items()},
            "notes": list(dataset.notes),
            "skipped": skipped.reasons,
            "of_several_frames": _counted(skipped.of_several_frames),
            "fingerprint": prints.hexdigest(),
            "created_by": __version__,
            "made_with": None if made_with is None else dict(made_with),
        }
        if dataset.camera_names:
            description["cameras"] = list(dataset.camera_names)
        if source is not None:
            description["files"] = source.described()
            source.write(folder)
        write_left_out(folder, [dataset.left_out, skipped.names])
        (folder / DATASET).write_text(json.dumps(description, indent=1) + "\n")
    return description


class _SplitPacker:
    """Writes one split: tars, index, truth, attributes."""

    def __init__(
        self,
        folder: Path,
        split: Split,
        images_per_shard: int,
        skipped: _Skipped,
        prints: Any,
        person_names: Sequence[str],
    ) -> None:
        self._person_names = person_names
        self._folder, self._split, self._images_per_shard = folder, split, images_per_shard
        self._skipped, self._prints = skipped, prints
        self._file: TarFile | None = None
        self._sizes: list[tuple[int, int]] = []
        self._images: list[pa.RecordBatch] = []  # of each shard
        self._shards: list[indexing.Shard] = []
        self._tracklets: list[indexing.TrackletRow] = []
        self._in_shard, self._listed = 0, 0
        self.kept: list[ImageRecord] = []

    def run(self, *, max_pixels: int, max_bytes: int, progress: Progress | None) -> int:
        """Packs all images; gives how many were kept."""
        os.environ["WDS_SECURE"] = "1"  # read by webdataset when it is imported: no commands, no pickles
        import webdataset

        split = self._split
        keep: list[int] = []
        # Tars carry no time, no user and no machine: equal input, equal bytes.
        writer = webdataset.ShardWriter(
            f"{split.name}-%06d.tar",
            maxcount=float("inf"),  # counted here: a tracklet has many images
            maxsize=float("inf"),
            verbose=0,
            opener=self._open,
            post=self._finish,
            encoder=False,
            mtime=0.0,
            user="reidray",
            group="reidray",
            mode=0o444,
        )
        try:
            for place, frames in enumerate(self._samples(max_pixels, max_bytes, progress)):
                if not frames:
                    continue
                if self._in_shard + len(frames) > self._images_per_shard and self._in_shard:
                    writer.next_stream()
                self._in_shard += len(frames)
                writer.write(self._record(place, len(keep), frames))
                keep.append(place)
        except BaseException:  # Ctrl-C above all: what was begun is thrown away, and nothing is said of it
            if self._file is not None:
                self._file.failed = True
            raise
        finally:
            writer.close()
        if not keep:
            raise ValueError(
                f"split {split.name}: expected at least one readable image, got none out of {len(split.images)} files; "
                f"first reasons: {', '.join(self._skipped.reasons) or 'no files'}."
            )
        tracklets = None if split.tracklets is None else self._tracklets
        indexing.write(self._folder, split.name, self._shards, self._images, tracklets)
        named = split.images if split.tracklets is None else split.tracklets
        names = [named[place].name for place in keep]
        if split.persons is not None:
            persons = [split.persons[place] for place in keep]
            truth = {"name": names, "person": pa.array(persons, pa.int64())}
            if self._person_names:
                called = [None if person < 1 else self._person_names[person - 1] for person in persons]
                truth["person_name"] = pa.array(called, pa.string())
            pq.write_table(pa.table(truth), self._folder / indexing.TRUTH)
        if split.attributes is not None:
            values_NA = split.attributes.values_NA[keep]
            columns = {name: values_NA[:, place] for place, name in enumerate(split.attributes.names)}
            table = pa.table({"name": names, **columns})
            pq.write_table(table, self._folder / indexing.ATTRIBUTES, write_page_checksum=True)
        return len(keep)

    def _samples(
        self, max_pixels: int, max_bytes: int, progress: Progress | None
    ) -> Iterator[list[tuple[ImageRecord, TriedImage]]]:
        """The readable images of each sample."""
        split, tracklets = self._split, self._split.tracklets
        sizes = iter([1] * len(split.images) if tracklets is None else [one.frames for one in tracklets])
        wanted, seen, readable = next(sizes, 0), 0, []
        for place, result in enumerate(tried_images(split.images, max_pixels=max_pixels, max_bytes=max_bytes)):
            if isinstance(result, BadImage):
                self._skipped.add(result.reason, split.images[place].name)
            else:
                readable.append((split.images[place], result))
                if result.has_more:
                    self._skipped.of_several_frames.append(split.images[place].name)
            seen += 1
            if seen == wanted:
                yield readable
                wanted, seen, readable = next(sizes, 0), 0, []
            if progress is not None:
                progress(split.name, place + 1, len(split.images))

    def _record(self, place: int, key: int, frames: list[tuple[ImageRecord, TriedImage]]) -> dict[str, Any]:
        """What WebDataset writes of a sample."""
        record: dict[str, Any] = {"__key__": f"{key:09d}"}
        tracklets = self._split.tracklets
        for number, (image, read) in enumerate(frames):
            self._sizes.append((read.width, read.height))
            content = hashlib.sha256(read.data).hexdigest()
            self._prints.update(json.dumps([self._split.name, image.name, content]).encode())
            extension = image.path.suffix[1:].lower().replace("jfif", "jpg")  # as other readers of tars know it
            record[extension if tracklets is None else f"{number:04d}.{extension}"] = read.data
        if tracklets is None:
            meta: dict[str, Any] = {"name": frames[0][0].name, "camera": frames[0][0].camera}
        else:
            whole, first = tracklets[place], len(self.kept)
            self._tracklets.append(indexing.TrackletRow(whole.name, whole.camera, first, len(frames)))
            meta = {"name": whole.name, "camera": whole.camera, "frames": [image.name for image, _ in frames]}
        self.kept += [image for image, _ in frames]
        return {**record, "json": json.dumps(meta).encode()}

    def _open(self, file: str) -> TarFile:
        self._in_shard = 0
        self._file = TarFile(_create(self._folder / file))
        return self._file

    def _finish(self, file: str) -> None:
        """Closes a tar and adds its images to the index, by one pass over what lies on disk now."""
        if self._file is None:
            return
        tar, self._file = self._file, None
        sha256, failed = tar.finish(), tar.failed
        tar.close()
        if failed:
            return
        samples = scan(self._folder / file, first=self._listed, tracklets=self._split.tracklets is not None)
        if not samples:
            return
        self._listed += len(samples)
        rows = [
            indexing.Row(
                shard=len(self._shards),
                offset=member.offset,
                size=member.size,
                crc32=member.crc32,
                name=member.name,
                camera=member.camera,
                width=width,
                height=height,
                extension=member.extension,
            )
            for member, (width, height) in zip(
                (image for images in samples for image in images), self._sizes, strict=True
            )
        ]
        self._sizes = []
        self._images.append(indexing.rows_of(rows))
        first = self._shards[-1].first + self._shards[-1].count if self._shards else 0
        self._shards.append(indexing.Shard(file, tar.bytes, sha256, first, len(rows)))


def _create(path: Path) -> BinaryIO:
    return path.open("xb", buffering=2**20)


def _check_names(split: Split) -> None:
    seen: set[str] = set()
    for image in split.images:
        if image.name in seen:
            raise ValueError(
                f"split {split.name}: expected unique names, got {image.name} twice; give each file one record."
            )
        seen.add(image.name)
    for one in split.tracklets or ():
        if one.frames > indexing.MAX_FRAMES:
            raise ValueError(
                f"split {split.name}: expected at most {indexing.MAX_FRAMES} frames in a tracklet, got {one.frames} in "
                f"{one.name}; divide it."
            )
