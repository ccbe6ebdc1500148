"""Cameras, persons, tracklets and splits from the paths of a plain folder."""

import pytest

from reidray.data import folder
from reidray.data.records import counts
from tests.data import trees


def read(root, names, **how):
    trees.write(root, [])
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return folder.read(root, **how)


def shown(split):
    persons = split.persons or [None] * len(split)
    return [(image.name, person, image.camera) for image, person in zip(split.images, persons, strict=True)]


def test_the_first_folder_may_be_the_camera(tmp_path):
    names = ["door2/a.jpg", "door10/2024/may/b.jpg", "door1/c.png", "loose.jpg"]
    dataset = read(tmp_path, names, camera_from="folder")
    assert shown(dataset.splits["train"]) == [
        ("door1/c.png", None, 0),
        ("door10/2024/may/b.jpg", None, 2),
        ("door2/a.jpg", None, 1),
        ("loose.jpg", None, -1),
    ]
    assert dataset.camera_names == ("door1", "door2", "door10")
    assert dataset.notes[0] == "3 cameras: door1 (1 image), door2 (1 image), door10 (1 image)"
    assert dataset.notes[1].startswith("caution: 1 of 4 images have no camera, such as loose.jpg")


def test_without_saying_so_folders_are_no_cameras_and_a_hint_asks(tmp_path):
    dataset = read(tmp_path, ["door1/a.jpg", "door2/b.jpg"])
    assert [image.camera for image in dataset.splits["train"].images] == [-1, -1]
    assert dataset.notes == (
        "the images lie in 2 folders (door1, door2): where these are cameras, set data.camera_from=folder",
    )
    assert dataset.camera_names == ()


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("0001_c3s1_000451.jpg", "3"),
        ("c03.jpg", "3"),
        ("cam12_x.jpg", "12"),
        ("a-Camera_4.png", "4"),
        ("x C7.jpg", "7"),
        ("abc3.jpg", None),
        ("c.jpg", None),
    ],
)
def test_the_name_may_tell_the_camera(tmp_path, name, camera):
    dataset = read(tmp_path, [f"c1/{name}", "c9/sure_c5.jpg"], camera_from="name")
    found = {image.path.name: image.camera for image in dataset.splits["train"].images}
    assert (None if found[name] < 0 else dataset.camera_names[found[name]]) == camera


def test_widths_of_numbers_do_not_matter_and_numbers_are_in_order(tmp_path):
    dataset = read(tmp_path, ["a_c08.jpg", "b_c8.jpg", "c_c10.jpg"], camera_from="name")
    assert [image.camera for image in dataset.splits["train"].images] == [0, 0, 1]
    assert dataset.camera_names == ("8", "10")


def test_a_pattern_tells_cameras_alone_and_trains_on_everything(tmp_path):
    dataset = read(tmp_path, ["2024/door1/a.jpg", "2025/door2/b.jpg"], pattern="{}/{camera}/{}")
    assert shown(dataset.splits["train"]) == [("2024/door1/a.jpg", None, 0), ("2025/door2/b.jpg", None, 1)]


TREE = [
    "train/cam01/person01/1.jpg",
    "train/cam02/person02/1.jpg",
    "query/cam01/person03/1.jpg",
    "gallery/cam02/person03/1.jpg",
    "gallery/cam02/person04/1.jpg",
]


def test_splits_are_folders_where_the_pattern_tells_persons(tmp_path):
    dataset = read(tmp_path, TREE, pattern="{camera}/{person}/{}")
    assert list(dataset.splits) == ["train", "query", "gallery"]
    assert shown(dataset.splits["train"]) == [(TREE[0], 1, 0), (TREE[1], 2, 1)]
    assert shown(dataset.splits["query"]) == [(TREE[2], 3, 0)]
    assert shown(dataset.splits["gallery"]) == [(TREE[3], 3, 1), (TREE[4], 4, 1)]
    assert dataset.person_names == ("person01", "person02", "person03", "person04")
    assert counts(dataset)["gallery persons"] == 2
    assert read(tmp_path, [], pattern="{}/{camera}/{person}/{}").splits == dataset.splits


def test_two_forms_of_paths_in_one_data_set(tmp_path):
    names = [*TREE[:3], "gallery/cam02/cam02_person03_frame1.jpg"]
    dataset = read(tmp_path, names, pattern="{camera}/{person}/{} | {camera}/{camera}_{person}_{}")
    assert shown(dataset.splits["gallery"]) == [(names[3], 3, 1)]
    assert dataset.ignored == {}


