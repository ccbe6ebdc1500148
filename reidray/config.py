"""Every setting of reidray: its default, its unit, its meaning and its check, once.

The tree is frozen. A YAML file is laid over the defaults, `section.name=value` from the command line over that
(`reidray.command`). The defaults are the quickstart: SCWM on drawn pedestrians, minutes on two CPU cores; the
settings of the papers are in `configs/`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import Field, create_model, model_validator

from reidray.methods import METHODS
from reidray.section import (
    Count,
    CountOrZero,
    Epochs,
    MethodSection,
    NotNegative,
    Positive,
    Section,
    Seed,
    Share,
    setting,
)

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]


class DrawnSettings(Section):
    """Drawn pedestrians (data.dataset=drawn): how many, and one knob for each difficulty."""

    train_persons: Count = setting(150, "identities of the training split", "persons")
    validation_persons: Count = setting(100, "identities of the validation split; settings are chosen on it", "persons")
    test_persons: Count = setting(100, "identities of the test split", "persons")
    num_cameras: Count = setting(6, "cameras; every camera has its own scene, colours and favourite view", "cameras")
    cameras_per_person: tuple[Count, Count] = setting((2, 5), "least and most cameras that see a person", "cameras")
    images_per_camera: tuple[Count, Count] = setting(
        (2, 5), "least and most pictures of a person in a camera", "images"
    )
    twins: Share = setting(0.4, "share of persons that are a near copy of another one (hard negatives)", "share")
    twin_changes: Count = setting(2, "groups of attributes in which a twin differs", "groups")
    camera_strength: NotNegative = setting(0.85, "shift of colour, gamma and contrast between cameras", "0 none")
    camera_blur: NotNegative = setting(1.0, "loss of resolution and blur of the cameras", "0 none")
    camera_noise: NotNegative = setting(1.0, "sensor noise of the cameras", "0 none")
    view_spread: NotNegative = setting(1.0, "how freely the angle of view varies within a camera", "0 none")
    occlusion: Share = setting(0.5, "how often something stands in front of the person", "0 never")
    misalignment: Share = setting(0.4, "how badly the box fits the person", "0 tight")
    pedestrians_behind: Share = setting(0.3, "how often somebody else walks behind", "0 never")
    frames: CountOrZero = setting(
        0, "n: tracklets of n / 2 to n frames in the place of pictures; 0: pictures", "frames"
    )
    fresh_scenes: CountOrZero = setting(0, "0: a fixed scene a camera; n: one of n scenes an image", "scenes")
    camera_seed: Seed = setting(1000, "draws the cameras; another seed, other cameras")


class DataSettings(Section):
    """Where images come from and how they are packed and read."""

    dataset: Literal[
        "drawn",
        "market1501",
        "msmt17",
        "dukemtmc",
        "cuhk03",
        "veri776",
        "mars",
        "dukemtmc_video",
        "folder",
        "auto",
    ] = setting("drawn", "kind of data set; auto looks at data.root")
    frames: Count = setting(16, "frames of a tracklet that a training step takes; all count for its feature", "frames")
    mars_gallery: Literal["all", "without_queries"] = setting(
        "all", "MARS's gallery: all tracklets, as in the official evaluation, or those that are no queries"
    )
    msmt17_validation: bool = setting(True, "train on MSMT17's validation list as well, as most unsupervised code does")
    cuhk03_boxes: Literal["detected", "labeled"] = setting(
        "detected", "CUHK03's boxes: of a detector, or drawn by hand"
    )
    root: str | None = setting(
        None, "folder of the images; for drawn: where they are drawn (default data/drawn-<hash>)", "path"
    )
    packed: str | None = setting(
        None, "folder or fsspec URL of the packed shards (default <root>-packed)", "path or URL"
    )
    cache_dir: str | None = setting(
        None, "where remote shards are kept on each node (default ~/.cache/reidray)", "path"
    )
    seed: Seed = setting(0, "draws the drawn data set")
    height: Count = setting(96, "height of the network's input", "pixels")
    width: Count = setting(48, "width of the network's input", "pixels")
    images_per_shard: Count = setting(256, "images in a shard: the unit of extraction", "images")
    max_megapixels: Positive = setting(20.0, "larger images are skipped and counted", "megapixels")
    max_image_mb: Positive = setting(32.0, "larger files are skipped and counted", "MB")
    decoded_cache_mb: NotNegative = setting(
        2048.0, "decoded images that each worker keeps in memory, of each split; the others are decoded again", "MB"
    )
    loader_threads: Count = setting(1, "threads of a worker that read and decode the batches to come", "threads")
    batches_ahead: Count = setting(4, "batches that are prepared before they are needed", "batches")
    drawn: DrawnSettings = DrawnSettings()


class AugmentSettings(Section):
    """Training augmentation, keyed by (train.seed, epoch, step, place in the batch), never by worker."""

    flip: Share = setting(0.5, "probability of a left-right flip", "share")
    pad: CountOrZero = setting(5, "padding before the random crop", "pixels")
    erase: Share = setting(0.5, "probability of random erasing", "share")
    erase_area: tuple[Share, Share] = setting((0.02, 0.3), "least and most area erased", "share of the image")
    erase_ratio: tuple[Positive, Positive] = setting(
        (0.3, 3.33), "least and most height / width of the erased box", "ratio"
    )


class ModelSettings(Section):
    """The network."""

    backbone: Literal["small", "resnet18", "resnet50"] = setting("small", "trunk; small is meant for CPUs")
    weights: str = setting("shipped", "shipped (small), imagenet (resnets), none, or a checkpoint file", "name or path")
    pooling: Literal["avg", "max", "gem", "avg+max"] = setting("avg", "global pooling; the papers' is avg")
    part_pooling: Literal["gap", "masked"] = setting("gap", "gap: eq. 1 as printed; masked: divided by the mask's area")
    calibrate: Literal["new", "all", "none"] = setting(
        "new",
        "necks that begin with the statistics of the training images: those that the start weights lack, all, or none",
    )
    bn_group_size: Count = setting(32, "images that share batch statistics, whatever the number of workers", "images")


class MethodSettings(Section):
    """What all methods share: pseudo-labels from clusters, a memory of centroids, P x K batches."""

    name: MethodName = setting("scwm", "the method; its own settings are in the section of its name")
    labels: Literal["dbscan", "ground_truth"] = setting(
        "dbscan", "ground_truth trains with the true identities: an upper bound"
    )
    eps: Annotated[float, Field(gt=0.0, lt=1.0)] = setting(0.45, "DBSCAN radius", "Jaccard distance")
    min_samples: Count = setting(4, "neighbours that make a core image, itself counted", "images")
    k1: Count = setting(20, "neighbours of the k-reciprocal encoding, the image itself counted", "images")
    k1_counts_itself: bool = setting(
        True, "true: k1 as unsupervised trainers take it; false: k1 + 1, as the original re-ranking does"
    )
    k2: Count = setting(6, "neighbours of the query expansion, the image itself counted", "images")
    search: Literal["exact", "approximate"] = setting(
        "exact", "approximate: candidates from principal components; some neighbours are missed"
    )
    search_components: Count = setting(256, "principal components of the approximate search", "components")
    search_candidates: Count = setting(48, "candidates whose similarity it takes exactly", "images")
    clusters_per_batch: Count = setting(16, "P: clusters in a global batch", "clusters")
    images_per_cluster: Count = setting(4, "K: images of each cluster in a global batch", "images")
    prefer_other_cameras: bool = setting(True, "draw a cluster's images from different cameras where these are known")
    temperature: Positive = setting(0.05, "tau of the contrastive losses")
    momentum: Share = setting(0.1, "share of the old centroid that a memory update keeps", "share")
    update: Literal["average", "hardest", "random", "weighted"] = setting(
        "average", "average: every image in turn; hardest: the least similar; random: one; weighted: by difficulty"
    )


class TrainSettings(Section):
    """The optimisation."""

    seed: Seed = setting(0, "seeds the network's new layers, the batches and the augmentation")
    epochs: Count = setting(12, "epochs; most methods label all images anew in each, then train", "epochs")
    steps: Count = setting(40, "updates an epoch", "steps")
    learning_rate: Positive = setting(3.5e-4, "Adam's learning rate")
    weight_decay: NotNegative = setting(5e-4, "Adam's weight decay")
    lr_every: Epochs = setting(
        0.84,
        "after which the learning rate falls, each time (papers: 20 of 50 or 60)",
        "epochs, or below 1 their share",
    )
    lr_factor: Positive = setting(0.1, "factor by which it falls")
    extract_batch: Count = setting(64, "images extracted at once; batches never cross a shard", "images")
    precision: Literal["float32", "bfloat16"] = setting("float32", "autocast of the forward pass")


class EvaluateSettings(Section):
    """When and on what the model is evaluated; never used for training or selection."""

    every: CountOrZero = setting(0, "evaluate after every so many epochs; 0: only before and after", "epochs")
    split: Literal["test", "validation"] = setting("test", "query and gallery of the test or of the validation split")
    block: Count = setting(2048, "queries that a thread ranks at once: bounds the memory", "images")
    report_best: bool = setting(
        False,
        "also report the evaluated epoch (evaluate.every) with the best mAP; it is chosen by the truth, and named so",
    )
    ranked_lists: CountOrZero = setting(8, "queries drawn with their ranked lists", "queries")


class RunSettings(Section):
    """Where and on how many machines."""

    dir: str | None = setting(None, "run folder, never overwritten (default runs/<date>-<method>)", "path")
    workers: CountOrZero | None = setting(
        None, "DDP workers; 0: no Ray; default: every GPU, else 2 CPU workers", "workers"
    )
    min_workers: Count | None = setting(
        None, "go on with as few where machines are lost, with more when they are back; default: never fewer", "workers"
    )
    resize_seconds: Positive = setting(60.0, "how often a group that is too small looks for machines", "seconds")
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "auto: CUDA where there is a GPU")
    threads: Count = setting(1, "CPU threads of a worker", "threads")
    bank_shards: Count = setting(2, "actors that hold the memory bank", "actors")
    bank_cpus: NotNegative = setting(0.0, "CPUs reserved for each of them; 0: they work beside the workers", "CPUs")
    service_label: Annotated[str, Field(pattern=r"^[^=\s]+=[^=\s]+$")] | None = setting(
        None, "label of the machines that may hold bank and labellers, name=value as in ray start --labels"
    )
    labellers: Count = setting(1, "actors that parse shards and label", "actors")
    labeller_threads: Count = setting(2, "CPU threads of a labeller", "threads")
    labeller_cache_mb: NotNegative = setting(
        512.0, "features that a labeller keeps between tasks of labelling by blocks; the others are read again", "MB"
    )
    labeller_gpus: Share = setting(0.0, "share of a GPU that a labeller gets; 0: labels on CPUs", "GPUs")
    dense_dbscan_mb: NotNegative = setting(
        2048.0,
        "on a GPU cuML's DBSCAN where the dense distance matrix fits in so many MB; our sparse one beyond",
        "MB",
    )
    labelling: Literal["auto", "whole", "blocks"] = setting(
        "auto",
        "whole: one labeller reads all features; blocks: all labellers share the work block by block, none holds all; "
        "auto: blocks where there are several labellers and the search is exact",
    )
    merge_mb: Positive = setting(
        4096.0, "memory for the distances of clusters that a labeller may take where clusters are merged", "MB"
    )
    label_early: bool = setting(
        False,
        "labelling by blocks begins while features are still being extracted: of use where labellers have processors "
        "of their own",
    )
    search_block: Count = setting(4096, "images of a block of labelling by blocks, at least; whole shards", "images")
    max_failures: Annotated[int, Field(ge=-1)] = setting(
        3, "crashes survived, of workers and of each actor; -1: any number", "crashes"
    )
    start_timeout: Positive = setting(60.0, "wait for machines, of workers and of actors, before giving up", "seconds")
    keep_checkpoints: Count = setting(2, "newest checkpoints kept", "checkpoints")
    replica: Literal["auto", "replicated", "sharded"] = setting(
        "auto", "rows of the memories that training contrasts with: all on every worker, or a share on each"
    )
    replica_mb: Positive = setting(2048.0, "auto shares the rows out where all of them need more", "MB")
    evaluate_beside: bool = setting(
        True, "evaluate epochs (evaluate.every) while the next one trains, where a CPU or GPU is left free"
    )
    checkpoint_every: Count = setting(1, "epochs between checkpoints", "epochs")
    checkpoint_steps: CountOrZero = setting(
        0, "also a checkpoint before an epoch's updates and after every so many of them; 0: none", "steps"
    )
    loggers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = setting(
        ("tensorboard",), "where curves go beside the run folder's own files; mlflow and wandb are extras"
    )
    trace_epoch: CountOrZero | None = setting(
        None, "epoch whose timeline is kept, counted from 0 as in the run folder's files", "epoch"
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
        if self.model.backbone != "small" and self.model.weights == "shipped":
            raise ValueError(
                f"the shipped weights fit model.backbone=small, not {self.model.backbone}: set model.weights"
            )
        if self.model.backbone == "small" and self.model.weights == "imagenet":
            raise ValueError("there are no ImageNet weights for model.backbone=small: use shipped, none or a file")
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
            found |= {"method.eps", "method.min_samples", "method.k2"}
        for name, entry in METHODS.items():
            if entry.section is not None and name != chosen:
                found |= {f"{name}.{field}" for field in entry.section.model_fields}
        return found

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

    def hash(self) -> str:
        """Twelve hex digits over everything that can change a result: all but the section `run`, where data lie, how
        they are loaded, and the sections of other methods."""
        loading = {"root", "packed", "cache_dir", "decoded_cache_mb", "loader_threads", "batches_ahead"}
        others: dict[str, Any] = dict.fromkeys(set(METHODS) - {self.method.name}, True)
        tree = self.model_dump(mode="json", exclude={"run": True, "data": loading, **others})
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]

    def resolved(self, base: Path) -> Self:
        """The same settings with every relative path made absolute against `base` (URLs are left alone)."""

        def absolute(path: str | None) -> str | None:
            return path if path is None or "://" in path else str((base / Path(path).expanduser()).resolve())

        weights = self.model.weights
        if weights not in ("shipped", "imagenet", "none"):
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
