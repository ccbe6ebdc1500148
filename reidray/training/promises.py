"""What a method promises and the engine relies on, checked before anything wrong is trained on.

N = images, B = global batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reidray.arrays import Ints
from reidray.methods.label_search import Inputs
from reidray.methods.method import Method
from reidray.methods.step import EpochPlan

_SIDE_DATA = {"cameras", "attributes"}


def checked_plans(method: Method, num_images: int) -> list[EpochPlan]:
    """The method's schedule; with run.keep_best an epoch more, which labels and so judges the last network.

    Raises:
      ValueError: it has no epoch, its first one has no labels, run.trace_epoch is none of it, or run.keep_best cannot
        choose among the networks of this method.
    """
    plans, name = list(method.schedule(num_images)), type(method).__name__
    if not plans or not plans[0].relabel:
        raise ValueError(f"{name}.schedule must begin with an epoch that labels: there are no labels before it")
    if (criterion := method.settings.run.keep_best) != "none":
        if method.selects_network:
            raise ValueError(
                f"run.keep_best={criterion} has nothing to choose: method.name={method.settings.method.name} chooses "
                "the network that is reported by a criterion of its own; leave run.keep_best out"
            )
        if method.settings.method.labels == "ground_truth":
            raise ValueError(
                f"run.keep_best={criterion} judges pseudo-labels, and method.labels=ground_truth has none: leave it out"
            )
        plans.append(EpochPlan(rate=plans[-1].rate, trains=False))
    trace = method.settings.run.trace_epoch
    if trace is not None and trace >= len(plans):
        raise ValueError(
            f"run.trace_epoch={trace} is no epoch of the run: the schedule of {name} has epochs 0 to {len(plans) - 1}"
        )
    return plans


def check_needs(method: Method, inputs: Inputs) -> None:
    """Whether the images have the side data that the method names in `needs`, and run.keep_best.

    Raises:
      ValueError: some of it is missing.
    """
    name = method.settings.method.name
    if method.settings.run.keep_best == "camera_cycle":
        if not method.settings.method.camera_centring:
            raise ValueError(
                "run.keep_best=camera_cycle goes by features without their cameras: set method.camera_centring"
            )
        if inputs.num_cameras < 2:
            raise ValueError(
                "run.keep_best=camera_cycle compares cameras, and the training images are of fewer than two known "
                "ones: say where they stand (data.camera_from), or leave run.keep_best out"
            )
    if unknown := method.needs - _SIDE_DATA:
        raise ValueError(f"{type(method).__name__}.needs may name {sorted(_SIDE_DATA)}, got {min(unknown)!r}")
    without = int((inputs.cameras_N < 0).sum())
    if "cameras" in method.needs and without:
        raise ValueError(
            f"method.name={name} needs the camera of every training image, and {without:,} of "
            f"{len(inputs.cameras_N):,} have none"
        )
    if "attributes" in method.needs and inputs.attributes_NA is None:
        raise ValueError(f"method.name={name} needs attributes, and the packed images have none")


def remark_on_cameras(method: Method, inputs: Inputs) -> str | None:
    """What to say of settings about cameras where the images do not know theirs."""
    settings = method.settings
    if settings.method.camera_centring and "method.camera_centring" not in settings.unread and inputs.num_cameras < 2:
        return (
            "method.camera_centring has nothing to do: the training images are of fewer than two known cameras "
            "(data.camera_from says where cameras stand)"
        )
    return None


def check_judged(method: Method, figures: Mapping[str, Any]) -> None:
    """Whether the labels of an epoch have the figure by which run.keep_best chooses.

    Raises:
      ValueError: they have not.
    """
    criterion = method.settings.run.keep_best
    if figures.get(criterion) is None:
        raise ValueError(
            f"run.keep_best={criterion} needs that figure of every labelling, and {type(method).__name__}.label gives "
            "none: give it (`Clustering.figures`), or leave run.keep_best out"
        )


def check_batches(method: Method, batches: Ints, labels_N: Ints) -> None:
    """Whether `Method.batches` gave what it has to.

    Raises:
      ValueError: another shape, an image that is not there, or one without a cluster.
    """
    what, size = f"{type(method).__name__}.batches", method.settings.batch_size
    if batches.ndim != 2 or batches.shape[1] != size or not len(batches):
        raise ValueError(
            f"{what} must give batches of {size} images (method.clusters_per_batch x method.images_per_cluster) as "
            f"[steps, {size}], got shape {batches.shape}"
        )
    if batches.dtype != np.int64 or batches.min() < 0 or batches.max() >= len(labels_N):
        raise ValueError(f"{what} must give indices of {len(labels_N)} images as int64")
    if (labels_N[batches] < 0).any():
        raise ValueError(f"{what} gives images without a cluster (label -1): leave them out")