def test_market1501s_folders_may_hold_folders_of_persons(tmp_path):
    names = [
        f"{place}/{person}/c{camera}.jpg"
        for place in ("bounding_box_train", "query", "bounding_box_test")
        for person in ("anna", "bob")
        for camera in (1, 2)
    ]
    dataset = read(tmp_path, names, pattern="{person}/{}", camera_from="name")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 4, "query": 4, "gallery": 4}
    assert dataset.splits["query"].persons == (1, 1, 2, 2)
    assert [image.camera for image in dataset.splits["query"].images] == [0, 1, 0, 1]


def test_a_folder_of_tests_is_the_gallery_where_there_are_queries(tmp_path):
    dataset = read(tmp_path, ["train/a/1.jpg", "query/b/1.jpg", "test/b/2.jpg"], pattern="{person}/{}")
    assert list(dataset.splits) == ["train", "query", "gallery"]
    dataset = read(tmp_path / "other", ["train/a/1.jpg", "test/b/2.jpg"], pattern="{}/{person}/{}")
    assert list(dataset.splits) == ["train"]
    assert dataset.splits["train"].persons == (2, 1)  # test/b comes before train/a


def test_splits_without_a_pattern_are_trained_on_with_a_caution(tmp_path):
    dataset = read(tmp_path, TREE)
    assert len(dataset.splits["train"]) == 5
    assert dataset.splits["train"].persons is None
    assert dataset.notes[0].startswith("caution: the images in gallery, query, train are all trained on, since nothing")


def test_tracklets_are_rows_of_frames_in_natural_order(tmp_path):
    names = [f"{person}/c{camera}/t1/{frame}.jpg" for person in (1, 2) for camera in (1, 2) for frame in (9, 10, 11)]
    dataset = read(tmp_path, names, pattern="{person}/{camera}/{tracklet}/{}")
    train = dataset.splits["train"]
    assert train.unit == "tracklet"
    assert [(one.name, one.camera, one.frames) for one in train.tracklets[:2]] == [
        ("1/c1/t1/9.jpg", 0, 3),
        ("1/c2/t1/9.jpg", 1, 3),
    ]
    assert [image.path.name for image in train.images[:3]] == ["9.jpg", "10.jpg", "11.jpg"]
    assert train.persons == (1, 1, 2, 2)


def test_paths_that_do_not_fit_are_left_out_by_name_with_a_caution(tmp_path):
    names = [f"cam1/anna/{number}.jpg" for number in range(3)] + [f"cam1/{number}.jpg" for number in range(4)]
    dataset = read(tmp_path, names, pattern="{camera}/{person}/{}")
    assert len(dataset.splits["train"]) == 3
    assert dataset.ignored == {"path does not fit data.pattern": 4}
    assert dataset.notes[0] == (
        "caution: 4 files in cam1 are left out (path does not fit data.pattern), such as 0.jpg, 1.jpg, 2.jpg; expected "
        "paths like data.pattern={camera}/{person}/{}"
    )


def test_images_outside_of_the_splits_are_left_out_by_name(tmp_path):
    dataset = read(tmp_path, [*TREE, "loose.jpg", "more/cam01/person01/1.jpg"], pattern="{camera}/{person}/{}")
    assert dataset.left_out == {"outside of the folders of the splits": ("loose.jpg", "more/cam01/person01/1.jpg")}


def test_the_folder_of_a_split_is_never_a_person(tmp_path):
    names = ["train/anna/1.jpg", "train/1.jpg", "query/anna/1.jpg", "gallery/anna/2.jpg", "gallery/2.jpg"]
    dataset = read(tmp_path, names, pattern="{person}/{}")
    assert dataset.person_names == ("anna",)
    assert dataset.left_out == {"path does not fit data.pattern": ("gallery/2.jpg", "train/1.jpg")}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            {"pattern": "{camera}/{person}/{}"},
            r"fit data\.pattern=\{camera\}/\{person\}/\{\}, got 2 and none .*such as a\.j",
        ),
        ({"camera_from": "name"}, r"data\.camera_from=name expects names with c<number>, got 2 images"),
        ({"camera_from": "folder"}, r"expects folders of cameras with images"),
        ({"camera_from": "pattern"}, r"cameras from a pattern need one with \{camera\}.*got none"),
    ],
)
def test_nothing_named_so_is_one_sentence(tmp_path, how, said):
    with pytest.raises(ValueError, match=said):
        read(tmp_path, ["a.jpg", "b.jpg"], **how)


def test_very_many_cameras_are_doubted(tmp_path):
    dataset = read(tmp_path, [f"{number}/a.jpg" for number in range(70)], camera_from="folder")
    assert dataset.notes[-1].startswith("caution: 70 is a large number of cameras")
