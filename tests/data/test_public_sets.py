"""MSMT17, DukeMTMC-reID, VeRi-776 and CUHK03: their names, their numbers, and what people do wrong with them."""

import pytest

from reidray.data import cuhk03, dukemtmc, market1501, msmt17, veri776
from reidray.data.detect import detect
from reidray.data.records import counts
from tests.data import trees

SMALL = 50


# ---- the official numbers


@pytest.mark.slow
@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_a_tree_with_msmt17s_names_has_msmt17s_counts(tmp_path, folders):
    trees.msmt17(tmp_path, folders)
    found = counts(msmt17.read(tmp_path))
    assert found["train images"] == 32_621
    assert found["train persons"] == 1_041
    assert found["query images"] == 11_659
    assert found["gallery images"] == 82_161
    assert found["query persons"] == found["gallery persons"] == 3_060
    assert counts(msmt17.read(tmp_path, validation=False))["train images"] == 30_248


@pytest.mark.slow
def test_trees_with_the_names_of_duke_and_veri_have_their_counts(tmp_path):
    trees.dukemtmc(tmp_path / "duke")
    found = counts(dukemtmc.read(tmp_path / "duke"))
    assert (found["train images"], found["train persons"]) == (16_522, 702)
    assert (found["query images"], found["query persons"]) == (2_228, 702)
    assert (found["gallery images"], found["gallery persons"]) == (17_661, 1_110)
    assert found["distractors"] == found["junk"] == 0
    trees.veri776(tmp_path / "veri")
    found = counts(veri776.read(tmp_path / "veri"))
    assert (found["train images"], found["train persons"]) == (37_778, 576)
    assert (found["query images"], found["gallery images"]) == (1_678, 11_579)


@pytest.mark.slow
@pytest.mark.parametrize(("boxes", "train", "gallery"), [("detected", 7_365, 5_332), ("labeled", 7_368, 5_328)])
def test_a_tree_with_cuhk03s_names_has_the_counts_of_the_new_protocol(tmp_path, boxes, train, gallery):
    trees.cuhk03(tmp_path)
    found = counts(cuhk03.read(tmp_path, boxes))
    assert (found["train images"], found["train persons"]) == (train, 767)
    assert (found["query images"], found["query persons"], found["gallery images"]) == (1_400, 700, gallery)


# ---- persons and cameras


def test_persons_of_msmt17_begin_at_0_and_are_counted_from_1(tmp_path):
    """In train and in test: 0 would be a distractor in evaluation."""
    numbers = trees.msmt17(tmp_path, scale=SMALL)
    dataset = msmt17.read(tmp_path)
    assert {name: min(split.persons) for name, split in dataset.splits.items()} == {
        "train": 1,
        "query": 1,
        "gallery": 1,
    }
    assert len(dataset.splits["train"].images) == numbers["train"] + numbers["val"]
    assert dataset.ignored == {}
    without = msmt17.read(tmp_path, validation=False)
    assert len(without.splits["train"].images) == numbers["train"]
    assert without.ignored == {"in none of the lists that are read": numbers["val"]}
    for split in dataset.splits.values():
        assert [image.name for image in split.images] == sorted(image.name for image in split.images)
        for image, person in zip(split.images, split.persons, strict=True):
            assert image.name.split("/")[1] == f"{person - 1:04d}"
            assert image.camera == int(image.name.split("_")[2]) - 1
    assert {image.camera for image in dataset.splits["train"].images} == set(range(15))


def test_the_blurred_version_of_msmt17_has_other_folders_and_the_same_lists(tmp_path):
    trees.msmt17(tmp_path, ("mask_train_v2", "mask_test_v2"), scale=SMALL)
    names = [image.name for image in msmt17.read(tmp_path).splits["gallery"].images]
    assert all(name.startswith("mask_test_v2/") for name in names)


def test_converted_msmt17_keeps_person_0(tmp_path):
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        trees.write(tmp_path / folder, ["0000_c01_0000.jpg", "0003_c15_0001.jpg"])
    dataset = msmt17.read(tmp_path)
    for split in dataset.splits.values():
        assert split.persons == (1, 4)
        assert [image.camera for image in split.images] == [0, 14]


def test_names_of_duke_veri_and_cuhk03(tmp_path):
    trees.dukemtmc(tmp_path / "duke", SMALL)
    image = dukemtmc.read(tmp_path / "duke").splits["train"].images[0]
    assert (image.name, image.camera) == ("bounding_box_train/0001_c1_f0000000.jpg", 0)
    trees.veri776(tmp_path / "veri", SMALL)
    image = veri776.read(tmp_path / "veri").splits["gallery"].images[3]
    assert (image.name, image.camera) == ("image_test/0002_c002_00000201_0.jpg", 1)
    trees.write(tmp_path / "cuhk" / "bounding_box_train", ["0001_c2_7.png"])
    trees.write(tmp_path / "cuhk" / "query", ["0801_c1_7.png"])
    trees.write(tmp_path / "cuhk" / "bounding_box_test", ["0801_c2_7.png"])
    dataset = cuhk03.read(tmp_path / "cuhk", "detected")
    assert dataset.splits["train"].persons == (1,)
    assert dataset.splits["train"].images[0].camera == 1


# ---- what people do wrong


