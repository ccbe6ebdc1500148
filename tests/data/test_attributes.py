import json

import numpy as np
import pytest
from scipy.io import savemat

from reidray.data import market1501
from reidray.data.attributes import (
    DRAWN_NAMES,
    DUKE_NAMES,
    MARKET_NAMES,
    Attributes,
    PersonAttributes,
    attributes_beside,
    distinct_vectors,
    read_drawn_json,
    read_duke_mat,
    read_market_mat,
)
from reidray.data.drawn.identity import attributes as told_of
from reidray.data.drawn.identity import draw_identity
from reidray.data.drawn.palette import CLOTH
from reidray.data.records import ImageRecord, Split, counts
from tests.data.test_market1501 import small

TRAIN, TEST = (2, 7, 1501), (1, 3)


def cells(texts):
    """A row of cells with a text each, as MATLAB writes {'0002', '0007'}."""
    row = np.empty((1, len(texts)), dtype=object)
    row[0] = [np.array([text]) for text in texts]
    return row


def table(persons, names, seed):
    """One struct of the published files: a row of small numbers a field, and the identities as cells of text."""
    random = np.random.default_rng(seed)
    fields = {name: random.integers(1, 3, (1, len(persons))).astype(np.uint8) for name in names}
    return {**fields, "image_index": cells([f"{person:04d}" for person in persons])}


def market_tables():
    """Train and test with their fields in different orders, as in the published file."""
    return {"train": table(TRAIN, MARKET_NAMES, 0), "test": table(TEST, sorted(MARKET_NAMES, reverse=True), 1)}


def write_mat(path, tables, variable="market_attribute", **options):
    savemat(path, {variable: tables}, **options)
    return path


@pytest.fixture
def mat(tmp_path):
    return tmp_path / "market_attribute.mat"


# MATLAB files


def test_fields_are_read_by_name_whatever_their_order(mat):
    tables = market_tables()
    assert list(tables["train"]) != list(tables["test"])
    write_mat(mat, tables)
    for split, persons in (("train", TRAIN), ("test", TEST)):
        found = read_market_mat(mat, split=split)
        assert found.persons_P.tolist() == list(persons)
        assert found.attributes.names == MARKET_NAMES
        assert found.attributes.values_NA.dtype == np.int32
        for place, name in enumerate(MARKET_NAMES):
            assert found.attributes.values_NA[:, place].tolist() == tables[split][name][0].tolist()


def test_a_compressed_file_with_doubles_columns_and_persons_in_any_order_reads_the_same(mat):
    tables = market_tables()
    write_mat(mat, tables)
    expected = read_market_mat(mat, split="train")
    mixed = {name: row[:, ::-1].T for name, row in tables["train"].items()}
    mixed |= {name: mixed[name].astype(np.float64) for name in MARKET_NAMES}
    write_mat(mat, {**tables, "train": {**mixed, "comment": "new"}}, do_compression=True)
    found = read_market_mat(mat, split="train")
    np.testing.assert_array_equal(found.persons_P, expected.persons_P)
    np.testing.assert_array_equal(found.attributes.values_NA, expected.attributes.values_NA)


def test_dukes_file_has_fields_of_its_own_and_a_zero_is_not_noted(tmp_path):
    tables = {"train": table(TRAIN, DUKE_NAMES, 0), "test": table(TEST, DUKE_NAMES, 1)}
    tables["train"]["top"][0, 1] = 0
    path = write_mat(tmp_path / "duke_attribute.mat", tables, "duke_attribute")
    found = read_duke_mat(path, split="train")
    assert found.attributes.names == DUKE_NAMES
    assert found.attributes.values_NA[1, DUKE_NAMES.index("top")] == -1
    assert (found.attributes.values_NA == -1).sum() == 1
    assert found.attributes.num_unknown == 0
    with pytest.raises(ValueError, match=r"expected a field market_attribute in the file, got none"):
        read_market_mat(path, split="train")


def test_the_lists_of_names_are_as_long_as_the_published_ones():
    assert (len(set(MARKET_NAMES)), len(set(DUKE_NAMES))) == (27, 23)


@pytest.mark.parametrize("name", ["upred", "age", "image_index"])
def test_a_missing_field_is_named_with_its_file(mat, name):
    tables = market_tables()
    del tables["train"][name]
    write_mat(mat, tables)
    with pytest.raises(ValueError, match=rf"market_attribute\.mat: expected a field {name} in market_attribute\.train"):
        read_market_mat(mat, split="train")
    assert read_market_mat(mat, split="test").persons_P.tolist() == list(TEST)


