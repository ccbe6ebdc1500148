"""CUHK03 as released: crops written from its MATLAB file, splits of the new protocol."""

import sys

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from reidray.data import cuhk03, cuhk03_release
from reidray.data.detect import detect
from reidray.data.records import counts

# pair, person, picture (1 to 5 of view 1, 6 to 10 of view 2), identity
CROPS = [(1, 1, 1, 1), (1, 1, 6, 1), (1, 2, 2, 2), (2, 1, 1, 3), (2, 1, 7, 3), (2, 2, 6, 4), (2, 2, 1, 4), (2, 1, 2, 3)]
SPLITS = {"train": [1, 2, 3], "query": [4, 6], "gallery": [5, 7, 8]}


def name(pair, person, picture):
    return f"{pair}_{person:03d}_{1 if picture <= 5 else 2}_{picture:02d}.png"


def picture(pair, person, number):
    """Not square, and different in every channel: axes that are swapped are seen."""
    return np.random.default_rng([pair, person, number]).integers(0, 256, (9 + person, 5, 3), np.uint8)


def write_protocol(root, boxes="detected", **changes):
    fields = {
        "filelist": np.array([[name(*crop[:3])] for crop in CROPS], object),
        "labels": np.array([[crop[3]] for crop in CROPS], np.uint16),
        "camId": np.array([[1 if crop[2] <= 5 else 2] for crop in CROPS], np.uint8),
        **{f"{split}_idx": np.array([[place] for place in places], np.uint16) for split, places in SPLITS.items()},
        **changes,
    }
    fields = {field: values for field, values in fields.items() if values is not None}
    savemat(root / f"cuhk03_new_protocol_config_{boxes}.mat", fields)


def write_pictures(path, boxes="detected"):
    """As MATLAB 7.3 writes a cell of cells: references, with the axes in reverse."""
    with h5py.File(path, "w") as file:
        pairs = file.create_dataset(boxes, (1, 2), h5py.ref_dtype)
        for pair in (1, 2):
            cells = file.create_dataset(f"#refs#/{pair}", (10, 2), h5py.ref_dtype)
            for person in (1, 2):
                for number in range(1, 11):
                    pixels = picture(pair, person, number).T
                    stored = file.create_dataset(f"#refs#/{pair}_{person}_{number}", data=pixels)
                    cells[number - 1, person - 1] = stored.ref
            pairs[0, pair - 1] = cells.ref


@pytest.fixture
def root(tmp_path):
    write_protocol(tmp_path)
    (tmp_path / "cuhk03_release").mkdir()
    write_pictures(tmp_path / "cuhk03_release" / "cuhk-03.mat")
    return tmp_path


def test_crops_are_the_pictures_of_the_matlab_file(root):
    dataset = cuhk03.read(root, "detected")
    written = {path.name for path in (root / "images_detected").iterdir()}
    assert written == {name(*crop[:3]) for crop in CROPS}
    for pair, person, number, _ in CROPS:
        crop = np.asarray(Image.open(root / "images_detected" / name(pair, person, number)))
        np.testing.assert_array_equal(crop, picture(pair, person, number))
    assert {split: list(one.persons) for split, one in dataset.splits.items()} == {
        "train": [1, 1, 2],
        "query": [3, 4],
        "gallery": [3, 3, 4],
    }
    assert [image.camera for image in dataset.splits["gallery"].images] == [0, 1, 0]
    for split in dataset.splits.values():
        assert [image.name for image in split.images] == sorted(image.name for image in split.images)
        assert all(image.path.is_file() for image in split.images)


def test_crops_that_are_there_are_used_without_the_matlab_file(root):
    first = counts(cuhk03.read(root, "detected"))
    (root / "cuhk03_release" / "cuhk-03.mat").unlink()
    assert counts(cuhk03.read(root, "detected")) == first
    (root / "images_detected" / "2_001_1_02.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 8 crops are missing, such as 2_001_1_02\.png"):
        cuhk03.read(root, "detected")


def test_auto_knows_the_protocol_and_the_pictures(root):
    assert detect(root) == ("cuhk03", "it has the file of the new protocol")
    (root / "cuhk03_new_protocol_config_detected.mat").unlink()
    assert detect(root) == ("cuhk03", "it has cuhk-03.mat")


def test_writing_that_is_interrupted_leaves_nothing_and_is_begun_again(root, monkeypatch):
    def interrupted(*_):
        yield name(1, 1, 1), picture(1, 1, 1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cuhk03_release, "_pictures", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cuhk03.read(root, "detected")
    assert not [path for path in root.iterdir() if "images" in path.name]
    assert len(cuhk03.read(root, "detected").splits["train"].images) == 3


def test_the_protocol_of_the_other_boxes_is_said(root):
    with pytest.raises(ValueError, match=r"protocol of detected boxes alone: set data\.cuhk03_boxes=detected"):
        cuhk03.read(root, "labeled")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, "got no labels: fetch the protocol's file again"),
        ({"labels": np.ones((3, 1))}, "got lists that do not belong together"),
        ({"train_idx": np.array([[9]])}, "got lists that do not belong together"),
        ({"labels": np.array([["1"]] * 8, object)}, "expected whole numbers in labels, got something else"),
        ({"labels": np.full((8, 1), np.nan)}, "expected whole numbers in labels, got something else"),
        ({"camId": np.full((8, 1), 3)}, "got lists that do not belong together"),
        ({"filelist": np.array([["../../x.png"]] * 8, object)}, r"got the name '\.\./\.\./x\.png'"),
    ],
)
def test_a_protocol_of_another_form_is_one_sentence(root, changes, words):
    write_protocol(root, **changes)
    with pytest.raises(ValueError, match=words):
        cuhk03.read(root, "detected")


def test_other_pictures_and_none_are_one_sentence(root):
    source = root / "cuhk03_release" / "cuhk-03.mat"
    source.write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"expected CUHK03's pictures of detected boxes, got something else"):
        cuhk03.read(root, "detected")
    write_pictures(source, "labeled")
    with pytest.raises(ValueError, match=r"expected CUHK03's pictures of detected boxes, got something else"):
        cuhk03.read(root, "detected")
    source.unlink()
    with pytest.raises(ValueError, match=r"expected the crops in images_detected, or cuhk-03\.mat or cuhk03_release"):
        cuhk03.read(root, "detected")
    assert not (root / "images_detected").exists()


def test_without_h5py_there_is_advice(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"h5py is not installed: pip install 'reidray\[cuhk03\]'"):
        cuhk03.read(root, "detected")
