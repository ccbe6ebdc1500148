"""Cameras of embedded images: told by paths as in training or as one says, kept by name, searched by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import reidray
from reidray import commands
from reidray.config import Settings
from reidray.data import folder
from reidray.inference import Model
from reidray.storage.pack import pack
from reidray.training.loop import new_model

HARMFUL = "<script>alert(1)<∕script>"


def _model(place: Path, **data: Any) -> Model:
    """Start weights, with the settings of a run that had these settings of data."""
    small = {"backbone": "small", "weights": "none", "bn_group_size": 16}
    settings = Settings.model_validate(
        {"data": {"height": 32, "width": 16, "root": str(place), **data}, "model": small}
    )
    return Model(new_model(settings), settings, str(place))


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    place = tmp_path / "crops"
    for number, name in enumerate(
        ["door1/a_c3.jpg", "door1/b_c03.jpg", "door10/monday/c_c7.jpg", f"{HARMFUL}/d.jpg", "e_c3.jpg"]
    ):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        colours = np.random.default_rng(number).integers(0, 256, (4, 2, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((24, 48)).save(place / name)
    return place


def _cameras(gallery: reidray.Gallery) -> dict[str, str | None]:
    return {Path(name).name[0]: camera for name, camera in zip(gallery.names, gallery.cameras, strict=True)}


BY_FOLDER = {"a": "door1", "b": "door1", "c": "door10", "d": HARMFUL, "e": None}
BY_NAME = {"a": "3", "b": "3", "c": "7", "d": None, "e": "3"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"dataset": "folder"}, dict.fromkeys("abcde")),
        ({"dataset": "folder", "camera_from": "folder"}, BY_FOLDER),
        ({"dataset": "folder", "camera_from": "name"}, BY_NAME),
        ({"dataset": "folder", "pattern": "door{camera}/{}"}, {"a": "1", "b": "1", "c": None, "d": None, "e": None}),
        ({"dataset": "market1501"}, BY_NAME),
        ({"dataset": "list"}, dict.fromkeys("abcde")),
    ],
)
def test_cameras_are_told_by_what_told_them_in_training(
    crops: Path, tmp_path: Path, data: dict[str, Any], expected: dict[str, str | None]
) -> None:
    gallery = reidray.Gallery(tmp_path / "people.parquet", _model(tmp_path, **data))
    assert gallery.add(crops).added == 5  # an image that does not fit the pattern is one of an unknown camera
    assert _cameras(gallery) == expected


def test_another_way_can_be_said_and_the_cameras_of_known_images_follow(crops: Path, tmp_path: Path) -> None:
    model = _model(tmp_path, dataset="folder", camera_from="folder")
    gallery = reidray.Gallery(tmp_path / "people.parquet", model)
    assert (gallery.add(crops, camera_from="none").moved, _cameras(gallery)) == (0, dict.fromkeys("abcde"))
    before = gallery.features
    added = gallery.add(crops)
    assert (added.added, added.known, added.moved) == (0, 5, 4)
    assert added.notes[0] == f"3 cameras: {HARMFUL} (1 image), door1 (2 images), door10 (1 image)"
    assert re.match("caution: 1 of 5 images have no camera, such as e_c3.jpg", added.notes[1])
    assert _cameras(gallery) == BY_FOLDER
    assert gallery.add(crops, camera_from="name").moved == 4
    assert _cameras(gallery) == {**BY_NAME, "d": HARMFUL}  # what is not told stays as it was
    assert gallery.add(crops, pattern="{camera}/**").moved == 3
    np.testing.assert_array_equal(gallery.features, before)


def test_files_and_patterns_tell_their_camera_where_they_can(crops: Path, tmp_path: Path) -> None:
    model = _model(tmp_path, dataset="folder", camera_from="folder")
    for number, (images, asked, expected) in enumerate(
        [
            (f"{crops}/*/*.jpg", None, ["door1", "door1", HARMFUL]),
            (f"{crops}/door1/*.jpg", None, [None, None]),  # the folder of cameras is not seen from there
            (crops / "door10" / "monday" / "c_c7.jpg", "name", ["7"]),
            ([np.zeros((8, 8, 3), np.uint8)], "folder", [None]),
        ]
    ):
        gallery = reidray.Gallery(tmp_path / f"{number}.parquet", model)
        gallery.add(images, camera_from=asked)
        assert sorted(gallery.cameras, key=str) == sorted(expected, key=str), images


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            {"camera_from": "folder"},
            r"expected folders of cameras with images, got 2 images and none of them so .*: name the folder above them",
        ),
        ({"pattern": "{camera}/{}"}, r"expected paths like \{camera\}/\{\}, got 2 images and none"),
        ({"camera_from": "pattern"}, r"cameras from a pattern need one with \{camera\}.*got none"),
        ({"pattern": "{person}/{}"}, r"cameras from a pattern need one with \{camera\}.*got \{person\}/\{\}"),
        ({"camera_from": "door"}, "expected cameras from none, folder, name, pattern, got 'door'"),
    ],
)
def test_what_is_asked_for_and_tells_nothing_is_refused(
    crops: Path, tmp_path: Path, asked: dict[str, str], sentence: str
) -> None:
    gallery = reidray.Gallery(tmp_path / "people.parquet", _model(tmp_path))
    with pytest.raises(ValueError, match=sentence):
        gallery.add(crops / "door1", **asked)
    assert not gallery.path.exists()


def test_cameras_of_packs_have_their_names_and_those_of_folders_are_the_same(crops: Path, tmp_path: Path) -> None:
    model = _model(tmp_path, dataset="folder", camera_from="folder")
    for name, camera_from in (("named", "folder"), ("numbered", "name")):
        packed = folder.read(crops, camera_from=camera_from)
        pack(packed, tmp_path / name, images_per_shard=16, max_pixels=10**7, max_bytes=10**7)
    gallery = reidray.Gallery(tmp_path / "people.parquet", model)
    gallery.add(tmp_path / "named" / "train")
    assert _cameras(gallery) == BY_FOLDER
    gallery.add(crops)
    assert gallery.images_by_camera == {HARMFUL: 2, "door1": 4, "door10": 2}
    gallery.add(tmp_path / "numbered" / "train")
    assert gallery.images_by_camera == {"3": 3, "7": 1, HARMFUL: 2, "door1": 4, "door10": 2}
    assert gallery.add(tmp_path / "named" / "train", camera_from="name").moved == 4
    other = reidray.Gallery(tmp_path / "other.parquet", model)
    other.add(tmp_path / "named" / "train", camera_from="name")
    assert _cameras(other) == BY_NAME


def test_the_commands_take_names(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _model(tmp_path)
    for module in ("embed", "search"):
        monkeypatch.setattr(f"reidray.commands.{module}.load", lambda _: model)
    file = str(tmp_path / "people.parquet")
    commands.run(
        "embed",
        ["--run", str(tmp_path), "--gallery", file, "--camera-from", "folder", str(crops)],
        prog="reidray embed",
    )
    assert "3 cameras: " in capsys.readouterr().err
    photo = str(crops / "e_c3.jpg")
    for words, expected in (
        ([], {"door1", "door10", HARMFUL, None}),
        (["--camera", "door1", "--camera", "door10"], {"door1", "door10"}),
        (["--not-camera", "door1"], {"door10", HARMFUL, None}),
    ):
        commands.run("search", ["--run", str(tmp_path), "--gallery", file, *words, photo], prog="reidray search")
        lines = capsys.readouterr().out.splitlines()
        assert {line.partition("  camera ")[2] or None for line in lines} == expected
