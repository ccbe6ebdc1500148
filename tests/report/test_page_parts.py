"""What the page of a run says, counted by hand: origins, cameras, flags, wrong splits, words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reidray.evaluation.doubts import judge
from reidray.report.page import ComparedRun, write_comparison, write_page
from reidray.report.page.cameras import of_cameras, of_pairs
from reidray.report.page.charts import Line, chart
from reidray.report.page.clusters import shown, wrong_splits
from reidray.report.page.embedding_map import draw_map
from reidray.report.page.origins import by_epoch, origins
from reidray.report.page.words import cautions, differing, sentences
from tests.report.run_pages import HARMFUL, contents


def test_a_cluster_is_kept_merged_split_mixed_or_new() -> None:
    before_N = np.array([0] * 4 + [1] * 4 + [2] * 6 + [3] * 2 + [4] * 2 + [5] * 2 + [-1] * 3 + [6, 6])
    labels_N = np.array([0] * 4 + [0] * 4 + [1, 1, 2, 2, 2, 2] + [3] * 2 + [3] * 2 + [3] * 2 + [4] * 3 + [5, 5])
    found = origins(labels_N, before_N)
    assert [origin.kind for origin in found] == ["merged", "split", "kept", "merged", "new", "kept"]
    assert found[0].sources == ((0, 4), (1, 4))
    scattered = origins(np.zeros(9, np.int64), np.array([0, 1, 2, 3, 4, 0, 1, 2, -1]))
    assert scattered[0].kind == "merged"
    loose = origins(np.array([0, 0, 0] + [1] * 9), np.array([0, 1, 2] + [0] * 3 + [1] * 3 + [2] * 3))
    assert loose[0].kind == "mixed"
    assert by_epoch({0: before_N, 2: labels_N})[0][0] == 2
    assert by_epoch({0: before_N}) == []


def test_cameras_and_their_pairs_are_counted() -> None:
    labels_N = np.array([0, 0, 0, 1, 1, -1])
    cameras_N = np.array([0, 1, 1, 0, 0, 2])
    one, two, three = of_cameras(labels_N, cameras_N)
    assert (one.images, one.outliers, one.clusters, one.alone) == (3, 0, 2, 1)
    assert (two.clusters, two.alone) == (1, 0)
    assert (three.images, three.outliers, three.clusters) == (1, 1, 0)
    pairs = of_pairs(labels_N, cameras_N, np.array([7, 7, 8, 9, 9, 9]))
    assert pairs is not None
    assert pairs.clusters == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert pairs.matches == [[1, 2, 0], [2, 1, 0], [0, 0, 0]]
    assert pairs.right == [[100, 50, None], [50, 0, None], [None, None, None]]
    assert of_pairs(labels_N, np.full(6, -1), None) is None
    (unknown,) = of_cameras(labels_N, np.full(6, -1))
    assert (unknown.camera, unknown.images, unknown.alone) == (-1, 6, 2)


def test_doubtful_clusters_come_first_and_every_image_once() -> None:
    run = contents(200, 8)
    assert run.last is not None
    found = shown(run.last.labels_N, run.last.doubts, run.cameras_N, persons_N=run.persons_N, before_N=run.labels[0])
    assert sorted(found.order_N.tolist()) == list(range(200))
    for row in found.clusters:
        own = found.order_N[row["start"] : row["start"] + row["size"]]
        assert set(run.last.labels_N[own]) == {row["cluster"]}
        doubts = run.last.doubts.doubts_N[own]
        assert (np.diff(doubts) <= 0).all()
    assert (run.last.labels_N[found.order_N[200 - found.outliers :]] == -1).all()
    plain = [row["doubt"] for row in found.clusters if not {"camera", "merge", "split"} & set(row["flags"])]
    assert plain == sorted(plain, reverse=True)


def test_a_cluster_of_one_camera_and_one_of_several_persons_are_flagged() -> None:
    draws = np.random.default_rng(0)
    features = draws.normal(size=(3, 8))[np.repeat([0, 1, 2], 6)] + 0.1 * draws.normal(size=(18, 8))
    labels_N = np.repeat([0, 1, 2], 6)
    doubts = judge(features.astype(np.float32), labels_N)
    cameras_N = np.array([1] * 6 + [0, 1] * 6)
    persons_N = np.array([1] * 12 + [2] * 5 + [3])
    rows = shown(labels_N, doubts, cameras_N, persons_N=persons_N, before_N=None).clusters
    flags = {row["cluster"]: set(row["flags"]) & {"camera", "persons"} for row in rows}
    assert flags == {0: {"camera"}, 1: set(), 2: {"persons"}}
    (split,) = wrong_splits(labels_N, persons_N)
    assert (split["person"], split["clusters"], split["apart"]) == (1, [[0, 6], [1, 6]], 6)


def test_a_chart_leaves_out_what_is_unknown_and_is_none_without_points() -> None:
    assert chart("a", [Line("b", [(0, None)])], across="x", up="y") is None
    found = chart("a", [Line("b", [(0, 1.0), (1, None), (2, 3.0)]), Line("c", [])], across="x", up="y", whole=True)
    assert found is not None
    assert [line["name"] for line in found.lines] == ["b"]
    assert len(found.lines[0]["dots"]) == 2
    assert [word for _, word in found.xs] == ["0", "1", "2"]
    flat = chart("a", [Line("b", [(1, 2.0)])], across="x", up="y")
    assert flat is not None


def test_the_map_is_the_same_for_the_same_features_and_keeps_groups_together() -> None:
    run = contents(120, 4)
    assert run.last is not None
    features_MD = run.last.features_MD
    one, two = draw_map(features_MD, umap=False), draw_map(features_MD, umap=False)
    assert one is not None
    assert two is not None
    np.testing.assert_array_equal(one[1], two[1])
    assert one[1].min() >= 0
    assert one[1].max() <= 1
    assert draw_map(features_MD[:5], umap=False) is None


def test_what_came_out_is_said_in_words_with_what_to_be_careful_about() -> None:
    run = contents(120, 4)
    said = " ".join(sentences(run))
    assert "120 images of drawn pedestrians from 3 cameras: 2 epochs, 20 updates" in said
    assert "mAP was 50.0 before training and is 45.0 percent after" in said
    careful = " ".join(cautions(run))
    for words in ("not people", "mAP fell by 5.0", "changed a lot", "2 files could not be used"):
        assert words in careful
    unknown = replace(run, cameras_N=np.full(120, -1), evaluations=[], persons_N=None)
    assert "No camera is known" in " ".join(cautions(unknown))
    assert "Retrieval was not measured" in " ".join(sentences(unknown))


def test_runs_differ_in_settings_but_not_in_places() -> None:
    one = {"method": {"eps": 0.5, "k1": 1}, "run": {"dir": "a"}, "data": {"drawn": {"frames": 1}}}
    two = {"method": {"eps": 0.6, "k1": True}, "run": {"dir": "b"}, "data": {"drawn": {"frames": None}}}
    assert differing([one, two]) == [
        ("data.drawn.frames", ["1", "–"]),
        ("method.eps", ["0.5", "0.6"]),
        ("method.k1", ["1", "true"]),
    ]


def test_the_page_holds_names_as_text_alone(tmp_path: Path) -> None:
    page = write_page(tmp_path, contents(40, 3)).read_text()
    assert "<title>Run &lt;b&gt;run&lt;/b&gt; of tests</title>" in page
    assert "&lt;i&gt;cut short&lt;/i&gt;" in page
    assert "default-src 'none'" in page
    names = (tmp_path / "report" / "names-0000.js").read_text()
    assert names.isascii()
    inside = json.loads(names.removeprefix('reidrayPart("names-0000",').removesuffix(");\n"))
    assert set(HARMFUL) <= set(inside["names"])


@pytest.mark.parametrize("without", ["truth", "labels", "cameras", "evaluation"])
def test_a_page_without_truth_labels_cameras_or_evaluation_is_written(without: str, tmp_path: Path) -> None:
    less = {
        "truth": {"persons_N": None},
        "labels": {"last": None, "labels": {}},
        "cameras": {"cameras_N": np.full(40, -1, np.int32)},
        "evaluation": {"evaluations": [], "ranked": [], "result": None},
    }
    page = write_page(tmp_path, contents(40, 3, **less[without])).read_text()
    assert ('id="truth"' in page) == (without not in ("truth", "labels"))
    assert ('id="clusters"' in page) == (without != "labels")
    assert ('id="ranked"' in page) == (without != "evaluation")


def test_a_second_page_takes_the_place_of_the_first(tmp_path: Path) -> None:
    write_page(tmp_path, contents(600, 3))
    assert (tmp_path / "report" / "sheet-0001.jpg").exists()
    write_page(tmp_path, contents(40, 3))
    assert not (tmp_path / "report" / "sheet-0001.jpg").exists()


def test_runs_are_compared_on_one_page(tmp_path: Path) -> None:
    one, two = contents(40, 3), contents(40, 3, title="two", result=None)
    write_comparison(tmp_path / "page.html", [ComparedRun("<b>1</b>", one, "1/report.html"), ComparedRun("2", two)])
    page = (tmp_path / "page.html").read_text()
    assert '<a href="1/report.html"><bdi>&lt;b&gt;1&lt;/b&gt;</bdi></a>' in page
    assert "None: the runs have the same settings." in page
