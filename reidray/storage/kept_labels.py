"""The labels of a run in its folder: those of every epoch, and of one labelling also how sure they are.

That is the last one, or, where the run chooses the network that it reports, the one by this network.

    clusters.parquet            name, cluster, doubt, camera, nearest: a row an image or tracklet; written at the end
    labels/epoch_0003.parquet   cluster (int32, -1 outlier), in the order of the packed training split
    labels/images.parquet       of this labelling: cluster, doubt, nearest, half (`reidray.evaluation.doubts`)
    labels/clusters.parquet     of this labelling, a row a cluster: doubt, nearest, width
    labels/sample.parquet       of this labelling: the features of some images, to draw a map of

N = images or tracklets, C = clusters, M = images of the sample, D = feature width.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reidray.arrays import Array, Floats, Ints
from reidray.evaluation.doubts import Doubts

_NAME = re.compile(r"epoch_(\d+)\.parquet")
_EPOCH = b"reidray.epoch"


@dataclass(frozen=True)
class LastLabels:
    """The labelling that a run shows: its epoch, the cluster of each image [N], its doubts, some of the features.

    sample_M: indices of images. features_MD: theirs, unit length.
    """

    epoch: int
    labels_N: Ints
    doubts: Doubts
    sample_M: Ints
    features_MD: Floats


def write_labels(run: Path, epoch: int, labels_N: Array) -> None:
    """The labels of an epoch into the run folder; written again where the epoch is done again."""
    _write(_folder(run) / f"epoch_{epoch:04d}.parquet", {"cluster": pa.array(labels_N, pa.int32())}, epoch)


def write_last(run: Path, last: LastLabels) -> None:
    """What is known of the labelling that the run shows into its folder."""
    found, folder = last.doubts, _folder(run)
    images = {
        "cluster": pa.array(last.labels_N, pa.int32()),
        "doubt": pa.array(found.doubts_N, pa.float32()),
        "nearest": pa.array(found.nearest_N, pa.int32()),
        "half": pa.array(found.halves_N, pa.int8()),
    }
    clusters = {
        "doubt": pa.array(found.doubts_C, pa.float32()),
        "nearest": pa.array(found.nearest_C, pa.int32()),
        "width": pa.array(found.widths_C, pa.float32()),
    }
    width = last.features_MD.shape[1]
    rows = pa.FixedSizeListArray.from_arrays(pa.array(last.features_MD.ravel(), pa.float32()), width)
    _write(folder / "clusters.parquet", clusters, last.epoch)
    _write(folder / "sample.parquet", {"image": pa.array(last.sample_M, pa.int64()), "feature": rows}, last.epoch)
    _write(folder / "images.parquet", images, last.epoch)


def read_last(run: Path) -> LastLabels | None:
    """The inverse of `write_last`; None where nothing was kept.

    Raises:
      ValueError: a file is damaged, or the three do not belong together.
    """
    folder = run / "labels"
    if not (folder / "images.parquet").is_file():
        return None
    images, clusters, sample = (_read(folder / f"{name}.parquet") for name in ("images", "clusters", "sample"))
    epochs = {_epoch(table) for table in (images, clusters, sample)}
    try:
        labels_N = _column(images, "cluster").astype(np.int64)
        features = sample.column("feature").combine_chunks()
        found = LastLabels(
            min(epochs),
            labels_N,
            Doubts(
                _column(images, "doubt"), _column(images, "nearest"), _column(images, "half"),
                _column(clusters, "doubt"), _column(clusters, "nearest"),
                _column(clusters, "width") if "width" in clusters.column_names else np.zeros(len(clusters), np.float32),
            ),
            _column(sample, "image"),
            features.values.to_numpy(zero_copy_only=False).reshape(len(sample), -1),
        )  # fmt: skip
    except (KeyError, AttributeError) as error:
        raise ValueError(f"{folder} does not hold the labels of a run: {error}") from error
    if len(epochs) > 1 or labels_N.max(initial=-1) >= len(clusters):
        raise ValueError(f"the files in {folder} are of different epochs: remove them, and run reidray report again")
    return found


def read_labels(run: Path) -> dict[int, Ints]:
    """The labels of every epoch that labelled, by epoch; epochs count from 0.

    Raises:
      ValueError: a file is damaged.
    """
    folder = run / "labels"
    places = sorted((int(match[1]), path) for path in folder.glob("*") if (match := _NAME.fullmatch(path.name)))
    return {epoch: _column(_read(path), "cluster").astype(np.int64) for epoch, path in places}


def write_clusters(path: Path, names: Sequence[str], cameras_N: Array, last: LastLabels) -> None:
    """clusters.parquet: who is in which cluster."""
    columns = {
        "name": pa.array(names, pa.string()),
        "cluster": pa.array(last.labels_N, pa.int32()),
        "doubt": pa.array(last.doubts.doubts_N, pa.float32()),
        "camera": pa.array(cameras_N, pa.int32()),
        "nearest": pa.array(last.doubts.nearest_N, pa.int32()),
    }
    _write(path, columns, last.epoch)


def read_cameras(path: Path) -> Array:
    """The camera of each image [N] from clusters.parquet, -1 unknown.

    Raises:
      ValueError: the file is missing or damaged.
    """
    return _column(_read(path), "camera")


def _folder(run: Path) -> Path:
    folder = run / "labels"
    folder.mkdir(exist_ok=True)
    return folder


def _write(path: Path, columns: dict[str, pa.Array], epoch: int) -> None:
    table = pa.table(columns).replace_schema_metadata({_EPOCH: str(epoch)})
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, beside, compression="zstd")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is missing or damaged ({error})") from error


def _column(table: pa.Table, name: str) -> Array:
    column: Array = table.column(name).to_numpy()
    return column


def _epoch(table: pa.Table) -> int:
    return int((table.schema.metadata or {}).get(_EPOCH, b"-1"))
