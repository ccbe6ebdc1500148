"""A trained model: `load` a run, `embed` images."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from reidray.arrays import Bytes, Floats
from reidray.config import Settings
from reidray.data.camera_from import CameraFrom
from reidray.data.decode import BadImage
from reidray.data.resize import resize_into
from reidray.features import Network
from reidray.inference.pictures import Limits, Picture, Pictures, pictures
from reidray.launch.inference import embed as embed_split
from reidray.launch.inference import load_model
from reidray.launch.services import chosen_device, num_cpus
from reidray.methods import make_method
from reidray.storage.camera_names import camera_names
from reidray.threads import set_threads
from reidray.training.context import open_split
from reidray.training.extraction import autocast
from reidray.training.images import as_input
from reidray.training.prefetch import prefetch

# N = images, B = batch, D = feature width

_CAMERAS_IN_NAMES = ("market1501", "dukemtmc", "veri776", "drawn")  # data sets whose file names have c<number>

Progress = Callable[[int, int], None]
"""Called with the images done and the images in all."""


class Embeddings(NamedTuple):
    """Names of images, in order, and their features: float32 [N, D], rows of length 1."""

    names: list[str]
    features_ND: Floats


class Model:
    """A trained network with what it needs to embed images. Make it with `reidray.load`.

    Attributes:
      network: in evaluation mode.
      settings: of the run that trained it.
      place: where it was loaded from.
    """

    def __init__(self, network: Network, settings: Settings, place: str) -> None:
        self.network, self.settings, self.place = network.eval(), settings, place
        self.method = make_method(settings)
        self._device = chosen_device(settings)
        self.network.to(self._device)

    def __repr__(self) -> str:
        settings = self.settings
        return (
            f"Model({settings.method.name}, {settings.model.backbone}, "
            f"{settings.data.height}x{settings.data.width}, id {self.id[:12]})"
        )

    @cached_property
    def id(self) -> str:
        """64 hex digits over all weights and all settings on which a feature depends: equal ids, equal embeddings."""
        settings = self.settings
        own = settings.own
        told = {
            "method": settings.method.name,
            "own": None if own is None else own.model_dump(mode="json"),
            "model": settings.model.model_dump(mode="json", exclude={"weights", "calibrate", "bn_group_size"}),
            "size": [settings.data.height, settings.data.width],
            "precision": settings.train.precision,
        }
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def width(self) -> int:
        """D, numbers of an embedding."""
        blank = np.zeros((1, self.settings.data.height, self.settings.data.width, 3), np.uint8)
        return self._features(blank).shape[1]

    def embed(self, images: Any, *, progress: bool | Progress = False) -> Embeddings:
        """Embeds images. Two of the same person have a large inner product.

        Args:
          images: a folder (searched at any depth), an image file, a pattern ("crops/*.jpg"), a packed split, an array
            uint8 [h, w, 3] or [N, h, w, 3] in RGB, a PIL image, or an iterable of such.
          progress: True shows a bar, in a terminal and in a notebook; or a function of (done, total).

        Returns:
          Names and unit rows, in the order given. Of what was found in a folder or by a pattern, files that are no
          usable images are left out, with a warning that counts and names them.

        Raises:
          ValueError: nothing is there, or an image that was given by itself cannot be used.
        """
        with _shown(progress) as told:
            if (packed := packed_split(images)) is not None:
                names, _, features_ND = self.embed_packed(packed, told)
                return Embeddings(names, features_ND)
            found = self.find(images)
            kept, features_ND = self.embed_pictures(found, told)
            if not kept:
                raise ValueError(f"expected an image that can be read, got none: {'; '.join(found.sentences())}")
        for sentence in found.sentences():
            warnings.warn(sentence, stacklevel=2)
        return Embeddings([picture.name for picture in kept], features_ND)

    @property
    def camera_from(self) -> CameraFrom:
        """What told cameras when the model was trained."""
        data = self.settings.data
        return CameraFrom("name") if data.dataset in _CAMERAS_IN_NAMES else CameraFrom(data.camera_from, data.pattern)

    def find(self, images: Any, cameras: CameraFrom | None = None) -> Pictures:
        """The images that `embed` would read; errors as there.

        Args:
          images: as in `embed`.
          cameras: what tells their cameras, and must tell some; None: what told them in training, where it does.
        """
        data = self.settings.data
        limits = Limits(int(data.max_megapixels * 1e6), int(data.max_image_mb * 1e6))
        return pictures(images, limits, cameras or self.camera_from, must_tell=cameras is not None)

    def embed_pictures(self, found: Pictures, progress: Progress | None = None) -> tuple[list[Picture], Floats]:
        """The usable ones of these images and their features [N, D]; the others are added to `found.left_out`."""
        set_threads(num_cpus())
        kept: list[Picture] = []
        rows: list[Floats] = []
        done = 0
        if progress is not None:
            progress(0, len(found.found))  # from when on seconds count
        for some, sized_BHW3 in self._batches(found):
            kept += some
            if some:
                rows.append(self._features(sized_BHW3))
            done += self.settings.train.extract_batch
            if progress is not None:
                progress(min(done, len(found.found)), len(found.found))
        return kept, np.concatenate(rows) if rows else np.empty((0, self.width), np.float32)

    def embed_packed(self, place: str, progress: Progress | None = None) -> tuple[list[str], list[str | None], Floats]:
        """Names, cameras (by name; None: unknown) and features [N, D] of the samples of a packed split."""
        parent, name = place.rstrip("/").rsplit("/", 1)
        samples = open_split(self.settings, parent, name)
        done = 0
        if progress is not None:
            progress(0, samples.source.count)

        def count(more: int) -> None:
            nonlocal done
            done += more
            if progress is not None:
                progress(done, samples.source.count)

        features_ND = embed_split(self.network, self.settings, samples, count)
        cameras = camera_names(place, samples.source.cameras_N.tolist())
        return list(samples.source.names), cameras, features_ND

    @property
    def on_gpu(self) -> bool:
        """Whether forward passes run on a GPU."""
        return self._device.type == "cuda"

    def embed_sized(self, sized_BHW3: Bytes) -> Floats:
        """Features [B, D] of pixels at the network's size, uint8 RGB, in one forward pass."""
        return self._features(sized_BHW3)

    def _batches(self, found: Pictures) -> Iterator[tuple[list[Picture], Bytes]]:
        """Images that can be read, and their pixels at the network's size; read by other threads meanwhile."""
        batch, data = self.settings.train.extract_batch, self.settings.data
        every = found.found
        count = -(-len(every) // batch)

        def read(number: int) -> tuple[list[Picture], Bytes, list[tuple[str, str]]]:
            some: list[Picture] = []
            bad: list[tuple[str, str]] = []
            sized_BHW3 = np.empty((batch, data.height, data.width, 3), np.uint8)
            for picture in every[number * batch : (number + 1) * batch]:
                try:
                    pixels = picture.read()
                except (BadImage, OSError) as error:
                    if picture.chosen:
                        raise ValueError(_told(error, picture)) from None
                    bad.append((getattr(error, "reason", "cannot be read"), picture.name))
                else:
                    resize_into(pixels, sized_BHW3[len(some)])
                    some.append(picture)
            return some, sized_BHW3[: len(some)], bad

        for some, sized_BHW3, bad in prefetch(read, count, depth=2, threads=max(1, num_cpus() // 2)):
            for reason, name in bad:
                found.leave_out(reason, [name])
            yield some, sized_BHW3

    @torch.inference_mode()
    def _features(self, sized_BHW3: Bytes) -> Floats:
        with autocast(self._device, self.settings.train.precision):
            outputs = self.network(as_input(sized_BHW3, self._device))
        kept = {name: rows.cpu().numpy() for name, rows in self.method.to_evaluate(outputs).items()}
        return np.ascontiguousarray(self.method.evaluated(kept), np.float32)


def load(run: str | os.PathLike[str]) -> Model:
    """The model of a run folder (its newest checkpoint, or the stage that the run reports) or of a checkpoint folder.

    Raises:
      ValueError: there is no whole checkpoint, or its tensors do not fit the network that its settings describe.
    """
    place = Path(run).expanduser().resolve()
    if not place.is_dir():
        raise ValueError(f"{run}: expected the folder of a run or of a checkpoint, but no folder is there")
    return Model(*load_model(place), str(place))


def packed_split(images: Any) -> str | None:
    """The place of a packed split where `images` is one, else None."""
    if not isinstance(images, str | os.PathLike):
        return None
    text = os.fspath(images)
    if "://" in text:
        return text
    return str(Path(text).expanduser().resolve()) if (Path(text).expanduser() / "split.json").is_file() else None


def _told(error: Exception, picture: Picture) -> str:
    if isinstance(error, BadImage):
        return str(error)
    return f"{Path(picture.source) / picture.name}: cannot be read ({getattr(error, 'strerror', None) or error})"


@contextmanager
def _shown(progress: bool | Progress) -> Iterator[Progress | None]:
    """The progress that was asked for: none, the caller's own, or a bar for a terminal or a notebook."""
    if not isinstance(progress, bool) or not progress:
        yield progress or None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn("embed"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("embed")
        yield lambda done, total: bar.update(task, completed=done, total=total)
