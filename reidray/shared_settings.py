"""The sections of settings that every method shares: each setting's default, unit, meaning and check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from reidray.methods import METHODS
from reidray.section import (
    Count,
    CountOrZero,
    Epochs,
    NotNegative,
    Part,
    Positive,
    Section,
    Seed,
    Share,
    epochs_setting,
    setting,
)

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]


TimmName = Annotated[str, Field(pattern=r"^timm:[A-Za-z0-9_.]+$", title="timm:NAME")]
BackboneName = Literal[
    "small",
    "resnet18",
    "resnet50",
    "resnet50_ibn_a",
    "plip_resnet50",
    "clip_resnet50",
    "osnet_x0_25",
    "osnet_x0_5",
    "osnet_x0_75",
    "osnet_x1_0",
    "osnet_ibn_x1_0",
    "osnet_ain_x1_0",
]


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
    frames: Annotated[int, Field(ge=0, le=99)] = setting(
        0, "n: tracklets of n / 2 to n frames in the place of pictures; 0: pictures", "frames"
    )
    fresh_scenes: CountOrZero = setting(0, "0: a fixed scene a camera; n: one of n scenes an image", "scenes")
    camera_seed: Seed = setting(1000, "draws the cameras; another seed, other cameras")
    postures: Share = setting(0.0, "how often a person sits, bends or rides in a camera instead of walking", "0 never")
    cut_off: Share = setting(0.0, "how often the legs or the head are outside of the box", "0 never")
    half_hidden: Share = setting(0.0, "how often something hides a third to a half of the person", "0 never")
    small_twins: Share = setting(0.0, "share of persons that differ from another one in one small thing", "share")


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
        "list",
        "auto",
    ] = setting("drawn", "kind of data set; auto, which an existing data.root alone means as well, looks at data.root")
    camera_from: Literal["none", "folder", "name", "pattern"] = setting(
        "none",
        "what tells the camera in a plain folder: nothing, the first folder of the path, c<number> in the name of the "
        "file, or data.pattern",
    )
    pattern: str | None = setting(
        None,
        "how paths in a plain folder are read: a template such as {camera}/{person}/{}, with {tracklet} where there "
        "are tracklets, or a regular expression with these groups",
        "template or expression",
    )
    frames: Count = setting(16, "frames of a tracklet that a training step takes; all count for its feature", "frames")
    mars_gallery: Literal["all", "without_queries"] = setting(
        "all", "MARS's gallery: all tracklets, as in the official evaluation, or those that are no queries"
    )
    msmt17_validation: bool = setting(True, "train on MSMT17's validation list as well, as most unsupervised code does")
    cuhk03_boxes: Literal["detected", "labeled"] = setting(
        "detected", "CUHK03's boxes: of a detector, or drawn by hand"
    )
    root: str | None = setting(
        None,
        "folder of the images, or a list of them; for drawn: where they are drawn (default data/drawn-<hash>)",
        "path",
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

    @model_validator(mode="after")
    def _pattern_can_be_read(self) -> DataSettings:
        if self.pattern is not None:
            from reidray.data.path_pattern import compiled  # the package of data is slow to import

            fields = compiled(self.pattern).fields
            if self.camera_from == "pattern" and "camera" not in fields:
                raise ValueError(f"data.camera_from=pattern needs {{camera}} in data.pattern, got {self.pattern}")
        elif self.camera_from == "pattern":
            raise ValueError("data.camera_from=pattern needs data.pattern, for example {camera}/{person}/{}")
        return self


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

    backbone: BackboneName | TimmName = setting("small", "trunk; small and osnet_x0_25 are meant for CPUs")
    weights: str = setting(
        "shipped",
        "shipped (small), shipped_early (small, a weaker start), imagenet (resnets), none, or a checkpoint file",
        "name or path",
    )
    pooling: Literal["avg", "max", "gem", "avg+max"] = setting("avg", "global pooling; the papers' is avg")
    part_pooling: Literal["gap", "masked"] = setting("gap", "gap: eq. 1 as printed; masked: divided by the mask's area")
    embedding_layer: Literal["keep", "drop"] = setting(
        "drop", "keep: the fully connected layer that checkpoints of OSNet have behind the pooling (512 numbers) stays"
    )
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
    eps: Part = setting(0.45, "DBSCAN radius", "Jaccard distance")
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
    camera_centring: bool = setting(
        False,
        "search neighbours by features without what the images of a camera have in common, where cameras are known",
    )
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
    lr_every: Epochs = epochs_setting(0.84, "after which the learning rate falls, each time (papers: 20 of 50 or 60)")
    warm_up: CountOrZero = setting(0, "updates in which learning rates rise linearly to their full value", "updates")
    lr_factor: Positive = setting(0.1, "factor by which it falls")
    extract_batch: Count = setting(64, "images extracted at once; batches never cross a shard", "images")
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = setting(
        0.0,
        "decay of the running mean of the weights (EMA), which extracts, labels and is reported; 0: the weights as "
        "trained",
    )
    clean_statistics: CountOrZero = setting(
        0,
        "images of which batch norms take their statistics anew before each extraction and evaluation, without "
        "augmentation; 0: those that training leaves",
        "images",
    )
    precision: Literal["float32", "bfloat16"] = setting("float32", "autocast of the forward pass")
    compile: bool = setting(
        False,
        "run the trunk through torch.compile: results differ in the last bits, the first update waits for the compiler",
    )


class EvaluateSettings(Section):
    """When and on what the model is evaluated; never used for training or selection."""

    every: CountOrZero = setting(0, "evaluate after every so many epochs; 0: only before and after", "epochs")
    split: Literal["test", "validation"] = setting("test", "query and gallery of the test or of the validation split")
    same_camera: bool = setting(
        False, "matches of the query's own camera count, too: for data of one camera; no data set's official protocol"
    )
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
    search_block: Count = setting(
        4096,
        "images of a block of labelling by blocks, at least; whole shards, and more where that makes over 128 blocks",
        "images",
    )
    max_failures: Annotated[int, Field(ge=-1)] = setting(
        3, "crashes survived, of workers and of each actor; -1: any number", "crashes"
    )
    start_timeout: Positive = setting(60.0, "wait for machines, of workers and of actors, before giving up", "seconds")
    keep_checkpoints: Count = setting(2, "newest checkpoints kept", "checkpoints")
    keep_best: Literal["none", "camera_cycle"] = setting(
        "none",
        "report the network with the best of a criterion that needs no truth, instead of the last one; labels once "
        "more at the end. camera_cycle: images that are found again from another camera",
    )
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
    report: bool = setting(
        True, "write report.html at the end of the run: clusters as thumbnails, curves, a map; takes some seconds"
    )
    trace_epoch: CountOrZero | None = setting(
        None, "epoch whose timeline is kept, counted from 0 as in the run folder's files", "epoch"
    )
