"""Learning rates rise in the first updates, by hand."""

from reidray.training.epoch_updates import warmth


def test_the_rate_rises_linearly_and_stays():
    assert [warmth(updates, 4) for updates in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_without_warm_up_the_first_update_has_the_whole_rate():
    assert warmth(0, 0) == 1.0
