import pytest

from reidray.data import market1501
from reidray.data.records import JUNK, Split, counts

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


def tree(root, **files):
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    for folder, names in files.items():
        (root / folder).mkdir(exist_ok=True)
        for name in names:
            (root / folder / name).touch()
    return root


def small(root, **more):
    files = {
        "bounding_box_train": ["0002_c1s1_000451_03.jpg"],
        "query": ["0005_c2s1_000451_00.jpg"],
        "bounding_box_test": ["0005_c6s3_000451_01.jpg"],
    }
    return tree(root, **{folder: files.get(folder, []) + more.get(folder, []) for folder in {**files, **more}})


def write_all(folder, persons, *, first_frame=0):
    for frame, person in enumerate(persons, start=first_frame):
        who = str(person) if person < 0 else f"{person:04d}"
        (folder / f"{who}_c{(frame + frame // 750) % 6 + 1}s{frame % 3 + 1}_{frame:06d}_{frame % 9:02d}.jpg").touch()


def test_a_tree_with_market1501s_names_has_market1501s_counts(tmp_path):
    tree(tmp_path, bounding_box_train=["Thumbs.db"], query=["Thumbs.db"], bounding_box_test=["Thumbs.db"])
    train, test = range(2, 2 + 751), range(800, 800 + 750)
    write_all(tmp_path / "bounding_box_train", [train[i % 751] for i in range(12_936)])
    write_all(tmp_path / "query", [test[i % 750] for i in range(3_368)])
    write_all(tmp_path / "bounding_box_test", [test[i % 750] for i in range(13_115)])
    write_all(tmp_path / "bounding_box_test", [0] * 2_798, first_frame=20_000)
    write_all(tmp_path / "bounding_box_test", [-1] * 3_819, first_frame=30_000)
    dataset = market1501.read(tmp_path)
    assert counts(dataset) == {
        "train images": 12_936,
        "train persons": 751,
        "query images": 3_368,
        "query persons": 750,
        "gallery images": 15_913,
        "gallery persons": 750,
        "distractors": 2_798,
        "junk": 3_819,
    }
    assert dataset.ignored == {JUNK: 3_819, "not an image": 3}


def test_name_person_and_camera_are_read_from_the_file_name(tmp_path):
    dataset = market1501.read(small(tmp_path, bounding_box_train=["1501_c6s4_001877_04.jpg"]))
    train = dataset.splits["train"]
    assert [image.name for image in train.images] == [
        "bounding_box_train/0002_c1s1_000451_03.jpg",
        "bounding_box_train/1501_c6s4_001877_04.jpg",
    ]
    assert train.images[0].path == tmp_path / "bounding_box_train" / "0002_c1s1_000451_03.jpg"
    assert [image.camera for image in train.images] == [0, 5]
    assert train.persons == (2, 1501)


def test_images_are_sorted_by_name_in_every_split(tmp_path):
    names = [f"{person:04d}_c{camera}s1_000001_00.jpg" for person in (30, 7, 11) for camera in (4, 2)]
    for split in market1501.read(small(tmp_path, bounding_box_train=names, query=names)).splits.values():
        assert [image.name for image in split.images] == sorted(image.name for image in split.images)


def test_junk_is_dropped_everywhere_and_distractors_stay_in_the_gallery(tmp_path):
    junk, distractor = ["-1_c3s1_000000_00.jpg"], ["0000_c3s1_000000_00.jpg"]
    dataset = market1501.read(
        small(tmp_path, bounding_box_train=junk, query=junk, bounding_box_test=[*junk, *distractor])
    )
    assert dataset.splits["train"].persons == (2,)
    assert dataset.splits["query"].persons == (5,)
    assert dataset.splits["gallery"].persons == (0, 5)
    assert dataset.ignored == {JUNK: 3}
    assert dataset.notes == ()


