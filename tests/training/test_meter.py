"""Progress of a stage that is told as a share: never backwards, never at its end before it is over."""

from types import SimpleNamespace

import pytest

from reidray.training.context import Meter


@pytest.fixture
def told(monkeypatch):
    """Events, with a clock that goes on by a second whenever it is read."""
    seconds = iter(range(1000))
    monkeypatch.setattr("reidray.training.context.time.perf_counter", lambda: float(next(seconds)))
    return []


def meter(told, *, done=0):
    def tell(**event):
        told.append((event["done"], event["images_per_second"]))

    return Meter(SimpleNamespace(ranks=SimpleNamespace(size=4), tell=tell), "label", 1000, "images", 2, done=done)


def test_a_share_is_of_all_workers_and_its_rate_of_what_was_seen(told):
    label = meter(told, done=200)
    for share in (0.2, 0.1, 0.6, 0.5, 1.0):
        label.reach(share)
    label.finish()
    counts = [done for done, _ in told]
    assert counts == [200, 600, 999, 1000]  # of 1,000; the end is told by `finish` alone
    rates = [rate for _, rate in told]
    assert rates[0] is None
    assert rates[1] == pytest.approx(400 / 3)  # the clock was read twice at 0.6, and once when it began
    assert rates[2:] == [pytest.approx(799 / 5), pytest.approx(800 / 6)]


def test_shares_that_come_at_once_are_told_once(told, monkeypatch):
    label = meter(told)
    monkeypatch.setattr("reidray.training.context.time.perf_counter", lambda: 1.1)
    for share in (0.1, 0.2, 0.3):
        label.reach(share)
    assert told == [(0, None)]
