"""The history of a run goes through a checkpoint's JSON and back."""

import json
from dataclasses import fields

import pytest

from reidray.training.history import History, UnderWay


def full():
    """No field has its default, but for what a checkpoint cannot hold: that it could not be written."""
    return History(
        images="0123abcd",
        labelled=3,
        updates=160,
        epochs=[{"epoch": 0, "clusters": 14, "loss": 1 / 3}, {"epoch": 1, "clusters": 15, "loss": 1e-300}],
        seconds={"extract": 0.1, "label": 2.0, "train": 3e3, "evaluate": 0.0},
        evaluations={"before": {"mAP": 0.25, "ranks": [0.5, 1.0]}, "after": None},
        examples={"queries": [3, 1], "lists": [[4, 2], [0, 7]]},
        under_way=UnderWay(
            figures={"clusters": 16, "silhouette": 0.5}, losses={"contrast": [2.5, 1 / 7]}, measured={"share": [0.5]}
        ),
        to_evaluate=1,
        selected=(2, 1 / 9),
    )


def there_and_back(history):
    return History.from_tree(json.loads(json.dumps(history.as_tree())))


def test_every_field_goes_through_json_and_back():
    found = there_and_back(full())
    assert found == full()
    assert isinstance(found.under_way, UnderWay)
    for field in fields(History):
        if field.name == "not_kept":
            continue
        assert getattr(full(), field.name) != getattr(History("other"), field.name), field.name


@pytest.mark.parametrize("name", [field.name for field in fields(History)])
def test_each_field_by_itself_goes_through_json_and_back(name):
    one = History("digest")
    setattr(one, name, getattr(full(), name))
    assert there_and_back(one) == one


def test_a_run_that_has_just_begun_goes_through_json_and_back():
    one = History("digest")
    assert there_and_back(one) == one
    assert (one.labelled, one.updates, one.under_way, one.to_evaluate) == (-1, 0, None, None)
    assert one.seconds == {"extract": 0.0, "label": 0.0, "train": 0.0, "evaluate": 0.0}


def test_an_epoch_of_which_no_step_is_done_goes_through_json_and_back():
    one = History("digest", under_way=UnderWay({"clusters": 3}))
    assert there_and_back(one).under_way == UnderWay({"clusters": 3}, {})


def test_a_tree_does_not_change_with_the_history():
    one = full()
    tree = one.as_tree()
    one.epochs.append({"epoch": 2})
    one.epochs[0]["clusters"] = 0
    one.seconds["train"] += 1
    one.under_way.losses["contrast"].append(0.0)
    assert History.from_tree(tree) == full()


def test_histories_share_nothing():
    one, other = History("a"), History("b")
    one.epochs.append({})
    one.seconds["train"] = 1.0
    one.evaluations["before"] = None
    assert other == History("b")


def test_a_tree_with_an_entry_that_is_not_known_is_refused():
    with pytest.raises(TypeError, match="flavour"):
        History.from_tree({**full().as_tree(), "flavour": 1})