def test_a_missing_struct_is_named_with_its_file(mat):
    write_mat(mat, {"test": market_tables()["test"]})
    with pytest.raises(ValueError, match="expected a field train in market_attribute, got none"):
        read_market_mat(mat, split="train")
    for other in (3, "text", np.zeros((2, 2))):
        write_mat(mat, other)
        with pytest.raises(ValueError, match="expected a field train in market_attribute, got none"):
            read_market_mat(mat, split="train")


@pytest.mark.parametrize(
    "values",
    [
        np.ones((1, 4), np.uint8),
        np.ones((2, 3), np.uint8),
        np.ones((3, 3), np.uint8),
        np.array([[1.5, 1, 1]]),
        np.array([[np.nan, 1, 1]]),
        np.array([[-1, 1, 1]]),
        np.array([[2.0**31, 1, 1]]),
        np.array([[1 + 1j, 1, 1]]),
        np.empty((0, 0)),
        "abc",
        {"inner": 1},
        cells(["a", "b", "c"]),
    ],
    ids=str,
)
def test_a_field_of_another_form_is_named_with_its_file(mat, values):
    tables = market_tables()
    tables["train"]["upred"] = values
    write_mat(mat, tables)
    message = r"market_attribute\.mat: expected a row of 3 whole numbers in market_attribute\.train\.upred, got"
    with pytest.raises(ValueError, match=message) as refused:
        read_market_mat(mat, split="train")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "persons",
    [
        cells(["0002", "seven", "1501"]),
        cells(["0002", "-7", "1501"]),
        cells(["2", "7\n", "9"]),
        cells([2, 7, 9]),
        np.zeros((2, 2)),
        "two",
    ],
    ids=str,
)
def test_identities_of_another_form_are_refused(mat, persons):
    tables = market_tables()
    tables["train"]["image_index"] = persons
    write_mat(mat, tables)
    with pytest.raises(ValueError, match=r"expected a row of identities such as '0002' in .*\.train\.image_index, got"):
        read_market_mat(mat, split="train")


def test_a_person_who_is_told_twice_is_refused(mat):
    tables = market_tables()
    tables["train"]["image_index"] = cells(["0002", "0007", "0002"])
    write_mat(mat, tables)
    with pytest.raises(ValueError, match="expected each person once"):
        read_market_mat(mat, split="train")


@pytest.mark.parametrize("data", [b"", b"<html>404</html>" * 20, b"MATLAB 7.3 MAT-file".ljust(600)], ids=len)
def test_a_file_that_is_not_matlab_5_is_refused_in_a_sentence(mat, data):
    mat.write_bytes(data)
    with pytest.raises(ValueError, match=r"market_attribute\.mat: expected a MATLAB 5 file, got .* fetch it again"):
        read_market_mat(mat, split="train")


def test_missing_and_much_too_large_files_are_refused(mat):
    with pytest.raises(ValueError, match=r"market_attribute\.mat: expected a file of attributes, got none that can be"):
        read_market_mat(mat, split="train")
    mat.write_bytes(bytes(2**22 + 1))
    with pytest.raises(ValueError, match="expected at most 4194304 bytes, got 4194305"):
        read_market_mat(mat, split="train")


# drawn pedestrians


def person(**traits):
    plain = {
        "split": "train", "twin_of": None, "height": 1.01, "girth": 1.2, "skin": "tan", "hair": "short",
        "hair_colour": "black", "hat": "none", "top": "tshirt", "top_colour": "navy", "pattern": "plain",
        "pattern_colour": "none", "bottom": "trousers", "bottom_colour": "denim", "shoes": "shoes",
        "shoes_colour": "white", "backpack": "none", "shoulder_bag": "none", "handbag": "none",
    }  # fmt: skip
    return {**plain, **traits}


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def told(tmp_path):
    return tmp_path / "attributes.json"