def test_person_0_is_a_person_where_it_is_trained_on_or_searched_for(tmp_path):
    """Junk and distractors are rules of Market-1501, whose training images and queries show no person 0."""
    zero = ["0000_c3s1_000000_00.jpg"]
    dataset = market1501.read(small(tmp_path / "train", bounding_box_train=zero, bounding_box_test=zero))
    assert dataset.splits["train"].persons == (1, 3)
    assert dataset.splits["gallery"].persons == (0, 5)
    assert len(dataset.notes) == 1
    assert dataset.notes[0].startswith("bounding_box_train has images of person 0: 0 is read as a person in bounding_")
    dataset = market1501.read(small(tmp_path / "test", query=zero, bounding_box_test=zero))
    assert dataset.splits["train"].persons == (2,)
    assert dataset.splits["query"].persons == dataset.splits["gallery"].persons == (1, 6)
    assert "0 is read as a person in query and bounding_box_test" in dataset.notes[0]
    assert dataset.ignored == {}


def test_odd_entries_are_counted_by_reason(tmp_path):
    odd = ["Thumbs.db", "readme.txt", "me.jpg", "0002_c1s1_0.heic", "-2_c1s1_000451_03.jpg"]
    small(tmp_path, bounding_box_train=odd)
    (tmp_path / "query" / "0005_c2s1_000451_09.jpg").mkdir()
    dataset = market1501.read(tmp_path)
    assert dataset.ignored == {
        "format that is not read: HEIC": 1,
        "name does not tell person and camera": 2,
        "not a file": 1,
        "not an image": 2,
    }
    assert dataset.left_out["name does not tell person and camera"] == (
        "bounding_box_train/-2_c1s1_000451_03.jpg",
        "bounding_box_train/me.jpg",
    )


def test_names_without_a_sequence_are_read(tmp_path):
    dataset = market1501.read(small(tmp_path, bounding_box_train=["0007_c8_f0046182.jpg"]))
    assert dataset.splits["train"].persons == (2, 7)
    assert dataset.splits["train"].images[1].camera == 7


def test_validation_folders_are_read_when_both_are_there(tmp_path):
    names = ["0009_c1s1_000001_00.jpg"]
    small(tmp_path, validation_query=names)
    assert set(market1501.read(tmp_path).splits) == {"train", "query", "gallery"}
    (tmp_path / "validation_gallery").mkdir()
    for name in ("0000_c2s1_000001_00.jpg", "0009_c2s1_000001_00.jpg"):
        (tmp_path / "validation_gallery" / name).touch()
    splits = market1501.read(tmp_path).splits
    assert list(splits) == ["train", "query", "gallery", "validation_query", "validation_gallery"]
    assert splits["validation_gallery"].persons == (0, 9)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing is there; check data\.root"):
        market1501.read(tmp_path / "nowhere")


def test_a_file_for_a_root_is_refused(tmp_path):
    (tmp_path / "market.zip").touch()
    with pytest.raises(ValueError, match="got a file; unpack it"):
        market1501.read(tmp_path / "market.zip")


def test_an_empty_root_is_told_which_folders_are_expected(tmp_path):
    with pytest.raises(ValueError, match="expected the folders bounding_box_train, query, bounding_box_test"):
        market1501.read(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    small(tmp_path)
    (tmp_path / "query" / "0005_c2s1_000451_00.jpg").unlink()
    (tmp_path / "query").rmdir()
    with pytest.raises(ValueError, match=r"found no query; check data\.root"):
        market1501.read(tmp_path)


def test_the_folder_above_the_data_gets_a_hint(tmp_path):
    small(tmp_path / "Market-1501-v15.09.15")
    with pytest.raises(ValueError, match=r"did you mean .*Market-1501-v15\.09\.15\?"):
        market1501.read(tmp_path)


def test_no_valid_names_is_an_error_with_an_example(tmp_path):
    tree(tmp_path, bounding_box_train=["a.jpg", "b.jpg"])
    with pytest.raises(ValueError, match=r"like 0002_c1s1_000451_03\.jpg, got 2 files and none of them usable"):
        market1501.read(tmp_path)


def test_a_split_needs_one_person_per_image():
    with pytest.raises(ValueError, match="got 1 persons for 0 images"):
        Split("train", (), (3,))
