"""The whole tree of settings, and the checks across its sections; the sections are in `reidray.shared_settings`.

The tree is frozen. A YAML file is laid over the defaults, `section.name=value` from the command line over that
(`reidray.command`). The defaults are the quickstart: SCWM on drawn pedestrians, minutes on two CPU cores; the
settings of the papers are in `configs/`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from pydantic import create_model, model_validator

from reidray.methods import METHODS
from reidray.section import MethodSection, Section
from reidray.shared_settings import (
    AugmentSettings,
    DataSettings,
    EvaluateSettings,
    MethodSettings,
    ModelSettings,
    RunSettings,
    TrainSettings,
)


class _Tree(Section):
    """The sections that every method shares."""

    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    method: MethodSettings = MethodSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    run: RunSettings = RunSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> _Tree:
        batch, group = self.batch_size, self.model.bn_group_size
        if batch % group or group % self.method.images_per_cluster:
            raise ValueError(
                f"model.bn_group_size={group} must divide the batch of {batch} images (method.clusters_per_batch x "
                f"method.images_per_cluster) and hold whole clusters of {self.method.images_per_cluster}"
            )
        if self.run.min_workers and self.run.workers is not None and self.run.min_workers > self.run.workers:
            raise ValueError(
                f"run.min_workers={self.run.min_workers} must not be more than run.workers={self.run.workers}"
            )
        if self.run.workers and self.run.workers > self.num_groups:
            raise ValueError(
                f"run.workers={self.run.workers} is more than the {self.num_groups} BN groups of a batch: "
                f"lower model.bn_group_size or raise method.clusters_per_batch"
            )
        if self.run.labelling == "blocks" and self.method.search == "approximate":
            raise ValueError(
                "run.labelling=blocks searches exactly: set method.search=exact, or run.labelling=whole for the "
                "approximate search"
            )
        by_epochs = self.own is None or not self.own.has_stages
        if by_epochs and self.run.trace_epoch is not None and self.run.trace_epoch >= self.train.epochs:
            raise ValueError(
                f"run.trace_epoch={self.run.trace_epoch} is no epoch of the run: with train.epochs={self.train.epochs} "
                f"it can be 0 to {self.train.epochs - 1}"
            )
        if self.data.dataset != "drawn" and self.data.root is None and self.data.packed is None:
            raise ValueError(
                f"data.dataset={self.data.dataset} needs data.root=DIR (or data.packed=DIR, already packed)"
            )
        if self.run.replica == "sharded" and self.needs_all_rows is not None:
            raise ValueError(f"run.replica=sharded has no place for {self.needs_all_rows} run.replica=replicated")
        if self.own is not None:
            self.own.check(cast("Settings", self))
        if self.method.update == "weighted" and not METHODS[self.method.name].weighs_images:
            weighing = " or ".join(name for name, entry in METHODS.items() if entry.weighs_images)
            raise ValueError(f"method.update=weighted needs the difficulties of method.name={weighing}")
        if self.model.backbone != "small" and self.model.weights in ("shipped", "shipped_early"):
            raise ValueError(
                f"the shipped weights fit model.backbone=small, not {self.model.backbone}: set model.weights"
            )
        if self.model.embedding_layer == "keep" and not self.model.backbone.startswith("osnet_"):
            raise ValueError(
                f"model.embedding_layer=keep needs checkpoints that have such a layer, those of osnet_x0_25 and the "
                f"like, not of model.backbone={self.model.backbone}: set model.embedding_layer=drop"
            )
        if self.model.backbone not in ("resnet18", "resnet50") and self.model.weights == "imagenet":
            shipped = "shipped, " if self.model.backbone == "small" else ""
            raise ValueError(
                f"there are no ImageNet weights for model.backbone={self.model.backbone}: use {shipped}none or a file"
            )
        return self

    @model_validator(mode="after")
    def _ranges_rise(self) -> _Tree:
        drawn, augment = self.data.drawn, self.augment
        ranges: dict[str, tuple[float, float]] = {
            "data.drawn.cameras_per_person": drawn.cameras_per_person,
            "data.drawn.images_per_camera": drawn.images_per_camera,
            "augment.erase_area": augment.erase_area,
            "augment.erase_ratio": augment.erase_ratio,
        }
        for name, (least, most) in ranges.items():
            if least > most:
                raise ValueError(f"{name} must be [least, most], got [{least}, {most}]")
        if drawn.cameras_per_person[1] > drawn.num_cameras:
            raise ValueError(
                f"data.drawn.cameras_per_person={list(drawn.cameras_per_person)} asks for more cameras than "
                f"data.drawn.num_cameras={drawn.num_cameras}"
            )
        return self

    @property
    def batch_size(self) -> int:
        """Images in a global batch, all workers together."""
        return self.method.clusters_per_batch * self.method.images_per_cluster

    @property
    def num_groups(self) -> int:
        """BN groups in a global batch: the units of work that workers share."""
        return self.batch_size // self.model.bn_group_size

    @property
    def own(self) -> MethodSection | None:
        """The section of the chosen method, None where it has none."""
        return getattr(self, self.method.name, None)

    @property
    def labels_by_blocks(self) -> bool:
        """Whether all labellers share the labelling of an epoch, block by block of images."""
        if self.run.labelling == "auto":
            return self.run.labellers > 1 and self.method.search == "exact"
        return self.run.labelling == "blocks"

    @property
    def needs_all_rows(self) -> str | None:
        """What of the method needs all rows of a memory on every worker; see `MethodSection.needs_all_rows`."""
        return None if self.own is None else self.own.needs_all_rows

    @property
    def unread(self) -> set[str]:
        """Settings, as section.name, that the method does not read; those of other methods are among them."""
        chosen = self.method.name
        found = set(METHODS[chosen].unread)
        found |= {f"{chosen}.{name}" for name in (self.own.unread if self.own is not None else ())}
        if self.method.labels == "ground_truth":
            found |= {"method.eps", "method.min_samples", "method.k2", "method.camera_centring"}
        if not self._may_have_tracklets:
            found |= {"data.frames"}
        if self.data.dataset not in ("mars", "auto"):
            found |= {"data.mars_gallery"}
        if self.data.dataset not in ("folder", "auto"):
            found |= {"data.camera_from", "data.pattern"}
        for name, entry in METHODS.items():
            if entry.section is not None and name != chosen:
                found |= {f"{name}.{field}" for field in entry.section.model_fields}
        return found

    @property
    def _may_have_tracklets(self) -> bool:
        """Whether samples may be tracklets, as far as settings tell."""
        data = self.data
        told = data.dataset == "folder" and data.pattern is not None and "tracklet" in data.pattern
        drawn = data.dataset == "drawn" and data.drawn.frames > 0
        return told or drawn or data.dataset in ("mars", "dukemtmc_video", "list", "auto")

    def without_effect(self) -> list[str]:
        """What was changed and is not read: section.name=value, and whole sections of other methods."""
        defaults, found = type(self).model_fields, []
        for dotted in sorted(self.unread):
            section, _, name = dotted.partition(".")
            value = getattr(getattr(self, section, None), name, None)
            if section in defaults and value != getattr(defaults[section].default, name):
                other = section in METHODS and section != self.method.name
                found.append(f"the section {section}" if other else f"{dotted}={value}")
        return list(dict.fromkeys(found))

    def with_counted_epochs(self) -> Self:
        """The same settings with shares of the epochs as numbers, so that a run that is given more epochs goes on with
        the schedule that it began with."""
        found: dict[str, Any] = {}
        for name in type(self).model_fields:
            section = getattr(self, name)
            read = {
                setting: epochs
                for setting, epochs in section.counted_epochs(self.train.epochs).items()
                if f"{name}.{setting}" not in self.unread
            }
            if read:
                found[name] = section.model_copy(update=read)
        return self.model_copy(update=found)

    def hash(self) -> str:
        """Twelve hex digits over everything that can change a result: all but the section `run` (of it run.keep_best
        alone counts), where data lie, how they are loaded, and the sections of other methods."""
        loading = {"root", "packed", "cache_dir", "decoded_cache_mb", "loader_threads", "batches_ahead"}
        others: dict[str, Any] = dict.fromkeys(set(METHODS) - {self.method.name}, True)
        loading |= {name.partition(".")[2] for name in self.unread if name.startswith("data.")}
        tree = self.model_dump(
            mode="json", exclude={"run": set(RunSettings.model_fields) - {"keep_best"}, "data": loading, **others}
        )
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]

    def resolved(self, base: Path) -> Self:
        """The same settings with every relative path made absolute against `base` (URLs are left alone)."""

        def absolute(path: str | None) -> str | None:
            return path if path is None or "://" in path else str((base / Path(path).expanduser()).resolve())

        weights = self.model.weights
        if weights not in ("shipped", "shipped_early", "imagenet", "none"):
            weights = absolute(weights) or weights
        return self.model_copy(
            update={
                "data": self.data.model_copy(
                    update={name: absolute(getattr(self.data, name)) for name in ("root", "packed", "cache_dir")}
                ),
                "model": self.model.model_copy(update={"weights": weights}),
                "run": self.run.model_copy(update={"dir": absolute(self.run.dir)}),
            }
        )


if TYPE_CHECKING:

    class Settings(_Tree):
        """The whole tree: the shared sections, and one section a method (see `reidray.methods.METHODS`)."""

        def __getattr__(self, name: str) -> Any: ...

else:
    Settings = create_model(
        "Settings",
        __base__=_Tree,
        __doc__="The whole tree: the shared sections, and one section a method.",
        __module__=__name__,
        **{name: (entry.section, entry.section()) for name, entry in METHODS.items() if entry.section is not None},
    )
