"""Names as people's own tools write them, in Market-1501's folders: read where they tell person and camera."""

import pytest

from reidray.data import market1501, veri776
from reidray.data.records import counts
from tests.data import trees

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


def market(root, *names):
    for folder in FOLDERS:
        trees.write(root / folder, list(names))
    return market1501.read(root)


def read(split):
    return [(image.path.name, person, image.camera) for image, person in zip(split.images, split.persons, strict=True)]


@pytest.mark.parametrize(
    ("name", "person", "camera"),
    [
        ("0001_c01_000003.jpg", 1, 0),  # the common conversion of MSMT17
        ("0001_c001_00016450_0.jpg", 1, 0),  # VeRi-776
        ("0002_c3s1_000451_03.bmp", 2, 2),
        ("0002_c3s1_000451_03.jpg.jpg", 2, 2),
        ("0002_c3s1_000451_03 (81).jpg", 2, 2),
        ("0002_c3s1_000451_03 copy of mine.png", 2, 2),
        ("0002_c3s1 (81).jpg", 2, 2),
        ("0002_c12.webp", 2, 11),
        ("0002_C3S1_000451_03.JPEG", 2, 2),
        ("12_c3-a.tiff", 12, 2),
    ],
)
def test_a_name_that_tells_person_and_camera_is_read(tmp_path, name, person, camera):
    for split in market(tmp_path, name).splits.values():
        assert read(split) == [(name, person, camera)]


@pytest.mark.parametrize(
    "name", ["c3s1_000451.jpg", "0002_000451.jpg", "x0002_c3s1.jpg", "0002_c3x.jpg", "-7_c1s1_0.jpg"]
)
def test_a_name_that_does_not_is_left_out_by_name(tmp_path, name):
    dataset = market(tmp_path, name, "0002_c1s1_000451_03.jpg")
    assert dataset.left_out == {
        "name does not tell person and camera": tuple(sorted(f"{folder}/{name}" for folder in FOLDERS))
    }


def test_cameras_of_mixed_widths_are_all_read(tmp_path):
    cameras = ("08", "09", "10", "13", "1", "001")
    dataset = market(tmp_path, *(f"0001_c{camera}_000003.jpg" for camera in cameras))
    assert sorted(image.camera for image in dataset.splits["train"].images) == [0, 0, 7, 8, 9, 12]
    assert dataset.ignored == {}


def test_cameras_are_numbered_from_0_where_there_is_a_camera_0(tmp_path):
    dataset = market(tmp_path, "0001_c0s1_000003_00.jpg", "0001_c5s1_000003_00.jpg")
    assert [image.camera for image in dataset.splits["gallery"].images] == [0, 5]
    assert dataset.notes == ("there is a camera 0: cameras are numbered from 0 here",)


def test_persons_and_cameras_from_0_lose_nobody(tmp_path):
    names = [f"{person:04d}_c{camera:02d}_{person * 3 + camera:06d}.jpg" for person in range(4) for camera in range(3)]
    dataset = market(tmp_path, *names)
    found = counts(dataset)
    assert (found["train images"], found["train persons"], found["gallery persons"]) == (12, 4, 4)
    assert found["distractors"] == found["junk"] == 0
    assert dataset.splits["query"].persons == tuple(sorted([1, 2, 3, 4] * 3))
    assert dataset.ignored == {}


def test_vehicles_may_have_names_with_fewer_digits(tmp_path):
    for folder in veri776.LAYOUT.folders.values():
        trees.write(tmp_path / folder, ["0001_c1_00016450_0.jpg", "0002_c020_00016450_0.jpg"])
    assert [image.camera for image in veri776.read(tmp_path).splits["train"].images] == [0, 19]


def test_more_than_a_few_odd_names_of_a_folder_are_a_caution_with_three_of_them(tmp_path):
    odd = [f"person {number}.jpg" for number in range(5)]
    trees.write(tmp_path / "query", odd)
    dataset = market(tmp_path, "0001_c1s1_000003_00.jpg")
    assert dataset.notes == (
        "caution: 5 files in query are left out (name does not tell person and camera), such as person 0.jpg, "
        "person 1.jpg, person 2.jpg; expected names like 0002_c1s1_000451_03.jpg",
    )


def test_folders_beside_the_images_are_a_caution(tmp_path):
    trees.write(tmp_path / "query", [f"{number}/0001_c1s1_000003_00.jpg" for number in range(7)])
    dataset = market(tmp_path, "0001_c1s1_000003_00.jpg")
    assert dataset.notes == ("caution: the 7 folders in query (0, 1, 2, ...) are not looked into",)
    assert dataset.ignored == {"not a file": 7}


def test_nothing_but_junk_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"expected images of persons, got 1 files, all of them junk \(person -1\)"):
        market(tmp_path, "-1_c1s1_000003_00.jpg")


@pytest.mark.parametrize("name", ["0001_c1s1_\x1b[2J.jpg", "0001_c1s1_\n.jpg"])
def test_a_name_that_a_terminal_would_obey_is_left_out_and_shown_in_escapes(tmp_path, name):
    dataset = market(tmp_path, "0001_c1s1_000003_00.jpg", name)
    assert dataset.ignored == {"name has control characters": 3}
    shown = "".join(dataset.left_out["name has control characters"])
    assert shown.isprintable()
