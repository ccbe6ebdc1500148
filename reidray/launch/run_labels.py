"""Who is in which cluster at the end of a run: `clusters.parquet`, and what it is made from.

N = images or tracklets.
"""

from __future__ import annotations

import numpy as np

from reidray.bank import read_snapshot
from reidray.config import Settings
from reidray.evaluation.doubts import judge
from reidray.launch.inference import extracted, load_model
from reidray.methods import make_method
from reidray.storage.checkpoints import CheckpointStore
from reidray.storage.kept_labels import LastLabels, read_last, write_clusters, write_labels, write_last
from reidray.storage.runfolder import RunFolder
from reidray.training.context import open_split
from reidray.training.images import Samples
from reidray.training.keeping_labels import sample_of


def write_who_is_where(settings: Settings, packed: str, folder: RunFolder) -> LastLabels | None:
    """Writes clusters.parquet into a run folder; what it holds, None where the run kept no labels."""
    last = read_last(folder.path)
    if last is not None:
        source = open_split(settings, packed, "train").source
        write_clusters(folder.path / "clusters.parquet", source.names, source.cameras_N, last)
    return last


def labels_of_checkpoint(settings: Settings, packed: str, folder: RunFolder) -> LastLabels:
    """The labels of a run that kept none beside its checkpoints; how sure they are by features that are extracted anew.

    Raises:
      ValueError: there is no whole checkpoint, or it is of other images.
    """
    checkpoint, _ = CheckpointStore(folder.checkpoints, keep=1).newest()
    if checkpoint is None:
        raise ValueError(f"{folder.path} has no whole checkpoint: nothing says who is in which cluster")
    blocks = {key: rows for key, rows in read_snapshot(checkpoint.bank).items() if key.startswith("train/labels/")}
    labels_N = np.concatenate([blocks[key] for key in sorted(blocks, key=lambda key: int(key.rpartition("/")[2]))])
    samples = open_split(settings, packed, "train")
    if samples.source.count != len(labels_N) or samples.source.digest != checkpoint.history["images"]:
        raise ValueError(
            f"the images in {packed} are not those that {folder.path} was trained on: give --packed DIR of the old ones"
        )
    features_ND = _features(settings, folder, samples)
    doubts = judge(features_ND, labels_N)
    sample_M = sample_of(len(labels_N))
    last = LastLabels(checkpoint.history["labelled"], labels_N, doubts, sample_M, features_ND[sample_M])
    write_labels(folder.path, last.epoch, labels_N)
    write_last(folder.path, last)
    return last


def _features(settings: Settings, folder: RunFolder, samples: Samples) -> np.ndarray:
    """What the run's network says of its training images, as it is clustered: unit rows [N, D]."""
    model, _ = load_model(folder.path)
    method = make_method(settings)
    shards = extracted(model, settings, samples, method.to_label, lambda _: None)
    rows_ND = np.concatenate([shard.arrays[method.features[0]][:, 0] for shard in shards])
    return rows_ND / np.maximum(np.linalg.norm(rows_ND, axis=1, keepdims=True), 1e-12)
