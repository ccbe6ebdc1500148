"""Whole runs without Ray: repeatable, resumable, and measured again to the last digit."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reidray.config import Settings
from reidray.launch.launch import _next_steps, launch
from reidray.launch.prepare import prepared
from reidray.launch.run_page import _next
from reidray.storage.runfolder import RunFolder
from reidray.training.batches import Group, Step
from reidray.training.learner import Learner, Update
from tests.whole.runs import assert_close_losses, assert_same_run, epochs, evaluations, losses, result

JOBS = Path(__file__).resolve().parents[2] / "jobs"


@pytest.mark.parametrize("method", ["scwm", pytest.param("cluster_contrast", marks=pytest.mark.slow)])
def test_one_seed_gives_one_run_and_another_seed_another(
    method: str, tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    launch(tiny_settings("one", method={"name": method}))
    launch(tiny_settings("two", method={"name": method}))
    assert_same_run(tmp_path / "one", tmp_path / "two")
    launch(tiny_settings("three", method={"name": method}, train={"seed": 1, "epochs": 1}))
    assert losses(tmp_path / "three")[0] != losses(tmp_path / "one")[0]


def test_a_run_that_was_interrupted_in_the_middle_of_an_epoch_ends_like_one_that_was_not(
    tiny_settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(tiny_settings("whole", train={"epochs": 3}))
    update, steps = Learner.update, []

    def dies(learner: Learner, step: Step, groups: list[Group]) -> Update:
        steps.append(step.number)
        if len(steps) == 4 + 3:  # the third step of the second epoch
            raise KeyboardInterrupt
        return update(learner, step, groups)

    monkeypatch.setattr(Learner, "update", dies)
    with pytest.raises(KeyboardInterrupt):
        launch(tiny_settings("cut", train={"epochs": 3}))
    last = (tmp_path / "cut" / "log.txt").read_text().splitlines()[-1]
    assert last.endswith(f"interrupted; the run goes on with: reidray train --resume {tmp_path / 'cut'}")
    monkeypatch.setattr(Learner, "update", update)
    assert not (tmp_path / "cut" / "result.json").exists()
    launch(tiny_settings("cut", train={"epochs": 3}), resume=tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_lines_to_copy_are_quoted_for_a_shell(tmp_path: Path) -> None:
    place = tmp_path / "it's one"
    shown = shlex.quote(str(place))
    assert f"reidray embed --run {shown} --output" in _next_steps(place, Settings())[1]
    assert all(f"--run {shown} " in line for line, _ in _next(place) if "--run" in line)


def test_a_finished_run_that_is_given_more_epochs_is_one_of_so_many_from_then_on(
    tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    """Also where the rate falls meanwhile: shares of the epochs are counted once, when a run begins."""
    counted = {"mask_momentum_epochs": 1}
    launch(tiny_settings("three", train={"epochs": 3, "lr_every": 1}, scwm=counted))
    launch(tiny_settings("grown", train={"epochs": 2, "lr_every": 0.5}, scwm={"mask_momentum_epochs": 0.5}))
    folder = RunFolder.open(tmp_path / "grown")
    begun = folder.settings()
    assert (begun.train.lr_every, begun.scwm.mask_momentum_epochs) == (1, 1)
    longer = begun.model_copy(update={"train": begun.train.model_copy(update={"epochs": 3})})
    launch(longer, resume=folder.path)
    for what in (result, losses, epochs):
        assert what(folder.path) == what(tmp_path / "three")
    *earlier, after_two, after_three = evaluations(folder.path)
    assert [*earlier, after_three] == evaluations(tmp_path / "three")
    assert (after_two["when"], after_two["epoch"]) == ("after", 1)
    assert folder.settings().train.epochs == 3


def test_a_run_with_shared_rows_has_the_labels_and_within_1e_4_the_losses_of_one_with_all(
    tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    for replica in ("replicated", "sharded"):
        launch(tiny_settings(replica, train={"epochs": 1, "steps": 6}, run={"workers": 0, "replica": replica}))
        assert f"replica of the memories: {replica}" in (tmp_path / replica / "log.txt").read_text()
    assert_close_losses(tmp_path / "replicated", tmp_path / "sharded")
    assert result(tmp_path / "replicated")["clusters"] == result(tmp_path / "sharded")["clusters"]


def test_the_evaluation_job_repeats_the_run_to_the_last_digit(
    tiny_settings: Callable[..., Any], tiny_root: Path, tmp_path: Path
) -> None:
    launch(tiny_settings("one"))
    found = tmp_path / "figures.json"
    words = ["--checkpoint", str(tmp_path / "one"), "--json", str(found)]
    told = subprocess.run(
        [sys.executable, str(JOBS / "evaluate.py"), *words], check=True, capture_output=True, text=True
    )
    figures = json.loads(found.read_text())
    after = result(tmp_path / "one")["after"]
    assert {name: figures[name] for name in after} == after
    before = evaluations(tmp_path / "one")[0]
    assert before["when"] == "before"
    lines = {line[:16].strip(): line[16:].split() for line in told.stdout.splitlines()}
    assert lines["mAP"] == [f"{before['mAP']:.2f}", f"{after['mAP']:.2f}", f"{after['mAP'] - before['mAP']:+.2f}"]
    assert figures["parsing_mIoU"] == result(tmp_path / "one")["parsing_mIoU"]
    printed = subprocess.run([sys.executable, str(JOBS / "evaluate.py"), *words[:2], "--json"], capture_output=True)
    assert json.loads(printed.stdout) == figures
    others = tmp_path / "others"  # packed from another data set, as far as settings tell
    shutil.copytree(tiny_root.with_name(f"{tiny_root.name}-packed"), others)
    (others / "dataset.json").write_text(json.dumps({"name": "market1501", "made_with": {"dataset": "market1501"}}))
    command = [sys.executable, str(JOBS / "evaluate.py"), *words, "--packed", str(others)]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    assert re.search(rf"^mAP +{after['mAP']:.2f}$", told.stdout, re.MULTILINE)  # nobody measured these before training
    again = json.loads(found.read_text())
    assert again.pop("packed") == str(others)
    assert again == {name: value for name, value in figures.items() if name != "packed"}
    command = [sys.executable, str(JOBS / "evaluate.py"), *words, "--packed", str(tmp_path / "nothing")]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "expected packed shards with query and gallery, found no query" in refused.stderr
    assert not (tmp_path / "nothing").exists()


def test_the_embedding_job_writes_names_and_unit_vectors_in_order(
    tiny_settings: Callable[..., Any], tiny_root: Path, tmp_path: Path
) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    launch(tiny_settings("one", train={"epochs": 1}))
    packed = tiny_root.with_name(f"{tiny_root.name}-packed") / "query"
    tables = []
    for source, output in ((packed, "shards.parquet"), (tiny_root / "query", "folder.parquet")):
        words = ["--run", str(tmp_path / "one"), "--output", str(tmp_path / output), str(source)]
        subprocess.run([sys.executable, str(JOBS / "embed.py"), *words], check=True, capture_output=True)
        tables.append(pq.read_table(tmp_path / output))
    shards, folder = tables
    names = [Path(name).name for name in shards["name"].to_pylist()]
    assert names == [Path(name).name for name in folder["name"].to_pylist()] == sorted(names)
    vectors = np.array(shards["embedding"].to_pylist())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors, np.array(folder["embedding"].to_pylist()), atol=1e-5)


def test_a_run_explains_itself(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    launch(tiny_settings("one"))
    tree = json.loads((tmp_path / "one" / "result.json").read_text())
    figures = {"mAP", "rank1", "rank5", "rank10", "mINP"}
    assert set(tree["before"]) == set(tree["after"]) == figures
    assert {"extract", "label", "train", "evaluate", "total"} <= set(tree["seconds"])
    assert {"parsing_mIoU", "clusters", "ARI", "images_per_second", "config_hash", "seed", "version"} <= set(tree)
    for name in ("curves.png", "clusters.png", "part_masks.png", "ranked_lists.png"):
        assert (tmp_path / "one" / "pictures" / name).stat().st_size > 1000
    assert any((tmp_path / "one" / "tensorboard").iterdir())


def test_a_run_folder_is_never_overwritten(tiny_settings: Callable[..., Any]) -> None:
    launch(tiny_settings("one", train={"epochs": 1}))
    with pytest.raises(ValueError, match="never overwritten"):
        launch(tiny_settings("one", train={"epochs": 1}))


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (0, "nothing is evaluated: no person of query is in gallery under another camera"),
        (3, "evaluations are of 3 of"),
    ],
)
def test_queries_that_nobody_can_answer_do_not_stop_training(
    known: int, said: str, tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.copytree(prepared(tiny_settings("packs"), lambda _: None, processes=1), tmp_path / "packed")
    truth = tmp_path / "packed" / "query" / "truth.parquet"
    table = pq.read_table(truth)
    persons = [*table["person"].to_pylist()[:known], *range(90_000, 90_000 + len(table) - known)]
    pq.write_table(table.set_column(1, "person", pa.array(persons, pa.int64())), truth)
    launch(tiny_settings("one", data={"packed": str(tmp_path / "packed")}, train={"epochs": 1, "steps": 1}))
    assert said in (tmp_path / "one" / "log.txt").read_text()
    after = result(tmp_path / "one")["after"]
    assert (after is None) == (known == 0)
