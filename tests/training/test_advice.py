"""The run's own advice: said where the criterion falls by more than chance, and only there."""

import pytest

from reidray.config import Settings
from reidray.training.advice import advice


def judged(*cycles, **settings):
    """Of labels that found these cycles, those of the start weights first."""
    epochs = [{"epoch": epoch, "camera_cycle": cycle} for epoch, cycle in enumerate(cycles)]
    return advice(Settings(**settings), epochs, 10_000)


def test_a_fall_is_said_with_both_networks_and_what_to_do():
    said = judged(0.2, 0.5, 0.6, 0.56, train={"ema": 0.0})
    assert "than after epoch 2 (camera_cycle 0.600, after epoch 3 0.560)" in said
    assert said.endswith("; train.ema=0.99 trains more steadily")


@pytest.mark.parametrize(
    "cycles",
    [
        (),
        (0.2,),
        (0.9, 0.2),  # the start weights are no network that training made
        (0.9, 0.2, 0.3),
        (0.2, 0.5, 0.6, 0.7),
        (0.2, 0.5, 0.6, 0.571),  # less than 5 % of the best
        (0.2, 0.5, 0.4, 0.6),  # has come back
        (None, None, None),  # cameras are not known
    ],
)
def test_nothing_is_said_where_there_is_no_fall(cycles):
    assert judged(*cycles) is None


def test_few_images_say_less():
    epochs = [{"epoch": 0}, {"epoch": 1, "camera_cycle": 0.5}, {"epoch": 2, "camera_cycle": 0.47}]
    assert advice(Settings(), epochs, 10_000) is not None
    assert advice(Settings(), epochs, 100) is None  # a standard error is .05


def test_a_run_that_averages_its_weights_says_nothing():
    assert judged(0.2, 0.6, 0.5) is not None
    assert judged(0.2, 0.6, 0.5, train={"ema": 0.99}) is None


def test_epochs_that_do_not_label_are_passed_over():
    epochs = [{"epoch": 1, "camera_cycle": 0.6}, {"epoch": 2}, {"epoch": 3, "camera_cycle": 0.5}, {"epoch": 4}]
    assert "after epoch 3 0.500" in advice(Settings(), epochs, 10_000)
