"""What rank 0 says while it asks how sure the last labels are: nothing, unless there are many."""

from types import SimpleNamespace

import numpy as np
import pytest

from reidray.methods.label_search import Space
from reidray.training import keeping_labels


class Labellers:
    """They judge in three steps."""

    def judge(self, epoch, space, labels_N, progress=lambda _: None):
        for share in (0.25, 0.5, 1.0):
            progress(share)
        return epoch, space, len(labels_N)


@pytest.mark.parametrize(("count", "told"), [(1000, [0, 250, 500, 999, 1000]), (999, [])])
def test_doubts_of_many_images_have_a_stage_of_their_own(monkeypatch, count, told):
    monkeypatch.setattr(keeping_labels, "_MANY", 1000)
    monkeypatch.setattr("reidray.training.context._TELL_SECONDS", -1.0)
    events = []
    context = SimpleNamespace(
        ranks=SimpleNamespace(size=2),
        split=lambda _: SimpleNamespace(unit="tracklets"),
        tell=lambda **event: events.append(event),
        labellers=Labellers(),
    )
    space = Space("features")
    assert keeping_labels._judged(context, 7, space, np.zeros(count, np.int64)) == (7, space, count)
    assert [event["done"] for event in events] == told
    assert {(event["stage"], event["epoch"], event["unit"]) for event in events} <= {("judge", 7, "tracklets")}
