"""The ledger of a search: lines that survive a crash, and measures read from the trials' folders."""

from __future__ import annotations

from pathlib import Path

from reidray.config import Settings
from reidray.storage.runfolder import RunFolder
from reidray.tuning.ledger import Ledger


def test_what_began_and_ended_is_read_back_in_order(tmp_path: Path):
    ledger = Ledger(tmp_path, "stability")
    assert ledger.entries() == []
    ledger.began(0, {"method.eps": 0.4})
    ledger.began(1, {"method.eps": 0.5})
    ledger.ended(1, "crashed", "out of memory", 3.0)
    ledger.ended(1, "failed", "all images are outliers", 4.0)
    first, second = Ledger(tmp_path, "stability").entries()
    assert (first.values, first.state, first.ended) == ({"method.eps": 0.4}, None, False)
    assert (second.state, second.sentence, second.seconds, second.ended) == (
        "failed",
        "all images are outliers",
        7.0,
        True,
    )
    assert Ledger(tmp_path, "stability").entry(1) == second


def test_a_line_that_a_crash_cut_short_is_passed_over_and_spoils_no_later_one(tmp_path: Path):
    ledger = Ledger(tmp_path, "stability")
    ledger.began(0, {})
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"trial": 1, "val')
    assert [entry.trial for entry in ledger.entries()] == [0]
    ledger.began(1, {"method.eps": 0.5})
    assert [entry.trial for entry in ledger.entries()] == [0, 1]
    assert ledger.entry(1).values == {"method.eps": 0.5}


def test_scores_and_measures_are_those_of_the_trials_run_folder(tmp_path: Path):
    ledger = Ledger(tmp_path, "stability")
    ledger.began(0, {})
    run = RunFolder.create(ledger.trial_folder(0), Settings())
    run.add_epoch({"epoch": 0, "silhouette": 0.1})
    assert (ledger.entry(0).epochs, ledger.entry(0).scores, ledger.entry(0).score) == (1, {}, None)
    run.add_epoch({"epoch": 1, "stability": 0.7, "silhouette": 0.2})
    run.write_result({"after": {"mAP": 61.5, "rank1": 70.0, "mINP": 1.0}})
    entry = ledger.entry(0)
    assert (entry.scores, entry.score) == ({2: 0.7}, 0.7)
    assert (entry.measures["silhouette"], entry.measures["mAP"], entry.measures["rank1"]) == (0.2, 61.5, 70.0)


def test_measures_of_a_run_that_chose_its_network_are_of_the_labels_that_judged_it(tmp_path: Path):
    ledger = Ledger(tmp_path, "camera_cycle")
    ledger.began(0, {})
    run = RunFolder.create(ledger.trial_folder(0), Settings())
    for epoch, cycle in enumerate((0.2, 0.6, 0.3)):
        run.add_epoch({"epoch": epoch, "camera_cycle": cycle})
    run.write_result({"after": {"mAP": 61.5, "rank1": 70.0}, "selected": {"epoch": 0, "criterion": 0.6}})
    entry = ledger.entry(0)
    assert (entry.epochs, entry.score, entry.scores) == (3, 0.6, {1: 0.2, 2: 0.6, 3: 0.6})
    assert (entry.measures["camera_cycle"], entry.measures["mAP"]) == (0.6, 61.5)
