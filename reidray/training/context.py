"""What every stage of training is handed: settings, the other ranks, the services, and this worker's share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reidray import events
from reidray.arrays import Array, Bytes, Ints
from reidray.bank import MemoryBank
from reidray.config import Settings
from reidray.data.attributes import Attributes
from reidray.evaluation import num_answerable
from reidray.methods import make_method
from reidray.methods.method import Method
from reidray.spans import Spans
from reidray.storage.cache import open_folder
from reidray.storage.checkpoints import CheckpointStore
from reidray.storage.masks_file import read_masks
from reidray.storage.shards import ShardedImages, read_attributes, read_truth
from reidray.storage.tracklets import open_samples
from reidray.training.background_evaluation import BackgroundEvaluation
from reidray.training.images import Samples, SizedImages, SizedTracklets
from reidray.training.label_service import LabelService
from reidray.training.ranks import Ranks

_TELL_SECONDS = 0.5

Report = Callable[[Mapping[str, Any]], None]


@dataclass
class Context:
    """Of one worker of one run.

    packed: folder (or URL) of the packed data set. run_dir: the run folder. report: where rank 0 sends events.
    placement: of the replicas of the memories in the last epoch, "" before the first.
    background: evaluates epochs while the next one trains; None where nothing is left free for that.
    filed: waits until what rank 0 sent is in the run's files: a checkpoint that was ahead of them would leave a hole.
    spans: what this worker does, and when.
    """

    settings: Settings
    ranks: Ranks
    bank: MemoryBank
    labellers: LabelService
    checkpoints: CheckpointStore
    packed: str
    run_dir: Path
    report: Report
    device: torch.device
    placement: str = ""
    background: BackgroundEvaluation | None = None
    filed: Callable[[], None] = lambda: None
    spans: Spans = field(default_factory=Spans)
    _splits: dict[str, Samples] = field(default_factory=dict)
    _true_masks: dict[str, Bytes | None] = field(default_factory=dict)
    _true_persons: dict[str, Ints | None] = field(default_factory=dict)

    @cached_property
    def method(self) -> Method:
        """The method of the run."""
        return make_method(self.settings)

    def true_persons(self, name: str) -> Ints | None:
        """The true identities of a split, None where unknown; for figures, evaluation and upper bounds alone."""
        if name not in self._true_persons:
            self._true_persons[name] = read_truth(f"{self.packed}/{name}")
        return self._true_persons[name]

    @cached_property
    def attributes(self) -> Attributes | None:
        """What was noted of the training images, for methods that need it; None where nothing was packed."""
        return read_attributes(f"{self.packed}/train")

    def true_masks(self, name: str) -> Bytes | None:
        """The true part masks of a split, None where there are none; read once, for figures alone."""
        if name not in self._true_masks:
            self._true_masks[name] = read_masks(f"{self.packed}/{name}")
        return self._true_masks[name]

    @cached_property
    def num_answerable(self) -> int | None:
        """Queries that the gallery can answer, those that figures are of; None without these splits or their truth."""
        names = evaluation_splits(self.settings)
        if not all(split_exists(self.packed, name) for name in names):
            return None
        query_persons, gallery_persons = (self.true_persons(name) for name in names)
        if query_persons is None or gallery_persons is None:
            return None
        return num_answerable(query_persons, gallery_persons, *self.compared_cameras)

    @cached_property
    def compared_cameras(self) -> list[Array]:
        """Cameras of query and gallery, as evaluation compares them: with evaluate.same_camera as unknown ones."""
        found = [self.split(name).source.cameras_N for name in evaluation_splits(self.settings)]
        if self.settings.evaluate.same_camera:
            return [np.full_like(cameras_N, -1) for cameras_N in found]
        return found

    def __post_init__(self) -> None:
        self.spans.process = f"worker {self.ranks.rank}"

    def split(self, name: str) -> Samples:
        """A split's images or tracklets; opened once, decoded once where memory allows."""
        if name not in self._splits:
            self._splits[name] = open_split(self.settings, self.packed, name, cached=True)
        return self._splits[name]

    def own_shards(self, name: str) -> list[int]:
        """The shards of a split that this worker extracts."""
        return list(range(self.ranks.rank, self.split(name).source.num_shards, self.ranks.size))

    def tell(self, **event: Any) -> None:
        """Send an event, from rank 0 only."""
        if self.ranks.rank == 0:
            self.report(event)


def evaluation_splits(settings: Settings) -> tuple[str, str]:
    """Names of the query and the gallery split."""
    return ("query", "gallery") if settings.evaluate.split == "test" else ("validation_query", "validation_gallery")


def open_split(settings: Settings, packed: str, name: str, *, cached: bool = False) -> Samples:
    """A packed split at the network's size. cached: decoded images are kept, within data.decoded_cache_mb."""
    data = settings.data
    cache_dir = Path(data.cache_dir) if data.cache_dir else Path.home() / ".cache" / "reidray"
    source = open_samples(f"{packed}/{name}", cache_dir=cache_dir)
    images = SizedImages(
        source if isinstance(source, ShardedImages) else source.frames,
        height=data.height,
        width=data.width,
        max_pixels=int(data.max_megapixels * 1e6),
        cache_mb=data.decoded_cache_mb if cached else 0.0,
    )
    return images if isinstance(source, ShardedImages) else SizedTracklets(source, images, data.frames)


def split_exists(packed: str, name: str) -> bool:
    """Whether the packed data set has a split of this name."""
    return open_folder(f"{packed}/{name}", None).read("split.json") is not None


class Meter:
    """Progress of a stage, told at most twice a second.

    Rank 0 speaks for all: of images it counts its own share times the number of workers, of steps every one.

    Args:
      context: of this worker.
      stage: extract, label, judge, train or evaluate.
      total: images or steps of the stage, all workers together.
      unit: "images", "tracklets" or "steps".
      epoch: None outside of the epochs.
      done: before this began.
    """

    def __init__(
        self, context: Context, stage: str, total: int, unit: str, epoch: int | None, *, done: int = 0
    ) -> None:
        self._context = context
        self._stage, self._epoch = stage, epoch
        self._total = total
        self._unit = unit
        self._first = self._done = done
        self._images = 0
        self._started = time.perf_counter()
        self._tell(None)

    def add(self, count: int, images: int | None = None, losses: Mapping[str, float] | None = None) -> None:
        """Count what this worker did; `images` of all workers where the unit is not images."""
        share = self._context.ranks.size if self._unit != "steps" else 1
        self._done = min(self._total, self._done + count * share)
        self._images += count * share if images is None else images
        if time.perf_counter() - self._told > _TELL_SECONDS and self._done < self._total:
            self._tell(losses)

    def reach(self, share: float) -> None:
        """This share of the stage is done, by all workers together."""
        done = min(int(share * self._total), self._total - 1)
        if done > self._done and time.perf_counter() - self._told > _TELL_SECONDS:
            self._done, self._images = done, done - self._first
            self._tell(None)

    def finish(self, losses: Mapping[str, float] | None = None) -> None:
        """The stage is over on all workers."""
        self._done = self._total
        if self._unit != "steps":
            self._images = self._total - self._first
        self._tell(losses)

    def _tell(self, losses: Mapping[str, float] | None) -> None:
        self._told = time.perf_counter()
        seconds = self._told - self._started
        rate = self._images / seconds if self._images and seconds > 0 else None
        self._context.tell(
            **events.stage(
                self._stage,
                done=self._done,
                total=self._total,
                unit=self._unit,
                epoch=self._epoch,
                images_per_second=rate,
                losses=losses,
            )
        )
