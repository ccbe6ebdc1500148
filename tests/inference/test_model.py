"""`reidray.load`, `Model.embed`, `Gallery.add` and `reidray.evaluate` on a run of seconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import reidray
from reidray.launch.launch import launch


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> Path:
    from reidray.config import Settings
    from tests.conftest import TINY

    tree = json.loads(json.dumps(TINY))
    place = tmp_path_factory.mktemp("run") / "one"
    tree["data"]["root"], tree["run"]["dir"], tree["train"]["epochs"] = str(tiny_root), str(place), 1
    launch(Settings.model_validate(tree))
    return place


@pytest.fixture(scope="module")
def model(run_folder: Path) -> reidray.Model:
    return reidray.load(run_folder)


@pytest.fixture
def files(tiny_root: Path) -> list[Path]:
    return sorted((tiny_root / "query").glob("*.jpg"))


def test_every_kind_of_image_gives_the_same_features(model: reidray.Model, tiny_root: Path, files: list[Path]) -> None:
    names, folder = model.embed(tiny_root / "query")
    assert names == [file.name for file in files]
    assert folder.dtype == np.float32
    assert folder.shape == (len(files), model.width)
    np.testing.assert_allclose(np.linalg.norm(folder, axis=1), 1, atol=1e-5)
    pictures = [Image.open(file).convert("RGB") for file in files]
    for given in (
        str(tiny_root / "query"),
        files,
        [str(file) for file in files],
        str(tiny_root / "query" / "*.jpg"),
        pictures,
        [np.asarray(picture) for picture in pictures],
        (str(file) for file in files),
    ):
        np.testing.assert_array_equal(model.embed(given)[1], folder)
    np.testing.assert_allclose(model.embed(files[0])[1], folder[:1], atol=1e-5)


def test_a_packed_split_gives_the_features_of_its_run(model: reidray.Model, tiny_root: Path) -> None:
    packed = tiny_root.with_name(f"{tiny_root.name}-packed") / "query"
    names, features = model.embed(packed)
    assert [Path(name).name for name in names] == model.embed(tiny_root / "query").names
    np.testing.assert_allclose(features, model.embed(tiny_root / "query").features_ND, atol=1e-5)


def test_the_id_is_the_models_and_changes_with_a_weight(model: reidray.Model, run_folder: Path) -> None:
    assert reidray.load(run_folder).id == model.id
    other = reidray.load(run_folder)
    next(other.network.parameters()).data[0] += 1e-3
    assert other.id != model.id


def test_files_of_a_folder_that_cannot_be_used_are_named_and_left_out(
    model: reidray.Model, files: list[Path], tmp_path: Path
) -> None:
    for file in files[:3]:
        shutil.copy(file, tmp_path)
    (tmp_path / "short.jpg").write_bytes(files[0].read_bytes()[:300])
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match="left out 1") as told:
        names, features = model.embed(tmp_path)
    assert names == [file.name for file in files[:3]]
    assert len(features) == 3
    assert {name for name in ("short.jpg", "empty.jpg") if any(name in str(one.message) for one in told)} == {
        "short.jpg",
        "empty.jpg",
    }


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("nothing.jpg", "nothing is there"),
        ("*.nothing", "nothing fits this pattern"),
        (np.zeros((4, 4), np.uint8), "expected an image as uint8"),
        (np.zeros((4, 4, 3), np.float32), "expected an image as uint8"),
        (3, "expected a folder, a file"),
        ([], "expected at least one image, got none"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(
    model: reidray.Model, given: Any, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        model.embed(given)


def test_an_image_that_was_given_by_itself_is_not_passed_over(model: reidray.Model, tmp_path: Path) -> None:
    (tmp_path / "short.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"short\.jpg: expected"):
        model.embed(tmp_path / "short.jpg")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no whole checkpoint"):
        reidray.load(tmp_path)
    with pytest.raises(ValueError, match="no folder is there"):
        reidray.load(tmp_path / "nothing")


def test_a_gallery_grows_without_embedding_anew_and_finds_a_photo(
    model: reidray.Model, files: list[Path], tmp_path: Path
) -> None:
    crops = tmp_path / "crops"
    crops.mkdir()
    for file in files[:5]:
        shutil.copy(file, crops)
    gallery = reidray.Gallery(tmp_path / "people.parquet", model)
    added = gallery.add(crops)
    assert (added.added, added.known, len(gallery)) == (5, 0, 5)
    shutil.copy(files[5], crops)
    added = gallery.add(crops)
    assert (added.added, added.known, len(gallery)) == (1, 5, 6)
    for place in (crops / files[5].name, str(crops / "*.jpg"), crops):  # the same files, named otherwise
        assert gallery.add(place).added == 0
    (crops / "broken.jpg").write_bytes(b"no image")
    added = gallery.add(crops)
    assert (added.added, added.known, len(added.left_out)) == (0, 6, 1)
    shutil.copy(files[7], crops / files[0].name)
    added = gallery.add(crops)
    assert (added.added, added.changed, len(gallery)) == (1, 1, 6)
    assert gallery.search(files[7], k=1)[0].name == files[0].name
    best = gallery.search(files[5], k=2)[0]
    assert best.name == files[5].name
    assert best.path == crops / files[5].name
    assert best.similarity == pytest.approx(1.0, abs=1e-5)
    again = reidray.Gallery(tmp_path / "people.parquet", model).search(np.asarray(Image.open(files[5])), k=2)
    assert [match.name for match in again] == [match.name for match in gallery.search(files[5], k=2)]


def test_evaluate_gives_the_runs_figures_on_its_data_and_takes_others(
    model: reidray.Model, run_folder: Path, tiny_root: Path
) -> None:
    after = json.loads((run_folder / "result.json").read_text())["after"]
    figures = reidray.evaluate(model)
    assert {name: figures[name] for name in after} == after
    both = reidray.evaluate(model, [tiny_root, tiny_root.with_name(f"{tiny_root.name}-packed")])
    assert [{name: one[name] for name in after} for one in both.values()] == [after, after]
    with pytest.raises(ValueError, match="belongs to the model, which is trained"):
        reidray.evaluate(model, settings={"model.pooling": "max"})


def test_data_of_one_camera_are_evaluated_where_that_is_asked_for(
    model: reidray.Model, tiny_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "one camera"
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (root / folder).mkdir(parents=True)
        for file in sorted((tiny_root / folder).glob("*.jpg")):
            person, rest = file.name.split("_c")
            shutil.copy(file, root / folder / f"{person}_c1{rest[1:]}")
    given = {"data.dataset": "market1501"}
    with pytest.raises(ValueError, match="no query has a true match"):
        reidray.evaluate(model, root, settings=given)
    figures = reidray.evaluate(model, root, settings={**given, "evaluate.same_camera": True})
    assert figures["num_valid_queries"] == len(list((root / "query").iterdir()))
    assert 0 < figures["mAP"] <= 100


def test_training_from_python_gives_a_run_that_loads(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    settings = tiny_settings("two", train={"epochs": 1, "steps": 2}).model_dump(mode="json")
    flat = {
        f"{section}.{name}": value
        for section in ("method", "train", "model")
        for name, value in settings[section].items()
    }
    events: list[str] = []
    run = reidray.train(
        settings["data"]["root"],
        settings={**flat, "data.dataset": "drawn", "data.seed": 5, "data.images_per_shard": 64}
        | {f"data.drawn.{name}": value for name, value in settings["data"]["drawn"].items()}
        | {"run.workers": 0, "run.dir": str(tmp_path / "two"), "scwm.difficulty_neighbours": 6},
        watch=lambda event: events.append(event["kind"]),
    )
    assert run.path == tmp_path / "two"
    assert run.result["clusters"] > 0
    assert "epoch" in events
    assert run.load().width > 0
