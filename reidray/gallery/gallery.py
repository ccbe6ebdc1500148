"""A gallery that one adds images to and searches by a picture."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reidray.arrays import Floats
from reidray.counted import counted
from reidray.data.camera_from import CameraFrom
from reidray.data.named_samples import about_cameras
from reidray.gallery.cameras import Named
from reidray.gallery.file import GalleryFile, Made, Rows, append, check_model, stamp
from reidray.gallery.opened import Match, Opened
from reidray.inference.model import Model, Progress, packed_split
from reidray.inference.pictures import Picture, Pictures
from reidray.neighbours.queries import NearestRows
from reidray.storage.cache import open_folder

# N = images of the gallery, Q = queries, D = feature width


@dataclass(frozen=True)
class Added:
    """What `Gallery.add` did: images added, images that were there already, and sentences on what was left out.

    changed: images of those added that took the place of an earlier picture in the same file.
    moved: images that were there already and have another camera now.
    notes: sentences about the cameras of the images.
    """

    added: int
    known: int
    left_out: list[str]
    changed: int = 0
    moved: int = 0
    notes: Sequence[str] = ()


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
        self._open: Opened | None = None
        if self.path.exists():
            self._opened()

    def __len__(self) -> int:
        """Images in the gallery."""
        return len(self._opened().file) if self.path.exists() else 0

    def __repr__(self) -> str:
        return f"Gallery({str(self.path)!r}, {counted(len(self), 'image')})"

    @property
    def names(self) -> list[str]:
        """Of all images, in the order of the rows."""
        names: list[str] = self._opened().names.to_pylist()
        return names

    @property
    def cameras(self) -> list[str | None]:
        """Of all images, in the order of the rows: names; None: unknown."""
        cameras = self._opened().cameras
        return [cameras.of(row) for row in range(len(cameras.codes_N))]

    @property
    def images_by_camera(self) -> dict[str, int]:
        """Images of each camera, in natural order (cam2 before cam10)."""
        return self._opened().cameras.counts()

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

    def add(
        self,
        images: Any,
        *,
        camera_from: str | None = None,
        pattern: str | None = None,
        progress: Progress | None = None,
        list_all: bool = False,
    ) -> Added:
        """Embeds images and appends them.

        A file that is there already is not embedded again, unless it has changed: then its old row is dropped. Where a
        camera is told now and was not, or was another one, it is noted.

        Args:
          images: as in `Model.embed`.
          camera_from: what tells the camera in a path, as data.camera_from: "folder", "name", "pattern", or "none".
            Where neither this nor `pattern` is given: what told it when the model was trained, where it does; of a
            packed split, the cameras that it was packed with.
          pattern: as data.pattern.
          progress: called with the images done and the images in all.
          list_all: name every file that is left out, instead of the first ones.

        Raises:
          ValueError: no model was given, another model made the gallery, there is no usable image, or nothing tells a
            camera as it is asked for.
        """
        model = self._needed_model("add images")
        asked = None
        if camera_from is not None or pattern is not None:
            asked = CameraFrom("pattern" if camera_from is None else camera_from, pattern)
        if (packed := packed_split(images)) is not None:
            return self._add_packed(model, packed, asked, progress)
        known = self._known()
        by_path = {str(Path(source) / name): at for (source, name), at in known.items() if source}
        found = model.find(images, asked)
        new: list[Picture] = []
        cameras: dict[int, str | None] = {}
        for one in found.found:
            row, stamp_then = by_path.get(_path_of(one), (-1, 0))
            if row >= 0 and stamp_then == _stamp_of(one):
                cameras[row] = one.camera
            else:
                new.append(one)
        to_embed = Pictures(new, found.left_out)
        kept: list[Picture] = []
        features_ND = np.empty((0, model.width), np.float32)
        if new:
            kept, features_ND = model.embed_pictures(to_embed, progress)
        told = to_embed.sentences(list_all=list_all)
        if not kept and not cameras:
            raise ValueError(f"expected an image that can be read, got none: {'; '.join(told)}")
        rows = Rows(
            [one.name for one in kept],
            [one.source for one in kept],
            [one.camera for one in kept],
            features_ND,
            [_stamp_of(one) for one in kept],
        )
        gone = [by_path[_path_of(one)][0] for one in kept if _path_of(one) in by_path]
        moved = self._append(model, rows, gone, cameras)
        return Added(len(kept), len(cameras), told, len(gone), moved, found.notes)

    def _add_packed(self, model: Model, packed: str, asked: CameraFrom | None, progress: Progress | None) -> Added:
        stamp_of_pack = zlib.crc32(open_folder(packed, None).read("split.json") or b"")
        earlier = {row: (name, stamp) for (source, name), (row, stamp) in self._known().items() if source == packed}
        if earlier and all(stamp == stamp_of_pack for _, stamp in earlier.values()):
            told = [] if asked is None else asked.cameras([name for name, _ in earlier.values()])
            nothing = Rows([], [], [], np.empty((0, model.width), np.float32))
            moved = self._append(model, nothing, [], dict(zip(earlier, told, strict=False)))
            return Added(0, len(earlier), [], 0, moved)
        names, cameras, features_ND = model.embed_packed(packed, progress)
        cameras = cameras if asked is None else asked.cameras(names)
        rows = Rows(names, [packed] * len(names), cameras, features_ND, [stamp_of_pack] * len(names))
        self._append(model, rows, list(earlier), {})
        return Added(len(names), 0, [], len(earlier), 0, about_cameras(list(zip(names, cameras, strict=True))))

    def _append(self, model: Model, rows: Rows, gone: Sequence[int], told: Mapping[int, str | None]) -> int:
        """Writes what is new; how many rows have another camera than before."""
        moved = {}
        if told:
            before = self._opened().cameras
            moved = {row: camera for row, camera in told.items() if camera is not None and camera != before.of(row)}
        if rows.names or moved:
            made = Made(model.id, rows.features_ND.shape[1], model.settings.method.name, model.place)
            append(self.path, made, rows, without=gone, cameras=moved)
        return len(moved)

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        cameras: Named | None = None,
        not_cameras: Named = (),
        at_least: float = -1.0,
    ) -> list[Match]:
        """The k images of the gallery that are most like the query, exactly, the most similar first.

        Args:
          query: an image (a file, an array, a PIL image), or a feature [D] of unit length.
          k: how many, at least 1.
          cameras: only images of these, by name; a number is the name of a numbered camera.
          not_cameras: no image of these; images of unknown cameras are found.
          at_least: no image that is less similar. Where the border between the same and another person lies depends on
            the model and the data: the run's report.html shows both.

        Raises:
          ValueError: no model was given and the query is an image, the query is not one image, the gallery is empty or
            has no such camera, or k is no whole number from 1 on.
        """
        feature_D = query if _is_feature(query) else self._embedded(query)
        found = self.search_features(feature_D[None], k, cameras=cameras, not_cameras=not_cameras)[0]
        return [match for match in found if match.similarity >= at_least]

    def search_features(
        self,
        features_QD: Floats,
        k: int = 10,
        *,
        cameras: Named | None = None,
        not_cameras: Named = (),
    ) -> list[list[Match]]:
        """As `search`, for Q queries at once, each a unit row."""
        if not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(f"k must be a whole number of images, at least 1, got {k!r}")
        opened = self._opened()
        width = opened.file.made.width
        if features_QD.ndim != 2 or features_QD.shape[1] != width:
            raise ValueError(f"expected features of width {width}, as in {self.path}, got {list(features_QD.shape)}")
        if not np.allclose(np.linalg.norm(features_QD, axis=1), 1.0, atol=1e-3):
            raise ValueError("expected features of length 1: divide each by its length")
        nearest = NearestRows(np.ascontiguousarray(features_QD, np.float32), int(k))
        allowed_N = opened.cameras.allowed(cameras, not_cameras)
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

    def _opened(self) -> Opened:
        """The file as it is now."""
        with self._lock:
            if self._open is None or not self.path.exists() or self._open.file.stamp != stamp(self.path):
                file = GalleryFile(self.path)
                if self.model is not None:
                    check_model(file.made, self.model.id, self.path, self.model.place)
                self._open = Opened(file)
            return self._open


def _path_of(picture: Picture) -> str:
    """Of its file; "" for what is no file."""
    return str(Path(picture.source) / picture.name) if picture.source else ""


def _stamp_of(picture: Picture) -> int:
    """Another one where a file has another size or time; 0 for what is no file."""
    try:
        there = (Path(picture.source) / picture.name).stat()
    except OSError:
        return 0
    return zlib.crc32(f"{there.st_size} {there.st_mtime_ns}".encode()) if picture.source else 0


def _is_feature(query: Any) -> bool:
    return isinstance(query, np.ndarray) and query.ndim == 1
