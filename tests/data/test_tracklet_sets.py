"""MARS and DukeMTMC-VideoReID: their names, their numbers, and what people do wrong with them."""

import shutil

import numpy as np
import pytest
from scipy.io import savemat

from reidray.data import dukemtmc_video, mars
from reidray.data.detect import detect
from reidray.data.records import counts
from tests.data import trees

TRAIN = [(1, 1, 3), (1, 2, 2), (3, 1, 2)]
TEST = [(-1, 1, 2), (0, 2, 2), (2, 1, 3), (2, 2, 1), (4, 1, 2), (4, 3, 2), (4, 3, 4)]
QUERIES = [2, 3, 4, 5]  # both tracklets of person 2: without queries in the gallery neither has an answer


@pytest.fixture
def small_mars(tmp_path):
    trees.mars(tmp_path / "MARS", TRAIN, TEST, QUERIES)
    return tmp_path / "MARS"


# ---- the official numbers


@pytest.mark.slow
def test_a_tree_with_the_names_of_mars_has_its_counts(tmp_path):
    trees.official_mars(tmp_path)
    found = counts(mars.read(tmp_path))
    assert (found["train tracklets"], found["train images"], found["train persons"]) == (8_298, 509_914, 625)
    assert (found["query tracklets"], found["query persons"]) == (1_980, 626)
    assert (found["gallery tracklets"], found["gallery images"]) == (11_310, 657_709)
    assert (found["distractors"], found["junk"]) == (3_248, 870)
    assert not [name for name in found if "without an answer" in name]
    found = counts(mars.read(tmp_path, queries_in_gallery=False))
    assert found["gallery tracklets"] == 9_330
    assert found["queries without an answer in another camera, which no figure counts"] == 140


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
def test_a_tree_with_the_names_of_dukemtmc_video_has_its_counts(tmp_path, old):
    train = [(number % 702 + 1, number // 702 + 1, [1, 2]) for number in range(2_196)]
    query = [(number + 1001, 1, [1]) for number in range(702)]
    others = [(number + 1001, 2, [1, 2]) for number in range(702)]
    distractors = [(number + 3001, 3, [1]) for number in range(408)]
    more = [(number + 1001, 4, [1]) for number in range(2_636 - 702 - 702 - 408)]
    gallery = [*query, *others, *distractors, *more[:0]]
    gallery += [(number % 702 + 1001, 4 + number // 702, [1]) for number in range(len(more))]
    trees.dukemtmc_video(tmp_path, {"train": train, "query": query, "gallery": gallery}, old)
    found = counts(dukemtmc_video.read(tmp_path))
    assert (found["train tracklets"], found["train persons"]) == (2_196, 702)
    assert (found["query tracklets"], found["gallery tracklets"]) == (702, 2_636)
    assert found["gallery persons"] == 702 + 408


# ---- what is read


def test_tracklets_of_mars_have_their_frames_persons_and_cameras(small_mars):
    dataset = mars.read(small_mars)
    train = dataset.splits["train"]
    assert [track.frames for track in train.tracklets] == [3, 2, 2]
    assert (train.persons, train.cameras) == ((1, 1, 3), [0, 1, 0])
    assert train.tracklets[1].name == "bbox_train/0001/0001C2T00001F001.jpg"
    assert [image.name.split("/")[-1] for image in train.images[3:5]] == [
        "0001C2T00001F001.jpg",
        "0001C2T00001F002.jpg",
    ]
    assert all(image.path.is_file() for split in dataset.splits.values() for image in split.images)


def test_the_gallery_of_mars_has_the_queries_or_not_and_never_junk(small_mars):
    both = mars.read(small_mars)
    assert both.splits["query"].persons == (2, 2, 4, 4)
    assert both.splits["gallery"].persons == (0, 2, 2, 4, 4, 4)
    assert both.ignored == {"junk (no person, or a bad crop)": 1}
    without = mars.read(small_mars, queries_in_gallery=False)
    assert without.splits["gallery"].persons == (0, 4)
    found = counts(without)
    assert (found["distractors"], found["junk"]) == (1, 1)
    # person 2 is in no tracklet left; of person 4 the query in camera 3 only meets its own camera
    assert found["queries without an answer in another camera, which no figure counts"] == 3


@pytest.mark.parametrize("old", [False, True])
def test_both_forms_of_names_of_dukemtmc_video(tmp_path, old):
    tracks = {
        "train": [(1, 6, [1, 2, 4]), (7, 2, [2, 3])],
        "query": [(9, 1, [1])],
        "gallery": [(9, 1, [1]), (9, 12 if not old else 3, [1]), (11, 1, [1])],
    }
    trees.dukemtmc_video(tmp_path, tracks, old)
    dataset = dukemtmc_video.read(tmp_path)
    train = dataset.splits["train"]
    assert [(track.name, track.camera, track.frames) for track in train.tracklets] == [
        ("train/0001/0000", 5, 3),
        ("train/0007/0001", 1, 2),
    ]
    assert train.persons == (1, 7)
    assert [image.name[-12:-4] for image in train.images] != sorted(image.name for image in train.images)
    assert dataset.ignored == {dukemtmc_video.MISSING: 2}  # frame 3 of the first, frame 1 of the second
    assert dataset.splits["gallery"].cameras == [0, 11 if not old else 2, 0]


def test_frames_come_in_the_order_of_their_numbers(tmp_path):
    frames = [1, 2, 9999, 10000, 10]
    trees.dukemtmc_video(tmp_path, {folder: [(1, 1, frames)] for folder in ("train", "query", "gallery")})
    names = [image.name for image in dukemtmc_video.read(tmp_path).splits["train"].images]
    assert [int(name.split("_F")[1].split("_")[0]) for name in names] == sorted(frames)


def test_auto_knows_tracklets(small_mars, tmp_path):
    assert detect(small_mars) == ("mars", "it has bbox_train")
    tracks = {folder: [(1, 1, [1])] for folder in ("train", "query", "gallery")}
    trees.dukemtmc_video(tmp_path / "duke", tracks)
    assert detect(tmp_path / "duke")[0] == "dukemtmc_video"
    with pytest.raises(ValueError, match=r"(MARS|duke) in it is a data set; did you mean data\.root="):
        detect(tmp_path)


@pytest.mark.parametrize("place", ["0001/one.jpg", "0001/c1/one.jpg"])
def test_a_folder_with_train_query_and_gallery_but_no_tracklets_is_a_folder(tmp_path, place):
    for split in ("train", "query", "gallery"):
        (tmp_path / split / place).parent.mkdir(parents=True)
        (tmp_path / split / place).touch()
    assert detect(tmp_path)[0] == "folder"


def test_hidden_and_empty_folders_do_not_hide_tracklets(tmp_path):
    trees.dukemtmc_video(tmp_path, {folder: [(1, 1, [1])] for folder in ("train", "query", "gallery")})
    (tmp_path / "train" / ".ipynb_checkpoints" / "0001").mkdir(parents=True)
    (tmp_path / "train" / "0000" / "0001").mkdir(parents=True)
    assert detect(tmp_path)[0] == "dukemtmc_video"


def test_images_outside_of_the_folders_of_tracklets_are_counted(tmp_path):
    trees.dukemtmc_video(tmp_path, {folder: [(1, 1, [1])] for folder in ("train", "query", "gallery")})
    (tmp_path / "train" / "0001" / "0001_C1_F0009_X1.jpg").touch()
    (tmp_path / "query" / "0001_C1_F0009_X1.jpg").touch()
    assert dukemtmc_video.read(tmp_path).ignored == {"file outside of the folders of tracklets": 2}


# ---- what people do wrong


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda root: shutil.rmtree(root / "info"),
            r"found no info; check data\.root; for info, fetch the folder info",
        ),
        (lambda root: shutil.rmtree(root / "bbox_test"), r"found no bbox_test; check data\.root"),
        (lambda root: (root / "info" / "test_name.txt").unlink(), r"test_name\.txt: expected the names of the images"),
        (lambda root: (root / "info" / "query_IDX.mat").unlink(), r"query_IDX\.mat: expected the file, found none"),
        (lambda root: (root / "info" / "query_IDX.mat").write_bytes(b"x" * 200), r"expected a MATLAB 5 file"),
        (
            lambda root: savemat(root / "info" / "query_IDX.mat", {"query_IDX": np.array([[8.0]])}),
            r"expected rows 1 to 7, got others",
        ),
        (
            lambda root: savemat(root / "info" / "query_IDX.mat", {"query_IDX": np.array([[1.5]])}),
            r"expected query_IDX, whole numbers in 1 columns, got another",
        ),
        (
            lambda root: savemat(root / "info" / "tracks_test_info.mat", {"track_test_info": np.ones((2, 3))}),
            r"expected track_test_info, whole numbers in 4 columns, got another",
        ),
        (
            lambda root: savemat(root / "info" / "tracks_train_info.mat", {"track_train_info": [[1.0, 99.0, 1, 1]]}),
            r"expected in row 1 lines from 1 to 7 and a camera from 1, got 1, 99, 1",
        ),
        (
            lambda root: savemat(root / "info" / "tracks_train_info.mat", {"track_train_info": [[1.0, 2.0, 3, 1]]}),
            r"row 1 is of person 3 in camera 1, its frames such as 0001C1T00000F001\.jpg are not",
        ),
        (
            lambda root: savemat(root / "info" / "tracks_train_info.mat", {"track_train_info": [[1.0, 2.0, 1, 3]]}),
            r"row 1 is of person 1 in camera 3, its frames such as 0001C1T00000F001\.jpg are not",
        ),
        (
            lambda root: savemat(root / "info" / "tracks_test_info.mat", {"track_test_info": np.empty((0, 4))}),
            r"expected track_test_info, whole numbers in 4 columns, got another",
        ),
        (
            lambda root: (root / "info" / "test_name.txt").write_bytes(b"\xff\xfe"),
            r"test_name\.txt: expected a text of names, got something else",
        ),
        (
            lambda root: next((root / "bbox_train" / "0003").iterdir()).unlink(),
            r"train_name\.txt names 1 images that are not in .*bbox_train, such as 0003/",
        ),
        (
            lambda root: (root / "info" / "train_name.txt").write_text("../../etc/passwd\n"),
            r"expected names like 0001C1T0001F001\.jpg, got '../../etc/passwd'",
        ),
    ],
)
def test_what_is_wrong_with_mars_is_one_sentence(small_mars, damage, words):
    damage(small_mars)
    with pytest.raises(ValueError, match=words):
        mars.read(small_mars)


def test_what_is_wrong_with_dukemtmc_video_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"found no train, query, gallery; check data\.root"):
        dukemtmc_video.read(tmp_path)
    trees.dukemtmc_video(tmp_path / "inner", {folder: [(1, 1, [1])] for folder in ("train", "query", "gallery")})
    with pytest.raises(ValueError, match=r"did you mean .*inner\?"):
        dukemtmc_video.read(tmp_path)
    place = tmp_path / "inner" / "train" / "0001" / "0000"
    (place / "0002_C1_F0002_X1.jpg").touch()
    with pytest.raises(ValueError, match=r"expected the frames of one person in one camera, got 0001_C1_F0001_X30823"):
        dukemtmc_video.read(tmp_path / "inner")
    for path in list(place.iterdir()):
        path.unlink()
    (place / "holiday.jpg").touch()
    with pytest.raises(ValueError, match=r"images like 0001_C6_F0001_X30823\.jpg, got none"):
        dukemtmc_video.read(tmp_path / "inner")
