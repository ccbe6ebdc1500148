"""A gallery that one adds images to and searches by a picture."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reidray.arrays import Array, Codes, Floats
from reidray.gallery.file import GalleryFile, Made, Rows, append, check_model, stamp
from reidray.inference.model import Model, Progress, packed_split
from reidray.inference.pictures import Picture, Pictures
from reidray.launch.services import num_cpus
from reidray.neighbours.queries import NearestRows
from reidray.storage.cache import open_folder
from reidray.threads import libraries_at_one_thread

# N = images of the gallery, Q = queries, D = feature width


@dataclass(frozen=True)
class Match:
    """An image of a gallery that was found.

    Attributes:
      name: as it was added.
      similarity: cosine, from -1 to 1; 1 is the same picture.
      camera: 0-based, -1 unknown.
      source: the folder or pack that the name lies in; "" where there is none.
      row: its place in the gallery.
    """

    name: str
    similarity: float
    camera: int
    source: str
    row: int

    @property
    def path(self) -> Path | None:
        """The image's file, where it is still there."""
        file = Path(self.source) / self.name
        return file if self.source and file.is_file() else None


@dataclass(frozen=True)
class Added:
    """What `Gallery.add` did: images added, images that were there already, and sentences on what was left out.

    changed: images of those added that took the place of an earlier picture in the same file.
    """

    added: int
    known: int
    left_out: list[str]
    changed: int = 0


class Gallery:
    """Embeddings of images in a Parquet file.

    Several processes may search while one adds. A search reads the file through a memory map: what the machine's memory
    holds of the file is there for all of them, and no process has a copy.

    Args:
      path: the file, made by the first `add`.
      model: of `reidray.load`; needed to add images and to search by images, not to search by features.

    Raises:
      ValueError: the file is no gallery, or another model made it.
    """

    def __init__(self, path: str | os.PathLike[str], model: Model | None = None) -> None:
        self.path, self.model = Path(path).expanduser(), model
        self._lock = threading.Lock()
        self._open: _Open | None = None
        if self.path.exists():
            self._opened()

    def __len__(self) -> int:
        """Images in the gallery."""
        return len(self._opened().file) if self.path.exists() else 0

    def __repr__(self) -> str:
        return f"Gallery({str(self.path)!r}, {len(self):,} images)"

    @property
    def names(self) -> list[str]:
        """Of all images, in the order of the rows."""
        names: list[str] = self._opened().names.to_pylist()
        return names

    @property
    def cameras(self) -> Codes:
        """int32 [N]; -1 unknown."""
        return self._opened().cameras

    @property
    def features(self) -> Floats:
        """float32 [N, D], unit rows; all are read into memory."""
        file = self._opened().file
        return np.concatenate([file.features(group) for group in range(file.num_groups)])

    def image(self, row: int) -> Match:
        """What is known of a row's image; its similarity is that to itself.

        Raises:
          ValueError: there is no such row.
        """
        opened = self._opened()
        if not 0 <= row < len(opened.file):
            raise ValueError(f"{self.path}: expected a row from 0 to {len(opened.file) - 1}, got {row}")
        return opened.match(row, 1.0)

    def add(self, images: Any, *, progress: Progress | None = None, list_all: bool = False) -> Added:
        """Embeds images and appends them.

        A file that is there already is not embedded again, unless it has changed: then its old row is dropped.

        Args:
          images: as in `Model.embed`.
          progress: called with the images done and the images in all.
          list_all: name every file that is left out, instead of the first ones.

        Raises:
          ValueError: no model was given, another model made the gallery, or there is no usable image.
        """
        model = self._needed_model("add images")
        known = self._known()
        gone: list[int] = []
        if (packed := packed_split(images)) is not None:
            stamp_of_pack = zlib.crc32(open_folder(packed, None).read("split.json") or b"")
            earlier = [(row, stamp) for (source, _), (row, stamp) in known.items() if source == packed]
            if earlier and all(stamp == stamp_of_pack for _, stamp in earlier):
                return Added(0, len(earlier), [])
            gone = [row for row, _ in earlier]
            names, cameras, features_ND = model.embed_packed(packed, progress)
            stamps = [stamp_of_pack] * len(names)
            rows, before, told = Rows(names, [packed] * len(names), cameras, features_ND, stamps), 0, []
        else:
            found = model.find(images)
            by_path = {str(Path(source) / name): at for (source, name), at in known.items() if source}
            new, before = [], 0
            for one in found.found:
                row, stamp_then = by_path.get(str(Path(one.source) / one.name), (-1, 0)) if one.source else (-1, 0)
                if row < 0:
                    new.append(one)
                elif stamp_then == _stamp_of(one):
                    before += 1
                else:
                    new.append(one)
                    gone.append(row)
            found = Pictures(new, found.left_out)
            if not new:
                return Added(0, before, found.sentences(list_all=list_all))
            kept, features_ND = model.embed_pictures(found, progress)
            told = found.sentences(list_all=list_all)
            if not kept and not before:
                raise ValueError(f"expected an image that can be read, got none: {'; '.join(told)}")
            if not kept:
                return Added(0, before, told)
            rows = Rows(
                [one.name for one in kept],
                [one.source for one in kept],
                [one.camera for one in kept],
                features_ND,
                [_stamp_of(one) for one in kept],
            )
        made = Made(model.id, features_ND.shape[1], model.settings.method.name, model.place)
        append(self.path, made, rows, without=gone)
        return Added(len(rows.names), before, told, len(gone))

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        cameras: Collection[int] | None = None,
        not_cameras: Collection[int] = (),
        at_least: float = -1.0,
    ) -> list[Match]:
        """The k images of the gallery that are most like the query, exactly, the most similar first.

        Args:
          query: an image (a file, an array, a PIL image), or a feature [D] of unit length.
          k: how many, at least 1.
          cameras: only images of these.
          not_cameras: no image of these.
          at_least: no image that is less similar. Where the border between the same and another person lies depends on
            the model and the data: the run's report.html shows both.

        Raises:
          ValueError: no model was given and the query is an image, the query is not one image, or the gallery is empty.
        """
        feature_D = query if _is_feature(query) else self._embedded(query)
        found = self.search_features(feature_D[None], k, cameras=cameras, not_cameras=not_cameras)[0]
        return [match for match in found if match.similarity >= at_least]

    def search_features(
        self,
        features_QD: Floats,
        k: int = 10,
        *,
        cameras: Collection[int] | None = None,
        not_cameras: Collection[int] = (),
    ) -> list[list[Match]]:
        """As `search`, for Q queries at once, each a unit row."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        opened = self._opened()
        width = opened.file.made.width
        if features_QD.ndim != 2 or features_QD.shape[1] != width:
            raise ValueError(f"expected features of width {width}, as in {self.path}, got {list(features_QD.shape)}")
        if not np.allclose(np.linalg.norm(features_QD, axis=1), 1.0, atol=1e-3):
            raise ValueError("expected features of length 1: divide each by its length")
        nearest = NearestRows(np.ascontiguousarray(features_QD, np.float32), k)
        allowed_N = opened.allowed(cameras, not_cameras)
        opened.offer_all(nearest, allowed_N)
        return [
            [opened.match(int(row), float(similarity)) for row, similarity in zip(*best, strict=True)]
            for best in nearest.best()
        ]

    def _embedded(self, query: Any) -> Floats:
        _, features_ND = self._needed_model("search by an image").embed(query)
        if len(features_ND) != 1:
            raise ValueError(f"expected one image to search by, got {len(features_ND)}")
        row_D: Floats = features_ND[0]
        return row_D

    def _needed_model(self, to: str) -> Model:
        if self.model is None:
            raise ValueError(f"{self.path}: a model is needed to {to}: Gallery(path, reidray.load(RUN))")
        return self.model

    def _known(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Row and stamp of each source and name."""
        if not self.path.exists():
            return {}
        opened = self._opened()
        keys = zip(opened.sources.to_pylist(), opened.names.to_pylist(), strict=True)
        return dict(zip(keys, enumerate(opened.file.stamps().tolist()), strict=False))

    def _opened(self) -> _Open:
        """The file as it is now."""
        with self._lock:
            if self._open is None or not self.path.exists() or self._open.file.stamp != stamp(self.path):
                file = GalleryFile(self.path)
                if self.model is not None:
                    check_model(file.made, self.model.id, self.path, self.model.place)
                self._open = _Open(file)
            return self._open


