"""What a run leaves to look at: clusters.parquet, the labels of every epoch, report.html, TensorBoard's projector."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from reidray.bank import read_snapshot
from reidray.commands import compare, report
from reidray.launch.launch import launch
from reidray.storage.checkpoints import CheckpointStore
from reidray.storage.kept_labels import read_labels, read_last
from tests.whole.forms import FORMS
from tests.whole.runs import assert_same_run, epochs, result

REPORT = {"report": True}


def labels_in_checkpoint(run: Path) -> np.ndarray:
    checkpoint, _ = CheckpointStore(run / "checkpoints", keep=1).newest()
    assert checkpoint is not None
    blocks = {key: rows for key, rows in read_snapshot(checkpoint.bank).items() if key.startswith("train/labels/")}
    return np.concatenate([blocks[key] for key in sorted(blocks, key=lambda key: int(key.rpartition("/")[2]))])


def assert_clusters(run: Path) -> None:
    """clusters.parquet says what training used last, or what the chosen network said."""
    table = pq.read_table(run / "clusters.parquet").to_pydict()
    chosen = result(run).get("selected")
    labels_N = labels_in_checkpoint(run) if chosen is None else read_labels(run)[chosen["epoch"] + 1]
    np.testing.assert_array_equal(table["cluster"], labels_N)
    doubts_N, nearest_N = np.array(table["doubt"]), np.array(table["nearest"])
    assert ((doubts_N >= 0) & (doubts_N <= 1)).all()
    assert (doubts_N[labels_N < 0] == 1).all()
    assert (nearest_N != labels_N)[labels_N >= 0].all()
    assert len(set(table["name"])) == len(labels_N)
    assert set(table["camera"]) <= {-1, 0, 1, 2}


@pytest.fixture(scope="module")
def tags() -> Callable[[Path], dict[str, list[str]]]:
    def read(folder: Path) -> dict[str, list[str]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

            events = EventAccumulator(str(folder))
            events.Reload()
        found: dict[str, list[str]] = events.Tags()
        return found

    return read


def test_a_run_leaves_who_is_in_which_cluster_and_a_page_and_reports_change_nothing(
    tiny_settings: Callable[..., Any], tmp_path: Path, tags: Callable[[Path], dict[str, list[str]]]
) -> None:
    launch(tiny_settings("plain"))
    launch(tiny_settings("shown", run=REPORT))
    assert_same_run(tmp_path / "plain", tmp_path / "shown")
    run = tmp_path / "shown"
    assert not (tmp_path / "plain" / "report.html").exists()
    for folder in (tmp_path / "plain", run):
        assert_clusters(folder)
    kept = read_labels(run)
    assert list(kept) == [0, 1]
    assert [int(labels_N.max()) + 1 for labels_N in kept.values()] == [line["clusters"] for line in epochs(run)]
    page = (run / "report.html").read_text()
    for part in ("summary", "curves", "clusters", "map", "cameras", "truth", "ranked", "masks"):
        assert f'id="{part}"' in page, part
    found = tags(run / "tensorboard")
    assert {"pictures/curves", "pictures/ranked_lists", "pictures/part_masks"} <= set(found["images"])
    names = [tag.rpartition("/") for tag in found["scalars"]]
    labels = {name for group, _, name in names if group == "labels"}
    assert "clusters" in labels
    assert not labels & {name for group, _, name in names if group == "epoch"}
    assert_projector(run / "tensorboard")


def assert_projector(board: Path) -> None:
    """The projector's files belong together, and TensorBoard's own reader knows them."""
    rows = (board / "projector" / "tensors.tsv").read_text().splitlines()
    labels = (board / "projector" / "metadata.tsv").read_text().splitlines()
    assert labels[0].split("\t") == ["name", "cluster", "camera", "doubt", "person"]
    assert len(labels) == len(rows) + 1
    assert {line.count("\t") for line in labels} == {4}
    across = int(np.ceil(np.sqrt(len(rows))))
    with Image.open(board / "projector" / "sprite.png") as sprite:
        assert sprite.width == across * 32
        assert sprite.height % 64 == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from google.protobuf import text_format
        from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    config = text_format.Parse((board / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    for file in (embedding.tensor_path, embedding.metadata_path, embedding.sprite.image_path):
        assert (board / file).is_file()
    assert list(embedding.sprite.single_image_dim) == [32, 64]


@pytest.mark.parametrize(
    "form", ["buc", *(pytest.param(form, marks=pytest.mark.slow) for form in ("buc_tracklets", "ihc"))]
)
def test_methods_that_merge_leave_clusters_too(form: str, tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    launch(tiny_settings("one", **FORMS[form], run=REPORT))
    assert_clusters(tmp_path / "one")
    assert 'id="clusters"' in (tmp_path / "one" / "report.html").read_text()


def test_a_folder_without_identities_has_a_page_with_parts_but_without_truth(
    tiny_settings: Callable[..., Any], tiny_root: Path, tmp_path: Path
) -> None:
    launch(tiny_settings("draws", train={"epochs": 1, "steps": 1}))
    shutil.copytree(tiny_root / "bounding_box_train", tmp_path / "crops")
    data = {"dataset": "folder", "root": str(tmp_path / "crops")}
    launch(tiny_settings("one", data=data, train={"epochs": 1}, run=REPORT))
    assert_clusters(tmp_path / "one")
    page = (tmp_path / "one" / "report.html").read_text()
    assert 'id="masks"' in page
    assert 'id="truth"' not in page
    assert 'id="ranked"' not in page


def test_the_page_of_a_run_that_kept_nothing_is_written_from_its_checkpoint(
    tiny_settings: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(tiny_settings("one", train={"epochs": 1}))
    run = tmp_path / "one"
    before = read_last(run)
    assert before is not None
    shutil.rmtree(run / "labels")
    (run / "clusters.parquet").unlink()
    capsys.readouterr()
    report.main([str(run)], "reidray report")
    assert capsys.readouterr().out == f"open in a browser: {run / 'report.html'}\n"
    assert_clusters(run)
    after = read_last(run)
    assert after is not None
    np.testing.assert_array_equal(after.labels_N, before.labels_N)
    with pytest.raises(ValueError, match="expected at least two run folders"):
        compare.main([str(run)], "reidray compare")
    with pytest.raises(ValueError, match="is no run folder"):
        report.main([str(tmp_path)], "reidray report")
    with pytest.raises(ValueError, match=r"are not at .*give --packed DIR"):
        report.main([str(run), "--packed", str(tmp_path / "nowhere")], "reidray report")
    shutil.copytree(run, tmp_path / "two")
    compare.main([str(run), str(tmp_path / "two"), "--output", str(tmp_path / "both.html")], "reidray compare")
    assert '<a href="two/report.html"><bdi>two</bdi></a>' in (tmp_path / "both.html").read_text()
    own, both = (place.read_text() for place in (run / "report.html", tmp_path / "both.html"))
    sentences = re.findall("<li>(.*?)</li>", own.partition('<div class="cautions">')[2].partition("</div>")[0])
    assert len(sentences) > 1
    assert all(sentence in both for sentence in sentences), "the page of a run warns of more than that of several"
    with pytest.raises(ValueError, match="exists and is not overwritten"):
        compare.main([str(run), str(tmp_path / "two"), "--output", str(tmp_path / "both.html")], "reidray compare")
