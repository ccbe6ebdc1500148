import os

import pytest

from reidray.data import folder
from reidray.data.records import counts


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_images_are_found_at_any_depth_and_sorted_by_name(tmp_path):
    names = ["z.JPG", "a/b/c.jpeg", "a/b.png", "a/b/d.BMP", "m.webp"]
    dataset = folder.read(touch(tmp_path, *names))
    split = dataset.splits["train"]
    assert [image.name for image in split.images] == sorted(names)
    assert {image.camera for image in split.images} == {-1}
    assert split.persons is None
    assert all(image.path == tmp_path / image.name for image in split.images)
    assert counts(dataset) == {"train images": 5, "distractors": 0, "junk": 0}


def test_hidden_files_and_folders_are_left_out_and_counted_as_others_are(tmp_path):
    touch(tmp_path, "a.jpg", ".b.jpg", ".thumbs/c.jpg", "sub/notes.txt", "sub/jpg", "Thumbs.db")
    (tmp_path / "d.jpg").mkdir()
    dataset = folder.read(tmp_path)
    assert [image.name for image in dataset.splits["train"].images] == ["a.jpg"]
    assert dataset.ignored == {"hidden (the name begins with a dot)": 2, "not an image": 3}
    assert dataset.left_out["not an image"] == ("Thumbs.db", "sub/jpg", "sub/notes.txt")
    assert dataset.left_out["hidden (the name begins with a dot)"] == (".b.jpg", ".thumbs")


def test_links_to_folders_are_not_followed_and_dead_links_counted(tmp_path):
    touch(tmp_path, "a/a.jpg")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    dataset = folder.read(tmp_path)
    assert [image.name for image in dataset.splits["train"].images] == ["a/a.jpg"]
    assert dataset.ignored == {"link to a folder, not followed": 1, "not a file": 1}


def test_a_name_that_is_not_utf8_is_counted(tmp_path):
    touch(tmp_path, "a.jpg")
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system keeps names in UTF-8")
    assert folder.read(tmp_path).ignored == {"name is not UTF-8": 1}


@pytest.mark.parametrize("name", ["a\x1b[2J.jpg", "a\n.jpg", "a\x9b2J.jpg", "\x1b]0;b\x07/a.jpg"])
def test_a_name_that_a_terminal_would_obey_is_counted_and_never_printed(tmp_path, name):
    touch(tmp_path, "a.jpg", "\N{IDEOGRAPHIC SPACE}\u00e9.jpg")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    dataset = folder.read(tmp_path)
    assert len(dataset.splits["train"].images) == 2
    assert dataset.ignored == {"name has control characters": 1}


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"expected images \(jpg, .*got 0 other files; check data\.root"):
        folder.read(tmp_path)


def test_a_folder_without_images_tells_how_many_others_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"got 2 other files \(such as b/c\.mp4, a\.txt\)"):
        folder.read(touch(tmp_path, "a.txt", "b/c.mp4"))


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="nothing is there"):
        folder.read(tmp_path / "no")
    with pytest.raises(ValueError, match=r"got a file; check data\.root"):
        folder.read(touch(tmp_path, "a.jpg") / "a.jpg")
    with pytest.raises(ValueError, match=r"got a file; check --images"):
        folder.read(tmp_path / "a.jpg", option="--images")
    with pytest.raises(ValueError, match=r"got a file; give a list of images as data\.dataset=list"):
        folder.read(touch(tmp_path, "a.csv") / "a.csv")