def test_a_missing_list_folder_or_file_of_msmt17_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"expected the folder of MSMT17, but there is none; check data\.root"):
        msmt17.read(tmp_path / "none")
    trees.msmt17(tmp_path / "MSMT17", scale=SMALL)
    with pytest.raises(ValueError, match=r"found none of these pairs; did you mean .*MSMT17\?"):
        msmt17.read(tmp_path)
    root = tmp_path / "MSMT17"
    victim = next(iter((root / "test" / "0003").iterdir()))
    victim.unlink()
    with pytest.raises(
        ValueError, match=r"list_(query|gallery)\.txt names 1 images that are not in .*test, such as 0003"
    ):
        msmt17.read(root)
    victim.touch()
    (root / "list_val.txt").unlink()
    with pytest.raises(ValueError, match=r"list_val\.txt is missing: MSMT17 has list_train\.txt, list_val\.txt"):
        msmt17.read(root)
    msmt17.read(root, validation=False)
    (root / "list_train.txt").write_text("0000/0000_000_01_a_0_0.jpg\n")
    with pytest.raises(
        ValueError, match=r"list_train\.txt, line 1: expected a path with person and camera and a number"
    ):
        msmt17.read(root)


def test_cuhk03s_matlab_file_without_the_protocol_is_one_sentence(tmp_path):
    (tmp_path / "cuhk-03.mat").touch()
    with pytest.raises(ValueError, match=r"has cuhk-03\.mat, but not cuhk03_new_protocol_config_detected\.mat: put"):
        cuhk03.read(tmp_path, "detected")


def test_the_folder_of_another_data_set_is_one_sentence(tmp_path):
    trees.veri776(tmp_path, SMALL)
    with pytest.raises(ValueError, match="expected the folders bounding_box_train, query, bounding_box_test"):
        dukemtmc.read(tmp_path)


# ---- auto


def market_folders(root, names):
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        trees.write(root / folder, names)


def test_every_data_set_is_known_by_its_folder(tmp_path):
    trees.msmt17(tmp_path / "msmt17", scale=SMALL)
    trees.dukemtmc(tmp_path / "dukemtmc", SMALL)
    trees.veri776(tmp_path / "veri776", SMALL)
    market_folders(tmp_path / "market1501", ["0002_c1s1_000451_03.jpg", "Thumbs.db"])
    market_folders(tmp_path / "cuhk03" / "labeled", ["0002_c1_1.png"])
    trees.write(tmp_path / "crops" / "folder", ["one.jpg"])
    for place in ("msmt17", "dukemtmc", "veri776", "market1501", "cuhk03", "crops/folder"):
        found, why = detect(tmp_path / place)
        assert found == place.rpartition("/")[2]
        assert why.startswith("it has")


@pytest.mark.parametrize("first", ["0000_c14_0030.jpg", "0000_c01_0000.jpg"])
def test_one_name_with_two_digits_makes_it_msmt17_wherever_it_stands(tmp_path, first):
    """Most names of its cameras 10 to 15 could be Market-1501's."""
    market_folders(tmp_path, [first, *(f"0001_c{camera}_0001.jpg" for camera in ("12", "03", "15"))])
    assert detect(tmp_path)[0] == "msmt17"


def test_names_of_several_data_sets_are_read_by_market1501s_rules(tmp_path):
    market_folders(tmp_path / "odd", ["0000_c1_0030.jpg"])
    found, why = detect(tmp_path / "odd")
    assert (found, why) == (
        "market1501",
        "it has bounding_box_train and names with person and camera, such as 0000_c1_0030.jpg",
    )


def test_names_that_tell_nothing_and_folders_of_persons_are_refused_with_what_to_set(tmp_path):
    market_folders(tmp_path / "odd", ["one.jpg", "two.jpg"])
    with pytest.raises(ValueError, match=r"its 2 names, such as one\.jpg do not tell .*data\.dataset=folder and"):
        detect(tmp_path / "odd")
    market_folders(tmp_path / "persons", [f"{person:04d}/a.jpg" for person in range(12)])
    with pytest.raises(ValueError, match=r"it has 12 folders \(0000, 0001, 0002, \.\.\.\) .*data\.pattern='\{person\}"):
        detect(tmp_path / "persons")
    with pytest.raises(ValueError, match=r"got 12 folders \(0000, 0001, 0002, \.\.\.\) and 0 files, none of them"):
        market1501.read(tmp_path / "persons")


def test_a_level_too_high_or_too_low_is_one_sentence(tmp_path):
    trees.msmt17(tmp_path / "msmt17" / "MSMT17_V1", scale=SMALL)
    with pytest.raises(ValueError, match=r"MSMT17_V1 in it is a data set; did you mean data\.root=.*MSMT17_V1\?"):
        detect(tmp_path / "msmt17")
    with pytest.raises(ValueError, match=r"train is a part of a data set; did you mean data\.root=.*MSMT17_V1\?"):
        detect(tmp_path / "msmt17" / "MSMT17_V1" / "train")
    trees.veri776(tmp_path / "cars" / "VeRi", SMALL)
    with pytest.raises(ValueError, match=r"VeRi in it is a data set"):
        detect(tmp_path / "cars")
    with pytest.raises(ValueError, match=r"there is none; check data\.root"):
        detect(tmp_path / "nothing")


def test_the_other_kind_of_boxes_is_one_sentence(tmp_path):
    market_folders(tmp_path / "labeled", ["0002_c1_1.png"])
    with pytest.raises(ValueError, match=r"has no folder detected, but labeled: set data\.cuhk03_boxes=labeled"):
        cuhk03.read(tmp_path, "detected")
    assert cuhk03.read(tmp_path, "labeled").splits["train"].persons == (2,)
