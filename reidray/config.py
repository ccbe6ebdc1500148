"""Every setting of reidray: its default, its unit, its meaning and its check, once.

The tree is frozen. A YAML file is laid over the defaults, `section.name=value` from the command line over that
(`reidray.command`). The defaults are the quickstart: SCWM on drawn pedestrians, minutes on two CPU cores; the
settings of the papers are in `configs/`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _setting(default: Any, meaning: str, unit: str = "") -> Any:
    return Field(default=default, description=meaning, json_schema_extra={"unit": unit})


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class DrawnSettings(_Section):
    """Drawn pedestrians (data.dataset=drawn): how many, and one knob for each difficulty."""

    train_persons: Count = _setting(150, "identities of the training split", "persons")
    validation_persons: Count = _setting(
        100, "identities of the validation split; settings are chosen on it", "persons"
    )
    test_persons: Count = _setting(100, "identities of the test split", "persons")
    num_cameras: Count = _setting(6, "cameras; every camera has its own scene, colours and favourite view", "cameras")
    cameras_per_person: tuple[Count, Count] = _setting((2, 5), "least and most cameras that see a person", "cameras")
    images_per_camera: tuple[Count, Count] = _setting(
        (2, 5), "least and most pictures of a person in a camera", "images"
    )
    twins: Share = _setting(0.4, "share of persons that are a near copy of another one (hard negatives)", "share")
    twin_changes: Count = _setting(2, "groups of attributes in which a twin differs", "groups")
    camera_strength: NotNegative = _setting(0.85, "shift of colour, gamma and contrast between cameras", "0 none")
    camera_blur: NotNegative = _setting(1.0, "loss of resolution and blur of the cameras", "0 none")
    camera_noise: NotNegative = _setting(1.0, "sensor noise of the cameras", "0 none")
    view_spread: NotNegative = _setting(1.0, "how freely the angle of view varies within a camera", "0 none")
    occlusion: Share = _setting(0.5, "how often something stands in front of the person", "0 never")
    misalignment: Share = _setting(0.4, "how badly the box fits the person", "0 tight")
    pedestrians_behind: Share = _setting(0.3, "how often somebody else walks behind", "0 never")
    fresh_scenes: Annotated[int, Field(ge=0)] = _setting(
        0, "0: a fixed scene a camera; n: one of n scenes an image", "scenes"
    )
    camera_seed: Seed = _setting(1000, "draws the cameras; another seed, other cameras")


class DataSettings(_Section):
    """Where images come from and how they are packed and read."""

    dataset: Literal["drawn", "market1501", "folder"] = _setting("drawn", "kind of data set")
    root: str | None = _setting(
        None, "folder of the images; for drawn: where they are drawn (default data/drawn-<hash>)", "path"
    )
    packed: str | None = _setting(
        None, "folder or fsspec URL of the packed shards (default <root>-packed)", "path or URL"
    )
    cache_dir: str | None = _setting(
        None, "where remote shards are kept on each node (default ~/.cache/reidray)", "path"
    )
    seed: Seed = _setting(0, "draws the drawn data set")
    height: Count = _setting(96, "height of the network's input", "pixels")
    width: Count = _setting(48, "width of the network's input", "pixels")
    images_per_shard: Count = _setting(256, "images in a shard: the unit of extraction", "images")
    max_megapixels: Positive = _setting(20.0, "larger images are skipped and counted", "megapixels")
    max_image_mb: Positive = _setting(32.0, "larger files are skipped and counted", "MB")
    decoded_cache_mb: NotNegative = _setting(
        2048.0, "decoded images that each worker keeps in memory, of each split; the others are decoded again", "MB"
    )
    loader_threads: Count = _setting(1, "threads of a worker that read and decode the batches to come", "threads")
    batches_ahead: Count = _setting(4, "batches that are prepared before they are needed", "batches")
    drawn: DrawnSettings = DrawnSettings()


class AugmentSettings(_Section):
    """Training augmentation, keyed by (train.seed, epoch, step, place in the batch), never by worker."""

    flip: Share = _setting(0.5, "probability of a left-right flip", "share")
    pad: Annotated[int, Field(ge=0)] = _setting(5, "padding before the random crop", "pixels")
    erase: Share = _setting(0.5, "probability of random erasing", "share")
    erase_area: tuple[Share, Share] = _setting((0.02, 0.3), "least and most area erased", "share of the image")
    erase_ratio: tuple[Positive, Positive] = _setting(
        (0.3, 3.33), "least and most height / width of the erased box", "ratio"
    )


class ModelSettings(_Section):
    """The network."""

    backbone: Literal["small", "resnet18", "resnet50"] = _setting("small", "trunk; small is meant for CPUs")
    weights: str = _setting(
        "shipped", "shipped (small), imagenet (resnets), none, or a checkpoint file", "name or path"
    )
    pooling: Literal["avg", "max", "gem", "avg+max"] = _setting("avg", "global pooling; the papers' is avg")
    part_pooling: Literal["gap", "masked"] = _setting(
        "gap", "gap: eq. 1 as printed; masked: divided by the mask's area"
    )
    bn_group_size: Count = _setting(32, "images that share batch statistics, whatever the number of workers", "images")


class MethodSettings(_Section):
    """What all methods share: pseudo-labels from clusters, a memory of centroids, P x K batches."""

    name: Literal["scwm", "cluster_contrast"] = _setting("scwm", "the method")
    labels: Literal["dbscan", "ground_truth"] = _setting(
        "dbscan", "ground_truth trains with the true identities: an upper bound"
    )
    eps: Annotated[float, Field(gt=0.0, lt=1.0)] = _setting(0.45, "DBSCAN radius", "Jaccard distance")
    min_samples: Count = _setting(4, "neighbours that make a core image, itself counted", "images")
    k1: Count = _setting(20, "neighbours of the k-reciprocal encoding, the image itself counted", "images")
    k1_counts_itself: bool = _setting(
        True, "true: k1 as unsupervised trainers take it; false: k1 + 1, as the original re-ranking does"
    )
    k2: Count = _setting(6, "neighbours of the query expansion, the image itself counted", "images")
    search: Literal["exact", "approximate"] = _setting(
        "exact", "approximate: candidates from principal components; some neighbours are missed"
    )
    search_components: Count = _setting(256, "principal components of the approximate search", "components")
    search_candidates: Count = _setting(48, "candidates whose similarity it takes exactly", "images")
    clusters_per_batch: Count = _setting(16, "P: clusters in a global batch", "clusters")
    images_per_cluster: Count = _setting(4, "K: images of each cluster in a global batch", "images")
    prefer_other_cameras: bool = _setting(True, "draw a cluster's images from different cameras where these are known")
    temperature: Positive = _setting(0.05, "tau of the contrastive losses")
    momentum: Share = _setting(0.1, "share of the old centroid that a memory update keeps", "share")
    update: Literal["average", "hardest", "random", "weighted"] = _setting(
        "average", "average: every image in turn; hardest: the least similar; random: one; weighted: SCWM eq. 9"
    )


class ScwmSettings(_Section):
    """Spatial cascaded clustering and weighted memory (used where method.name=scwm)."""

    num_parts: Annotated[int, Field(ge=2)] = _setting(4, "l: parts, the background counted", "parts")
    max_distance: Positive = _setting(
        0.5, "eta of eq. 2: cells further apart are kept in different parts", "share of map height"
    )
    linkage: Literal["average", "complete", "single"] = _setting("average", "linkage of the agglomeration")
    foreground_classes: Literal[2, 3] = _setting(2, "3: with the foreground correction; 2: without")
    space: Literal["forbid", "off", "kmeans"] = _setting(
        "forbid", "forbid: eq. 2; off: no space term; kmeans: original cascade"
    )
    log_magnitude: bool = _setting(False, "cluster the logarithm of the magnitudes")
    centre_prior: NotNegative = _setting(0.15, "weak prior for cells near the centre column", "per cell")
    mask_momentum: Share = _setting(0.2, "gamma of eq. 3 at the first epoch", "share")
    mask_momentum_epochs: Count = _setting(20, "epochs in which gamma falls to 0", "epochs")
    difficulty_neighbours: Count = _setting(20, "k of eq. 7, the image itself not counted", "images")
    background_in_difficulty: bool = _setting(True, "the background part counts in alpha of the global feature")
    background_in_losses: bool = _setting(True, "the background part has contrastive and identity losses")
    normalise_weights: Literal["cluster", "batch"] = _setting(
        "cluster", "eq. 8: weights sum to 1 over a cluster's images or the batch"
    )
    weight_place: Literal["outside", "inside", "none"] = _setting(
        "outside", "eq. 10: weight times -log p; as printed; no weight"
    )
    global_memory_weight: NotNegative = _setting(1.0, "weight of the global term of eq. 10")
    part_memory_weight: NotNegative = _setting(1.0, "weight of the part term of eq. 10")
    separation_weight: NotNegative = _setting(1.0, "weight of eq. 11")
    parsing_weight: NotNegative = _setting(1.0, "weight of eq. 4")
    diversity_weight: NotNegative = _setting(1.0, "weight of eq. 5")
    global_identity_weight: NotNegative = _setting(0.0, "weight of the global term of eq. 15")
    part_identity_weight: NotNegative = _setting(0.0, "weight of the part term of eq. 15")
    beta: Share = _setting(0.35, "eq. 14: share of the pseudo-label in the global target", "share")
    part_refinement_from: Annotated[int, Field(ge=0)] = _setting(
        5, "epoch from which eq. 13 replaces plain label smoothing", "epoch"
    )
    label_smoothing: Share = _setting(0.1, "label smoothing of the part classifiers before that epoch", "share")
    cluster_feature: Literal["global", "concat"] = _setting(
        "concat", "what is clustered: the global feature, as in the paper, or global and foreground parts"
    )
    feature: Literal["global", "concat"] = _setting(
        "concat", "evaluated feature: global, or global and parts by visibility"
    )


class TrainSettings(_Section):
    """The optimisation."""

    seed: Seed = _setting(0, "seeds the network's new layers, the batches and the augmentation")
    epochs: Count = _setting(12, "epochs: each labels all images anew, then trains", "epochs")
    steps: Count = _setting(40, "updates an epoch", "steps")
    learning_rate: Positive = _setting(3.5e-4, "Adam's learning rate")
    weight_decay: NotNegative = _setting(5e-4, "Adam's weight decay")
    lr_every: Count = _setting(10, "epochs after which the learning rate falls", "epochs")
    lr_factor: Positive = _setting(0.1, "factor by which it falls")
    extract_batch: Count = _setting(64, "images extracted at once; batches never cross a shard", "images")
    precision: Literal["float32", "bfloat16"] = _setting("float32", "autocast of the forward pass")


class EvaluateSettings(_Section):
    """When and on what the model is evaluated; never used for training or selection."""

    every: Annotated[int, Field(ge=0)] = _setting(
        0, "evaluate after every so many epochs; 0: only before and after", "epochs"
    )
    split: Literal["test", "validation"] = _setting("test", "query and gallery of the test or of the validation split")
    block: Count = _setting(2048, "queries that a thread ranks at once: bounds the memory", "images")
    ranked_lists: Annotated[int, Field(ge=0)] = _setting(8, "queries drawn with their ranked lists", "queries")


class RunSettings(_Section):
    """Where and on how many machines."""

    dir: str | None = _setting(None, "run folder, never overwritten (default runs/<date>-<method>)", "path")
    workers: Annotated[int, Field(ge=0)] | None = _setting(
        None, "DDP workers; 0: no Ray; default: every GPU, else 2 CPU workers", "workers"
    )
    min_workers: Count | None = _setting(
        None, "go on with as few where machines are lost, with more when they are back; default: never fewer", "workers"
    )
    resize_seconds: Positive = _setting(60.0, "how often a group that is too small looks for machines", "seconds")
    device: Literal["auto", "cpu", "cuda"] = _setting("auto", "auto: CUDA where there is a GPU")
    threads: Count = _setting(1, "CPU threads of a worker", "threads")
    bank_shards: Count = _setting(2, "actors that hold the memory bank", "actors")
    bank_cpus: NotNegative = _setting(0.0, "CPUs reserved for each of them; 0: they work beside the workers", "CPUs")
    service_label: Annotated[str, Field(pattern=r"^[^=\s]+=[^=\s]+$")] | None = _setting(
        None, "label of the machines that may hold bank and labellers, name=value as in ray start --labels"
    )
    labellers: Count = _setting(1, "actors that parse shards and label", "actors")
    labeller_threads: Count = _setting(2, "CPU threads of a labeller", "threads")
    labeller_cache_mb: NotNegative = _setting(
        512.0, "features that a labeller keeps between tasks of labelling by blocks; the others are read again", "MB"
    )
    labeller_gpus: Share = _setting(0.0, "share of a GPU that a labeller gets; 0: labels on CPUs", "GPUs")
    labelling: Literal["auto", "whole", "blocks"] = _setting(
        "auto",
        "whole: one labeller reads all features; blocks: all labellers share the work block by block, none holds all; "
        "auto: blocks where there are several labellers and the search is exact",
    )
    label_early: bool = _setting(
        False,
        "labelling by blocks begins while features are still being extracted: of use where labellers have processors "
        "of their own",
    )
    search_block: Count = _setting(4096, "images of a block of labelling by blocks, at least; whole shards", "images")
    max_failures: Annotated[int, Field(ge=-1)] = _setting(
        3, "crashes survived, of workers and of each actor; -1: any number", "crashes"
    )
    start_timeout: Positive = _setting(60.0, "wait for machines, of workers and of actors, before giving up", "seconds")
    keep_checkpoints: Count = _setting(2, "newest checkpoints kept", "checkpoints")
    replica: Literal["auto", "replicated", "sharded"] = _setting(
        "auto", "centroids that training contrasts with: all on every worker, or a share on each"
    )
    replica_mb: Positive = _setting(2048.0, "auto shares the centroids out where all of them need more", "MB")
    evaluate_beside: bool = _setting(
        True, "evaluate epochs (evaluate.every) while the next one trains, where a CPU or GPU is left free"
    )
    checkpoint_every: Count = _setting(1, "epochs between checkpoints", "epochs")
    checkpoint_steps: Annotated[int, Field(ge=0)] = _setting(
        0, "also a checkpoint before an epoch's updates and after every so many of them; 0: none", "steps"
    )
    loggers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = _setting(
        ("tensorboard",), "where curves go beside the run folder's own files; mlflow and wandb are extras"
    )
    trace_epoch: Annotated[int, Field(ge=0)] | None = _setting(
        None, "epoch whose timeline is kept, counted from 0 as in the run folder's files", "epoch"
    )


class Settings(_Section):
    """The whole tree."""

    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    method: MethodSettings = MethodSettings()
    scwm: ScwmSettings = ScwmSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    run: RunSettings = RunSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
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
        if self.run.trace_epoch is not None and self.run.trace_epoch >= self.train.epochs:
            raise ValueError(
                f"run.trace_epoch={self.run.trace_epoch} is no epoch of the run: with train.epochs={self.train.epochs} "
                f"it can be 0 to {self.train.epochs - 1}"
            )
        if self.data.dataset != "drawn" and self.data.root is None and self.data.packed is None:
            raise ValueError(
                f"data.dataset={self.data.dataset} needs data.root=DIR (or data.packed=DIR, already packed)"
            )
        if self.method.name == "scwm" and not any(
            value for name, value in self.scwm if name.endswith("_weight") and name != "weight_place"
        ):
            raise ValueError("all loss weights of the section scwm are 0: give at least one of them a value")
        if self.run.replica == "sharded" and self.cluster_classifiers:
            raise ValueError(
                "run.replica=sharded has no place for classifiers with a row a cluster: set "
                "scwm.global_identity_weight=0 and scwm.part_identity_weight=0, or run.replica=replicated"
            )
        if self.method.update == "weighted" and self.method.name != "scwm":
            raise ValueError("method.update=weighted needs the difficulties of method.name=scwm")
        if self.model.backbone != "small" and self.model.weights == "shipped":
            raise ValueError(
                f"the shipped weights fit model.backbone=small, not {self.model.backbone}: set model.weights"
            )
        if self.model.backbone == "small" and self.model.weights == "imagenet":
            raise ValueError("there are no ImageNet weights for model.backbone=small: use shipped, none or a file")
        return self

    @model_validator(mode="after")
    def _ranges_rise(self) -> Settings:
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
    def num_parts(self) -> int:
        """Parts that the network predicts, the background counted; 0 for methods without parts."""
        return self.scwm.num_parts if self.method.name == "scwm" else 0

    @property
    def labels_by_blocks(self) -> bool:
        """Whether all labellers share the labelling of an epoch, block by block of images."""
        if self.run.labelling == "auto":
            return self.run.labellers > 1 and self.method.search == "exact"
        return self.run.labelling == "blocks"

    @property
    def cluster_classifiers(self) -> bool:
        """Whether classifiers with a row a cluster are trained beside the network."""
        return self.method.name == "scwm" and self.scwm.global_identity_weight + self.scwm.part_identity_weight > 0

    def hash(self) -> str:
        """Twelve hex digits over everything that can change a result: all but the section `run`, where data lie and how
        they are loaded."""
        loading = {"root", "packed", "cache_dir", "decoded_cache_mb", "loader_threads", "batches_ahead"}
        tree = self.model_dump(mode="json", exclude={"run": True, "data": loading})
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]

    def resolved(self, base: Path) -> Settings:
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
