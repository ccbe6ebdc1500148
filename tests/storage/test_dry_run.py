"""`reidray prepare --dry-run`: what would be read, before anything is written; --list-skipped: all that is left out."""

import numpy as np
import pytest
from PIL import Image

from reidray.commands import prepare
from reidray.config import Settings
from reidray.launch.account import account
from reidray.settings_io import from_words, settings_from

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 16, 3), np.uint8)


def crops(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(root / name)
    return root


def printed(capsys, *words):
    prepare.main(words, "reidray prepare")
    return capsys.readouterr().out.splitlines()


def test_nothing_is_drawn_where_nothing_was_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"reidray prepare crops/ --dry-run shows .*, reidray prepare crops/ packs it"):
        prepare.main([], "reidray prepare")
    assert list(tmp_path.iterdir()) == []


def test_splits_persons_cameras_and_examples_are_shown_and_nothing_is_written(tmp_path, capsys):
    root = crops(
        tmp_path / "data",
        *(
            f"{split}/cam{camera}/{person}/1.png"
            for split in ("train", "query", "gallery")
            for camera in (1, 2)
            for person in ("anna", "bob")
        ),
    )
    (root / "train" / "notes.txt").touch()
    lines = printed(
        capsys,
        "--dry-run",
        "--list-skipped",
        "data.dataset=folder",
        f"data.root={root}",
        "data.pattern={camera}/{person}/{}",
    )
    for line in (
        "train: 4 images, 2 persons, 2 cameras",
        "    images of each camera: cam1 2, cam2 2",
        "    train/cam1/anna/1.png -> person anna, camera cam1",
        "    gallery/cam2/bob/1.png -> person bob, camera cam2",
        "left out 1: not an image (such as train/notes.txt)",
        f"it would be packed into {root}-packed",
        "train/notes.txt\tnot an image",
    ):
        assert line in lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_market1501s_names_are_shown_as_they_are_understood(tmp_path, capsys):
    root = tmp_path / "data"
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        crops(root / folder, "0000_c0s1_000451_03.png", "0007_c5s1_000451_03.png")
    lines = printed(capsys, "--dry-run", f"data.root={root}")
    assert lines[0].startswith(f"data.dataset=auto: {root} is read as market1501: it has bounding_box_train and names")
    assert "    query/0000_c0s1_000451_03.png -> person 1, camera 0" in lines
    assert any("0 is read as a person in query and bounding_box_test" in line for line in lines)
    assert any("cameras are numbered from 0" in line for line in lines)


def test_what_only_packing_can_see_is_listed_after_packing(tmp_path, capsys):
    root = crops(tmp_path / "data", "a.png", "b.png")
    (root / "c.jpg").touch()
    (root / "d.heic").touch()
    lines = printed(capsys, "--list-skipped", f"data.root={root}")
    assert lines[-2:] == ["c.jpg\tempty file", "d.heic\tformat that is not read: HEIC"]
    assert any(line.endswith("left out 1: format that is not read: HEIC (such as d.heic)") for line in lines)
    assert printed(capsys, "--dry-run", f"data.root={root}")[-2] == f"there is a pack in {root}-packed already"


def test_drawn_pedestrians_are_not_drawn_for_it(tmp_path, capsys):
    lines = printed(capsys, "--dry-run", "data.dataset=drawn", f"data.root={tmp_path / 'new'}")
    assert lines[0] == f"drawn pedestrians (data.drawn) would be drawn into {tmp_path / 'new'} first"
    assert list(tmp_path.iterdir()) == []


def test_a_pack_alone_has_nothing_to_read(tmp_path):
    with pytest.raises(ValueError, match=r"is given without data\.root: there is nothing to read"):
        account(Settings(data={"dataset": "folder", "packed": str(tmp_path)}))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["data.pattern={camera}/{who}/{}"],
            r"^data\.pattern=\{camera\}/\{who\}/\{\}: expected \{person\}, \{camera\}",
        ),
        (["data.camera_from=pattern"], r"^data\.camera_from=pattern needs data\.pattern, for example"),
        (["data.camera_from=pattern", "data.pattern={person}/{}"], r"needs \{camera\} in data\.pattern"),
        (["data.camera_from=doors"], r"data\.camera_from must be one of none, folder, name, pattern"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused_before_anything_is_read(words, said):
    with pytest.raises(ValueError, match=said):
        settings_from(from_words(["data.dataset=folder", "data.root=DIR", *words]))
