"""A method that breaks its word is stopped by one sentence, before anything wrong is trained on."""

from types import SimpleNamespace

import numpy as np
import pytest

from reidray.config import Settings
from reidray.methods.label_search import Inputs
from reidray.methods.step import EpochPlan
from reidray.training.promises import check_batches, check_judged, check_needs, checked_plans, remark_on_cameras

SETTINGS = Settings(
    method={"name": "cluster_contrast", "clusters_per_batch": 2, "images_per_cluster": 2}, model={"bn_group_size": 4}
)
LABELS = np.array([0, 0, 1, 1, -1, 2])


class Method(SimpleNamespace):
    """As much of a method as the checks read."""


def method(settings=SETTINGS, **says):
    return Method(settings=settings, **says)


def inputs(cameras=0, attributes=None):
    return Inputs(0, np.array([cameras, 1, 2]), attributes_NA=attributes)


@pytest.mark.parametrize("plans", [[], [EpochPlan(relabel=False), EpochPlan()]])
def test_a_schedule_begins_with_labels(plans):
    with pytest.raises(ValueError, match=r"Method\.schedule must begin with an epoch that labels"):
        checked_plans(method(schedule=lambda _: plans), 6)


def test_a_timeline_is_asked_for_an_epoch_of_the_schedule():
    settings = SETTINGS.model_copy(update={"run": SETTINGS.run.model_copy(update={"trace_epoch": 2})})
    plans = [EpochPlan(), EpochPlan(relabel=False)]
    with pytest.raises(ValueError, match=r"run\.trace_epoch=2 is no epoch .* has epochs 0 to 1"):
        checked_plans(method(settings, schedule=lambda _: plans), 6)
    assert checked_plans(method(settings, schedule=lambda count: [plans[0]] * count), 3) == [plans[0]] * 3


def test_side_data_that_a_method_needs_must_be_there():
    check_needs(method(needs={"cameras"}), inputs())
    check_needs(method(needs=set()), inputs(cameras=-1))
    check_needs(method(needs={"attributes"}), inputs(attributes=np.zeros((3, 2))))
    with pytest.raises(ValueError, match=r"method\.name=cluster_contrast needs the camera .* and 1 of 3 have none"):
        check_needs(method(needs={"cameras"}), inputs(cameras=-1))
    with pytest.raises(ValueError, match=r"needs attributes, and the packed images have none"):
        check_needs(method(needs={"attributes"}), inputs())
    with pytest.raises(ValueError, match=r"needs may name \['attributes', 'cameras'\], got 'depth'"):
        check_needs(method(needs={"depth"}), inputs())


def test_cameras_are_known_where_they_are_compared():
    alone = Inputs(0, np.array([2, 2, -1]))
    run = SETTINGS.run.model_copy(update={"keep_best": "camera_cycle"})
    with pytest.raises(ValueError, match=r"camera_cycle goes by features without their cameras: set method\.camera"):
        check_needs(method(SETTINGS.model_copy(update={"run": run}), needs=set()), inputs())
    own = SETTINGS.method.model_copy(update={"camera_centring": True})
    chooses = method(SETTINGS.model_copy(update={"run": run, "method": own}), needs=set())
    check_needs(chooses, inputs())
    with pytest.raises(ValueError, match=r"run\.keep_best=camera_cycle compares cameras, and .* fewer than two known"):
        check_needs(chooses, alone)
    centres = SETTINGS.model_copy(update={"method": SETTINGS.method.model_copy(update={"camera_centring": True})})
    check_needs(method(centres, needs=set()), alone)
    assert remark_on_cameras(method(SETTINGS), alone) is None
    assert remark_on_cameras(method(centres), inputs()) is None
    assert remark_on_cameras(method(centres), alone).startswith("method.camera_centring has nothing to do: ")


def test_what_run_keep_best_chooses_by_is_there():
    run = SETTINGS.run.model_copy(update={"keep_best": "camera_cycle"})
    chooses = method(SETTINGS.model_copy(update={"run": run}))
    check_judged(chooses, {"camera_cycle": 0.0})
    with pytest.raises(ValueError, match=r"run\.keep_best=camera_cycle needs that figure .* Method\.label gives none"):
        check_judged(chooses, {"silhouette": 0.5})


@pytest.mark.parametrize(
    ("batches", "sentence"),
    [
        (np.array([[0, 1, 2]]), r"must give batches of 4 images .* got shape \(1, 3\)"),
        (np.array([0, 1, 2, 3]), r"got shape \(4,\)"),
        (np.zeros((0, 4), np.int64), r"got shape \(0, 4\)"),
        (np.array([[0, 1, 2, 6]]), "must give indices of 6 images as int64"),
        (np.array([[0, 1, 2, -1]]), "must give indices of 6 images as int64"),
        (np.array([[0, 1, 2, 3]], np.int32), "must give indices of 6 images as int64"),
        (np.array([[0, 1, 2, 3], [0, 4, 1, 2]]), r"gives images without a cluster \(label -1\)"),
    ],
)
def test_batches_have_the_size_of_the_settings_and_images_with_clusters(batches, sentence):
    with pytest.raises(ValueError, match=f"Method.batches {sentence}" if "shape" not in sentence else sentence):
        check_batches(method(), batches, LABELS)


def test_batches_that_keep_their_word_pass():
    check_batches(method(), np.array([[0, 1, 2, 3], [5, 5, 1, 2]]), LABELS)