def test_drawn_pedestrians_are_read_as_an_annotator_would_put_it(told):
    summer = person(hair="bun", hat="cap", top="dress", top_colour="lavender", bottom="bare", bottom_colour="none")
    winter = person(hair="bald", top="coat", top_colour="charcoal", backpack="red", shoulder_bag="teal", handbag="sky")
    write_json(told, {"0012": summer, "0003": winter, "0007": person()})
    found = read_drawn_json(told, split="train")
    assert found.persons_P.tolist() == [3, 7, 12]
    assert found.attributes.names == DRAWN_NAMES
    rows = [dict(zip(DRAWN_NAMES, row, strict=True)) for row in found.attributes.values_NA.tolist()]
    assert rows[0] == {
        "hair": 1, "up": 1, "down": 1, "clothes": 2, "hat": 1, "backpack": 2, "bag": 2, "handbag": 2, "upcolour": 7,
        "downcolour": 8,
    }  # fmt: skip
    assert rows[1] == {
        "hair": 1, "up": 2, "down": 1, "clothes": 2, "hat": 1, "backpack": 1, "bag": 1, "handbag": 1, "upcolour": 8,
        "downcolour": 8,
    }  # fmt: skip
    assert rows[2] == {
        "hair": 2, "up": 2, "down": 2, "clothes": 1, "hat": 2, "backpack": 1, "bag": 1, "handbag": 1, "upcolour": 5,
        "downcolour": -1,
    }  # fmt: skip


def test_neither_twins_nor_splits_nor_numbers_nor_fine_names_are_attributes(told):
    unnoted = {
        "twin_of": "0001", "height": 0.93, "girth": 0.9, "skin": "pale", "hair_colour": "red", "pattern": "dots",
        "pattern_colour": "lime", "shoes": "boots", "shoes_colour": "black", "top_colour": "sky", "hair": "bald",
    }  # fmt: skip
    write_json(told, {"0001": person(), "0002": person(**unnoted), "0003": person(split="test")})
    found = read_drawn_json(told, split="train")
    assert found.persons_P.tolist() == [1, 2]
    assert distinct_vectors(found.attributes.values_NA) == 1
    assert read_drawn_json(told, split="test").persons_P.tolist() == [3]
    assert read_drawn_json(told, split="validation").attributes.values_NA.shape == (0, len(DRAWN_NAMES))


def test_whoever_can_be_drawn_can_be_read(told):
    random = np.random.default_rng(0)
    people = {f"{n:04d}": {**person(), **told_of(draw_identity(random))} for n in range(1, 400)}
    people |= {
        f"{500 + n:04d}": person(top_colour=shade, bottom_colour=shade, backpack=shade) for n, shade in enumerate(CLOTH)
    }
    found = read_drawn_json(write_json(told, people), split="train")
    values = dict(zip(DRAWN_NAMES, found.attributes.values_NA.T, strict=True))
    for name in DRAWN_NAMES[:8]:
        assert set(values[name].tolist()) == {1, 2}, name
    assert set(values["upcolour"].tolist()) == set(range(1, 11))
    assert set(values["downcolour"].tolist()) == {-1, *range(1, 11)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a JSON object of persons, got something else"),
        ("[" * 100_000, "expected a JSON object of persons, got something else"),
        ("\udce4", "expected a JSON object of persons, got something else"),
        ("[]", "expected a JSON object with an object for each person"),
        ('{"0001": 3}', "expected a JSON object with an object for each person"),
        ('{"anna": {}}', "expected persons with numbers such as '0002', got 'anna'"),
        (
            json.dumps({"0001": person(top="toga")}),
            "person 0001: expected top as drawn pedestrians have it, got 'toga'",
        ),
        (json.dumps({"0001": person(hat=None)}), "person 0001: expected hat as .*, got None"),
        (json.dumps({"0001": person(handbag=["red"])}), "person 0001: expected handbag as"),
        (json.dumps({"0001": {"split": "train"}}), "person 0001: expected hair as .*, got None"),
    ],
    ids=range(10),
)
def test_a_json_file_of_another_form_is_refused_in_a_sentence(told, text, message):
    told.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"attributes\.json: {message}") as refused:
        read_drawn_json(told, split="train")
    assert "\n" not in str(refused.value)


# from persons to images


def of(persons, rows):
    values_PA = np.array(rows, np.int32)
    names = tuple(f"a{place}" for place in range(values_PA.shape[1]))
    return PersonAttributes(np.array(persons), Attributes(names, values_PA))


