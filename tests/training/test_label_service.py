"""The pool of labellers as its caller sees it: turns, and the shards that are not looked at yet."""

import numpy as np
import pytest

from reidray.bank import BankShard, InProcess, MemoryBank
from reidray.config import Settings
from reidray.methods.label_search import Inputs, Labels
from reidray.training.label_service import LabelService
from reidray.training.label_tables import LabelSummary, write_labels

GRAMS = {"grams": np.zeros((1, 2, 1, 2), np.float32)}


class Slow:
    """A labeller whose results are there when they are told to be."""

    def __init__(self):
        self.asked, self.ready = [], False

    def submit(self, method, *arguments):
        self.asked.append((method, *arguments))
        return self

    def result(self):
        return LabelSummary(3, 1, {"silhouette": 0.5})

    def done(self):
        return self.ready


def test_shards_are_looked_at_by_turns_and_those_on_their_way_are_counted():
    members = [Slow(), Slow()]
    service = LabelService(members, Settings(), MemoryBank([], {}))
    assert service.queue() == 0
    for shard in range(5):
        service.parse(shard, GRAMS)
    assert [len(member.asked) for member in members] == [3, 2]
    assert all(method == "parse" and arrays == GRAMS for member in members for method, arrays in member.asked)
    assert service.queue() == 5
    members[0].ready = True
    assert service.queue() == 2
    service.parse(5, GRAMS)
    assert service.queue() == 3
    members[1].ready = True
    assert service.queue() == 0


def test_one_labeller_is_given_the_inputs_and_the_generation_as_they_are():
    members, inputs = [Slow(), Slow()], Inputs(4, np.array([-1, 2]), labels_N=np.array([0, -1]))
    service = LabelService(members, Settings(run={"labelling": "whole"}), MemoryBank([], {}))
    service.begin(inputs, 7)
    assert service.label(inputs, 7) == LabelSummary(3, 1, {"silhouette": 0.5})
    assert members[0].asked == [("label", inputs, 7)]
    assert members[1].asked == []


# ---- what labelling leaves in the bank


class Proxies:
    """What a method says of itself."""

    features, tables, memories = ("features",), ("alphas", "proxy"), ("features", "proxies")


class Bare:
    """A method that leaves labels alone."""

    features, tables, memories = ("features",), (), ()


def test_labels_tables_and_memories_of_any_width_are_in_the_bank_when_they_are_written():
    layout = [(0, 3), (3, 1), (4, 2)]
    bank = MemoryBank([InProcess(BankShard()) for _ in range(2)], {"train": layout})
    random = np.random.default_rng(0)
    labels = Labels(
        np.array([0, -1, 2, 1, -1, 0]),
        memories={
            "features": random.normal(size=(3, 2, 4)).astype(np.float32),
            "proxies": random.normal(size=(5, 1, 7)).astype(np.float32),
        },
        tables={"alphas": random.random((6, 3), np.float32), "proxy": random.integers(0, 5, 6)},
        figures={"silhouette": 0.25},
    )
    assert write_labels(bank, 4, labels, Proxies()) == LabelSummary(3, 2, {"silhouette": 0.25})
    for name, rows in {"labels": labels.labels_N, **labels.tables}.items():
        found = bank.read(f"train/{name}", 4)
        assert found.dtype == rows.dtype
        np.testing.assert_array_equal(found, rows)
    for name, rows_RSD in labels.memories.items():
        np.testing.assert_array_equal(bank.memory(name, 4), rows_RSD)


def test_labels_of_which_none_is_a_cluster_are_no_cluster():
    bank = MemoryBank([InProcess(BankShard())], {"train": [(0, 2)]})
    assert write_labels(bank, 0, Labels(np.array([-1, -1])), Bare()) == LabelSummary(0, 2, {})


WRONG = {
    "tables": (
        {"tables": {}},
        r"Proxies\.label must give the tables \['alphas', 'proxy'\] that the method names, got \[\]",
    ),
    "memories": ({"memories": {}}, r"must give the memories \['features', 'proxies'\]"),
    "images": ({"labels_N": np.zeros(5, np.int64)}, "must give a row for each of the 6 images in labels_N, got 5"),
    "rows": (
        {"tables": {"alphas": np.zeros((4, 3)), "proxy": np.zeros(6)}},
        "must give a row for each of the 6 images in alphas, got 4",
    ),
    "shape": (
        {"memories": {"features": np.zeros((3, 4)), "proxies": np.zeros((1, 1, 1))}},
        r"must give memory features as rows \[R, S, D\], got shape \(3, 4\)",
    ),
    "gap": (
        {"labels_N": np.array([0, 0, 2, 2, -1, 0])},
        "must number clusters without gaps, and cluster 1 has no image",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_method_that_breaks_its_word_is_told_so_before_anything_is_written(wrong):
    bank = MemoryBank([InProcess(BankShard())], {"train": [(0, 6)]})
    right = {
        "labels_N": np.array([0, -1, 2, 1, -1, 0]),
        "memories": {"features": np.zeros((3, 2, 4)), "proxies": np.zeros((5, 1, 7))},
        "tables": {"alphas": np.zeros((6, 3)), "proxy": np.zeros(6)},
    }
    change, words = WRONG[wrong]
    with pytest.raises(ValueError, match=words):
        write_labels(bank, 0, Labels(**{**right, **change}), Proxies())
    assert bank.sizes() == [{}]
