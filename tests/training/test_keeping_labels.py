"""What rank 0 says while it asks how sure the last labels are: nothing, unless it takes long."""

from types import SimpleNamespace

from reidray.training import keeping_labels
from reidray.training.keeping_labels import Patient


def told(monkeypatch, *, long_seconds):
    monkeypatch.setattr(keeping_labels, "_LONG_SECONDS", long_seconds)
    monkeypatch.setattr("reidray.training.context._TELL_SECONDS", -1.0)
    events = []
    samples = SimpleNamespace(source=SimpleNamespace(count=1000), unit="tracklets")
    context = SimpleNamespace(
        ranks=SimpleNamespace(size=2), split=lambda _: samples, tell=lambda **event: events.append(event)
    )
    patient = Patient(context, 7)
    for share in (0.25, 0.5, 1.0):
        patient.reach(share)
    return events


def test_doubts_that_take_long_have_a_stage_of_their_own(monkeypatch):
    events = told(monkeypatch, long_seconds=-1.0)
    assert [event["done"] for event in events] == [250, 500, 1000]
    assert {(event["stage"], event["epoch"], event["unit"], event["total"]) for event in events} == {
        ("judge", 7, "tracklets", 1000)
    }


def test_doubts_that_are_soon_there_are_not_spoken_of(monkeypatch):
    assert told(monkeypatch, long_seconds=60.0) == []