def test_images_get_their_persons_rows_and_an_absent_person_minus_one_everywhere():
    found = of([2, 7, 9], [[1, 2], [2, -1], [-1, -1]]).of_images([9, 7, 7, 3, 2, 11, 1])
    assert found.values_NA.tolist() == [[-1, -1], [2, -1], [2, -1], [-1, -1], [1, 2], [-1, -1], [-1, -1]]
    assert found.values_NA.dtype == np.int32
    assert found.num_unknown == 4
    assert of([], np.empty((0, 2))).of_images([1, 2]).num_unknown == 2


def test_distinct_vectors_are_counted_without_those_of_which_nothing_is_known():
    assert distinct_vectors(np.array([[1, 2], [1, 2], [2, 1], [-1, 2], [-1, -1]])) == 3
    assert distinct_vectors(np.full((4, 2), -1)) == 0
    assert distinct_vectors(np.empty((0, 3), np.int32)) == 0


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (("hat", "hat"), np.ones((3, 2), np.int32), "different plain names"),
        (("name",), np.ones((3, 1), np.int32), "other than 'name'"),
        (("a\x1b[2J",), np.ones((3, 1), np.int32), r"got \['a\\x1b\[2J'\]"),
        ((), np.ones((3, 0), np.int32), "different plain names"),
        (("hat",), np.ones((3, 2), np.int32), "an int32 column for each of 1 attributes"),
        (("hat",), np.ones((3, 1), np.int64), "got int64"),
        (("hat",), np.full((3, 1), -2, np.int32), "of -1 \\(not noted\\) or more, got -2"),
    ],
)
def test_attributes_that_are_at_odds_with_themselves_are_refused(names, values, message):
    with pytest.raises(ValueError, match=message):
        Attributes(names, values)


def test_a_split_needs_attributes_of_each_image(tmp_path):
    image = ImageRecord(tmp_path / "a.jpg", "a.jpg", 0)
    with pytest.raises(ValueError, match="split train: expected attributes of each image, got 2 rows for 1 images"):
        Split("train", (image,), (2,), Attributes(("hat",), np.ones((2, 1), np.int32)))


# beside the images


def test_the_train_split_gets_the_attributes_that_lie_beside_the_images(tmp_path):
    names = ["0007_c1s1_000451_03.jpg", "0007_c2s1_000451_03.jpg", "0008_c1s1_000451_03.jpg"]
    small(tmp_path, bounding_box_train=names)
    assert market1501.read(tmp_path).splits["train"].attributes is None
    tables = market_tables()
    write_mat(tmp_path / "market_attribute.mat", tables)
    dataset = market1501.read(tmp_path)
    assert [split.attributes is None for split in dataset.splits.values()] == [False, True, True]
    found = dataset.splits["train"].attributes
    ages = tables["train"]["age"][0].tolist()
    assert found.values_NA[:, MARKET_NAMES.index("age")].tolist() == [ages[0], ages[1], ages[1], -1]
    numbers = counts(dataset)
    assert numbers["train attributes"] == 27
    assert numbers["train distinct attribute vectors"] == 2
    assert numbers["train images without attributes"] == 1


def test_duke_and_drawn_files_are_found_too(tmp_path):
    tables = {"train": table(TRAIN, DUKE_NAMES, 0), "test": table(TEST, DUKE_NAMES, 1)}
    write_mat(tmp_path / "duke_attribute.mat", tables, "duke_attribute")
    assert attributes_beside(tmp_path, [7], split="train").names == DUKE_NAMES
    assert attributes_beside(tmp_path, [3], split="test").num_unknown == 0
    (tmp_path / "duke_attribute.mat").unlink()
    write_json(tmp_path / "attributes.json", {"0007": person()})
    assert attributes_beside(tmp_path, [7], split="train").names == DRAWN_NAMES


def test_two_files_of_attributes_are_refused(tmp_path):
    write_mat(tmp_path / "market_attribute.mat", market_tables())
    write_json(tmp_path / "attributes.json", {"0007": person()})
    with pytest.raises(ValueError, match=r"got market_attribute\.mat and attributes\.json; keep the one"):
        attributes_beside(tmp_path, [7], split="train")


def test_a_file_that_tells_nobody_who_is_there_is_refused(tmp_path):
    write_mat(tmp_path / "market_attribute.mat", market_tables())
    with pytest.raises(ValueError, match="expected attributes of the persons in split train, got none of 2"):
        attributes_beside(tmp_path, [8, 9, 9], split="train")