class _Open:
    """One state of the file: its names in memory."""

    def __init__(self, file: GalleryFile) -> None:
        self.file = file
        self.names, self.sources = file.names(), file.sources()
        self.cameras: Codes = file.cameras()

    def allowed(self, cameras: Collection[int] | None, not_cameras: Collection[int]) -> Array | None:
        if cameras is None and not not_cameras:
            return None
        allowed_N = np.ones(len(self.cameras), bool) if cameras is None else np.isin(self.cameras, list(cameras))
        return allowed_N & ~np.isin(self.cameras, list(not_cameras))

    def offer_all(self, nearest: NearestRows, allowed_N: Array | None) -> None:
        """Offers every row group, on all cores; reading releases the GIL as the product does."""

        def offer(group: int) -> None:
            for first, rows_BD in self.file.blocks(group):
                nearest.offer(first, rows_BD, None if allowed_N is None else allowed_N[first : first + len(rows_BD)])

        groups: Sequence[int] = range(self.file.num_groups)
        with libraries_at_one_thread():
            if len(groups) == 1:
                offer(0)
            else:
                with ThreadPoolExecutor(min(num_cpus(), len(groups))) as pool:
                    list(pool.map(offer, groups))

    def match(self, row: int, similarity: float) -> Match:
        return Match(self.names[row].as_py(), similarity, int(self.cameras[row]), self.sources[row].as_py(), row)


def _stamp_of(picture: Picture) -> int:
    """Another one where a file has another size or time; 0 for what is no file."""
    try:
        there = (Path(picture.source) / picture.name).stat()
    except OSError:
        return 0
    return zlib.crc32(f"{there.st_size} {there.st_mtime_ns}".encode()) if picture.source else 0


def _is_feature(query: Any) -> bool:
    return isinstance(query, np.ndarray) and query.ndim == 1
